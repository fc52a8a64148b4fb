//! `kubervisor demo`: runs `kubervisor-demo`, a program of its own, so that what only the demo needs stays out of the
//! product. Its flags are here, because it reads them from this type and the reference of flags is made from it.

use std::{ffi::OsString, io, os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::Context;

use crate::exit::Exit;

const PROGRAM: &str = "kubervisor-demo";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leaves everything running after the last act, until Ctrl-C.
    #[arg(long, env = "KUBERVISOR_DEMO_KEEP")]
    pub keep: bool,
    /// Writes the timeline and the verdicts as one HTML page.
    #[arg(long, env = "KUBERVISOR_DEMO_REPORT", value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Runs without a policy, so that promises are broken: shows that the demo can fail.
    #[arg(long, env = "KUBERVISOR_DEMO_WITHOUT_POLICY", hide = true)]
    pub without_policy: bool,
    /// Seconds after which a promise that does not hold yet counts as broken.
    #[arg(long, env = "KUBERVISOR_DEMO_CAP", value_name = "SECONDS", default_value_t = 20.0, hide = true)]
    pub cap: f64,
}

/// Becomes the demo's program, with the same arguments: the one beside our own executable, else the one on `PATH`.
///
/// # Errors
/// 2 when there is none, with how to build it; 1 when it cannot be started.
pub fn run() -> Result<(), Exit> {
    let own = std::env::current_exe().context("cannot find our own executable")?;
    let beside = own.with_file_name(PROGRAM);
    let program = if beside.exists() { beside } else { PROGRAM.into() };
    let error = Command::new(&program).args(passed_on(std::env::args_os())).exec();
    if error.kind() == io::ErrorKind::NotFound {
        return Err(Exit::Usage(format!(
            "{PROGRAM} is neither in the folder of {} nor on PATH: build it with `cargo build --package {PROGRAM}`",
            own.display()
        )));
    }
    Err(anyhow::Error::new(error).context(format!("cannot start {}", program.display())).into())
}

/// All arguments but the program and the word `demo`; flags may stand on either side of it.
fn passed_on(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_found = false;
    arguments.skip(1).filter(move |argument| {
        let is_command = !is_found && argument == "demo";
        is_found |= is_command;
        !is_command
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_demo_is_the_command() {
        let given = ["kubervisor", "--log-format", "json", "demo", "--report", "demo"].map(OsString::from);
        let passed: Vec<_> = passed_on(given.into_iter()).collect();
        assert_eq!(passed, ["--log-format", "json", "--report", "demo"]);
    }
}
