//! Removes the demo's directory at the end of the demo, also when the demo was killed and cannot clean up itself.
//!
//! Its stdin is a pipe from the demo, which ends with the demo. The kernel kills the demo's other children at the same
//! time (`PR_SET_PDEATHSIG`).

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::io::AsyncReadExt;

use kubervisor::exit::Exit;

/// Attempts to remove the directory: a child that is being killed may still write into it.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Arguments of the janitor.
#[derive(Debug, clap::Args)]
pub(crate) struct JanitorArgs {
    /// The demo's directory.
    pub(crate) directory: PathBuf,
}

/// The running janitor.
pub(super) struct Janitor {
    child: Child,
}

impl Janitor {
    /// Starts one for `directory`, in a process group of its own: Ctrl-C in a terminal must not reach it.
    pub(super) fn start(program: &Path, directory: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("janitor").arg(directory).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.process_group(0).spawn()? })
    }

    /// Ends its stdin, and blocks until it has cleaned up.
    pub(super) fn finish(mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "cannot wait for the janitor");
        }
    }
}

/// Waits for the end of stdin, then removes the directory.
pub(super) async fn run(args: JanitorArgs) -> Result<(), Exit> {
    let mut nothing = Vec::new();
    let _ended = tokio::io::stdin().read_to_end(&mut nothing).await;
    let directory = &args.directory;
    for _ in 0..ATTEMPTS {
        match tokio::fs::remove_dir_all(directory).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    Err(Exit::Failed(anyhow::anyhow!("cannot remove {}", directory.display())))
}
