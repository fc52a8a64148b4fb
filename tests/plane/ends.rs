//! The plane leaves no process and no directory behind, however its tests end.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::plane::{self, Component, until};

/// Variable that selects how the plane of the child process ends.
const HOW: &str = "PLANE_ENDS_BY";

#[tokio::test]
#[ignore = "runs in a process of its own, which another test starts"]
async fn a_plane_whose_tests_end() {
    let how = env::var(HOW).expect("only another test runs this one");
    let plane = plane::shared().await;
    println!("plane {}", plane.directory().display());
    let pids = Component::ALL.map(|component| plane.pid(component).to_string());
    println!("pids {} {}", plane.holder(), pids.join(" "));
    // A frozen process ignores SIGTERM.
    plane.freeze(Component::Scheduler);
    if how == "panic" {
        panic!("as a failed test does");
    }
    // The parent test kills this process here.
    let _end = std::io::stdin().read(&mut [0]);
}

async fn nothing_stays_behind(how: &str) {
    let mut tests = Command::new(env::current_exe().unwrap())
        .args(["--exact", "ends::a_plane_whose_tests_end", "--ignored", "--nocapture"])
        .env(HOW, how)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tests.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (mut directory, mut pids) = (None, Vec::new());
    for line in lines {
        // The harness does not end its own line before a test prints.
        if let Some((_, path)) = line.split_once("plane /") {
            directory = Some(Path::new("/").join(path));
        } else if let Some((_, all)) = line.split_once("pids ") {
            pids = all.split(' ').map(str::to_owned).collect();
            break;
        }
    }
    let directory = directory.expect("a plane started");
    assert_eq!(pids.len(), 6, "{pids:?}");
    if how == "SIGKILL" {
        tests.kill().unwrap();
    }
    assert!(!tests.wait().unwrap().success());
    // By pidfd: /proc may show another pid namespace, where the number is another process.
    let runs = |pid: &String| {
        let Ok(process) = pidfd_open(Pid::from_raw(pid.parse().unwrap()).unwrap(), PidfdFlags::empty())
        else {
            return false;
        };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&now)).unwrap() == 0
    };
    until("no process of the plane runs", || async { (!pids.iter().any(runs)).then_some(()) }).await;
    until("its directory is gone", || async { (!directory.exists()).then_some(()) }).await;
}

#[tokio::test]
async fn nothing_stays_behind_when_a_test_panics_or_all_are_killed() {
    // In sequence, to bound the load of control planes.
    nothing_stays_behind("panic").await;
    nothing_stays_behind("SIGKILL").await;
}
