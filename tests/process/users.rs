//! The user of commands. Most tests need root and report when it is missing.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use bytes::Bytes;
use kubervisor::{
    adapters::{
        callback::{CallbackInput, CallbackMetrics, CallbackRunner},
        process::{Job, ProcessError},
    },
    config::{CallbackConfig, CommandLine, RunAs},
};
use nix::unistd::{User, geteuid};
use tokio_util::sync::CancellationToken;

use super::{run, shell, text};

/// The uid of `nobody`, if we may become it.
fn nobody() -> Option<u32> {
    let found = User::from_name("nobody").unwrap().map(|user| user.uid.as_raw());
    let usable = found.filter(|_| geteuid().is_root());
    if usable.is_none() {
        eprintln!("not root, or no user nobody: the switch of users is not tested here");
    }
    usable
}

fn as_nobody(line: &str) -> Job {
    Job { user: RunAs::User("nobody".into()), ..shell(line) }
}

#[tokio::test]
async fn a_named_user_has_its_own_rights_only() {
    let Some(uid) = nobody() else { return };
    let line = "id -u; id -ru; id -G; grep -E '^Cap(Prm|Eff)' /proc/self/status | cut -f2 | sort -u; echo $USER $HOME; cat /etc/shadow 2>&1 | tail -c 18";
    let finished = run(as_nobody(line)).await.unwrap();
    let lines: Vec<&str> = text(&finished).lines().collect();
    let user = User::from_name("nobody").unwrap().unwrap();
    let home = format!("nobody {}", user.dir.display());
    let (uid, gid) = (uid.to_string(), user.gid.to_string());
    assert_eq!(lines[..5], [&uid, &uid, &gid, "0000000000000000", home.as_str()]);
    assert_eq!(lines[5], "Permission denied");
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(
        dumpable,
        rustix::process::DumpableBehavior::Dumpable,
        "the child's change of user cleared our dumpable flag"
    );
}

#[tokio::test]
async fn an_unprivileged_command_is_killed_with_all_its_daemons_too() {
    if nobody().is_none() {
        return;
    }
    let job = Job {
        timeout: Duration::from_secs(2),
        ..as_nobody("(setsid sh -c 'echo $$; exec sleep 1000' &); sleep 1000")
    };
    let finished = run(job).await.unwrap();
    assert!(!super::alive(text(&finished).parse().unwrap()));
}

#[tokio::test]
async fn an_unavailable_user_is_an_error_and_nothing_runs() {
    let error =
        run(Job { user: RunAs::User("no-such-user-here".into()), ..shell("true") }).await.unwrap_err();
    assert!(matches!(error, ProcessError::User(_)));
    assert_eq!(error.category(), "user");
}

#[tokio::test]
async fn the_files_of_a_callback_are_private_to_its_user() {
    let user = if nobody().is_some() { RunAs::User("nobody".into()) } else { RunAs::Ourselves };
    let line = r#"d=$(dirname $PODS_FILE); stat -c '"%a %U"' $d $PODS_FILE $STATE_FILE $FLEET_FILE > /dev/stderr
        cat $PODS_FILE $STATE_FILE $FLEET_FILE > /dev/null || exit 9
        printf '["%s", "%s"]' "$(stat -c '%a %u' $d)" "$(stat -c '%a %u' $PODS_FILE $STATE_FILE $FLEET_FILE | sort -u)""#;
    let config = CallbackConfig {
        command: CommandLine::Shell(line.to_owned()),
        timeout: Duration::from_secs(10),
        user,
    };
    let input = CallbackInput {
        pods: Bytes::from_static(b"[]"),
        digest: "ab".into(),
        state: Some(Bytes::from_static(b"{}")),
        fleet: Bytes::from_static(b"{}"),
    };
    let runner = CallbackRunner::new(
        config,
        Vec::new(),
        CallbackMetrics::register(&mut prometheus_client::registry::Registry::default()),
    );
    let outcome = runner.run(input, CancellationToken::new()).await;
    let uid = nobody().unwrap_or_else(|| geteuid().as_raw());
    let state = outcome.result.unwrap().state.unwrap();
    assert_eq!(state, format!(r#"["700 {uid}", "600 {uid}"]"#));
}

#[tokio::test]
async fn a_program_that_the_user_may_not_execute_is_a_typed_error() {
    if nobody().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("mine");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let command = CommandLine::Words(vec![program.display().to_string()]);
    let error = run(Job { command, ..as_nobody("") }).await.unwrap_err();
    assert_eq!(error.category(), "not_executable");
}
