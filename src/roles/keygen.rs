//! `kubervisor keygen`: a key pair for `invoke`. The private key stays with the master; agents get the public one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::output;
use crate::{adapters::commands::signing::PrivateKey, exit::Exit};

/// Arguments of `keygen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the private key goes (mode 0600); the public one goes beside it, with `.pub` added.
    #[arg(
        long,
        env = "KONTROL_INVOKE_KEY_FILE",
        value_name = "FILE",
        default_value = "kubervisor-invoke.pem"
    )]
    pub out: PathBuf,
}

/// Writes both files; never overwrites one.
///
/// # Errors
/// 2 when a file is there already, 1 when one cannot be written.
pub async fn run(args: Args) -> Result<(), Exit> {
    let private = args.out;
    let mut public = private.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    let key = PrivateKey::draw().map_err(anyhow::Error::from)?;
    let (private_pem, public_pem) =
        (key.to_pem().map_err(anyhow::Error::from)?, key.public().to_pem().map_err(anyhow::Error::from)?);
    write(&private, 0o600, &private_pem)?;
    if let Err(exit) = write(&public, 0o644, &public_pem) {
        // A private key alone is useless; it was made just now.
        let _ = fs::remove_file(&private);
        return Err(exit);
    }
    let report = format!(
        "private key (the master's KONTROL_INVOKE_KEY_FILE): {}\npublic key (the agents' KONTROL_INVOKE_PUBKEY_FILE): {}\n",
        private.display(),
        public.display()
    );
    output::print(&report)
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), Exit> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let path = path.display();
            return Err(Exit::Usage(format!(
                "{path} is there already; move it away, or name another file with --out"
            )));
        }
        file => file.with_context(|| format!("cannot create {}", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
