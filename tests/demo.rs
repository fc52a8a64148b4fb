//! `kubervisor demo` finds the demo's program and becomes it. What the demo does is tested in `demo/tests/demo.rs`.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// A folder with `kubervisor` alone in it.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_kubervisor"), folder.path().join("kubervisor")).unwrap();
    folder
}

fn write_program(folder: &Path) {
    let program = folder.join("kubervisor-demo");
    fs::write(&program, "#!/bin/sh\necho \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn demo(folder: &Path, path: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(folder.join("kubervisor"));
    let output = command.args(["demo", "--report", "x.html"]).env("PATH", path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_program_beside_kubervisor_gets_the_arguments_and_gives_the_exit_code() {
    let folder = installed();
    write_program(folder.path());
    let passed = (Some(7), "--report x.html\n".to_owned(), String::new());
    assert_eq!(demo(folder.path(), "/nowhere"), passed);
}

#[test]
fn without_one_beside_it_the_path_is_searched() {
    let (folder, other) = (installed(), tempfile::tempdir().unwrap());
    write_program(other.path());
    let (code, stdout, _) = demo(folder.path(), other.path().to_str().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(7), "--report x.html\n"));
}

#[test]
fn without_any_it_names_the_command_that_builds_it() {
    let (code, stdout, stderr) = demo(installed().path(), "/nowhere");
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("cargo build --package kubervisor-demo"), "{stderr}");
}
