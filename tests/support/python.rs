//! The original's language, in both versions, with the original's client library.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

/// The Python of a version, made if need be; `None`, loudly, if this machine cannot have it.
pub(crate) async fn python(version: u8) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python_env");
    let output =
        Command::new(script).arg(version.to_string()).stderr(Stdio::inherit()).output().await.unwrap();
    if output.status.code() == Some(77) {
        eprintln!("SKIPPED: no Python {version} on this machine");
        return None;
    }
    assert!(output.status.success(), "tests/support/python_env {version} failed");
    Some(String::from_utf8(output.stdout).unwrap().trim_end().into())
}

/// One of the originals' ends: `client.py` or `server.py`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(name)
}
