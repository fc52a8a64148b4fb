//! The guarantees inside another pid namespace, where /proc may show other pids and the leader of our session
//! is outside.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use nix::unistd::geteuid;

/// The tests that find, kill and reap descendants.
const TESTS: [&str; 6] = [
    "trees::a_child_that_left_the_session_is_killed_with_the_command",
    "trees::a_daemon_is_killed_with_the_command",
    "trees::a_daemon_without_the_marker_is_killed_and_reaped",
    "trees::the_end_of_a_job_kills_neither_another_job_nor_other_children",
    "trees::a_command_dies_with_us_even_when_we_are_killed",
    "users::an_unprivileged_command_is_killed_with_all_its_daemons_too",
];

/// `unshare` with these options and a time limit, so that a hang fails; `None` (and why) where it is not allowed.
fn unshare(options: &[&str]) -> Option<Command> {
    let command = || {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120", "unshare", "--pid", "--fork", "--kill-child"]).args(options);
        command.stdin(Stdio::null());
        command
    };
    let usable = geteuid().is_root() && command().arg("true").output().is_ok_and(|out| out.status.success());
    if !usable {
        eprintln!("not root, or unshare is not allowed: other pid namespaces are not tested here");
    }
    usable.then(command)
}

fn passes(mut unshare: Command, before: &[&str], tests: &[&str]) {
    let this = std::env::current_exe().unwrap();
    let command = unshare.args(before).arg(this).arg("--exact").args(tests).env_remove(super::ISOLATED);
    let output = command.process_group(0).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("{} passed", tests.len())), "{said}");
}

#[test]
fn descendants_are_found_where_proc_has_other_names_for_them() {
    let Some(unshare) = unshare(&[]) else { return };
    passes(unshare, &[], &TESTS);
}

#[test]
fn descendants_are_found_where_our_session_began_outside() {
    let Some(unshare) = unshare(&["--mount-proc"]) else { return };
    passes(unshare, &[], &TESTS);
}

#[test]
fn where_proc_is_empty_the_group_is_killed_and_nothing_hangs() {
    let Some(unshare) = unshare(&["--mount"]) else { return };
    let hide = r#"mount -t tmpfs none /proc && exec "$@""#;
    passes(unshare, &["sh", "-c", hide, "sh"], &["trees::background_children_are_killed_with_the_command"]);
}
