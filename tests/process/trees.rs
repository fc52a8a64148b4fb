//! All processes of a command are killed with it, and no others.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kubervisor::adapters::process::{self, Ended, Job};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio_util::sync::CancellationToken;

use super::{alive, eventually, isolated, run, shell, text, words};

/// A classic daemon: fork, setsid, fork, with its pipes closed; the parent prints its pid and ends (or waits).
const DAEMON: &str = r#"
import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2): os.close(fd)
        os.write(write, str(os.getpid()).encode())
        if "clear" in sys.argv: os.execve("/bin/sleep", ["sleep", "1000"], {})
        os.execv("/bin/sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
print(os.read(read, 20).decode(), flush=True)
if "wait" in sys.argv: time.sleep(1000)
"#;

fn daemon(arguments: &[&str]) -> Job {
    let mut all = vec!["python3", "-c", DAEMON];
    all.extend(arguments);
    words(&all)
}

/// Whether a child of ours is a zombie.
fn a_zombie_is_left() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::All, options).is_ok_and(|found| found.is_some())
}

#[tokio::test]
async fn background_children_are_killed_with_the_command() {
    let finished = run(shell("sleep 1000 & echo $!")).await.unwrap();
    assert_eq!(finished.ended, Ended::Exited(0));
    assert!(!alive(text(&finished).parse().unwrap()));
}

#[tokio::test]
async fn a_child_that_left_the_session_is_killed_with_the_command() {
    let dir = tempfile::tempdir().unwrap();
    // It keeps stdout open as well, which the run does not wait for.
    let line = format!(
        "setsid sh -c 'echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 1000' & \
         while [ ! -e {0} ]; do sleep 0.01; done; cat {0}",
        dir.path().join("pid").display()
    );
    let begun = Instant::now();
    let finished = run(shell(&line)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!alive(text(&finished).parse().unwrap()));
}

#[tokio::test]
async fn a_daemon_is_killed_with_the_command() {
    let finished = run(daemon(&[])).await.unwrap();
    assert_eq!(finished.ended, Ended::Exited(0));
    assert!(!alive(text(&finished).parse().unwrap()));
}

#[tokio::test]
async fn a_daemon_is_killed_at_the_timeout() {
    let finished = run(Job { timeout: Duration::from_secs(3), ..daemon(&["wait"]) }).await.unwrap();
    assert_eq!(finished.ended, Ended::TimedOut);
    assert!(!alive(text(&finished).parse().unwrap()));
}

#[test]
fn a_daemon_without_the_marker_is_killed_and_reaped() {
    if !isolated("trees::a_daemon_without_the_marker_is_killed_and_reaped") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let finished = run(daemon(&["clear"])).await.unwrap();
        assert!(!alive(text(&finished).parse().unwrap()));
        for _ in 0..5 {
            run(shell("for i in 1 2 3 4 5; do (setsid sh -c 'sleep 1000 & sleep 1000' &) ; done"))
                .await
                .unwrap();
        }
        assert!(!a_zombie_is_left());
    });
}

#[test]
fn the_end_of_a_job_kills_neither_another_job_nor_other_children() {
    if !isolated("trees::the_end_of_a_job_kills_neither_another_job_nor_other_children") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // Without our pipes: if this test fails the child stays and would keep the output open.
        let mut plain = Command::new("sleep");
        let plain = plain.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut plain = plain.spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let note = |name: &str| dir.path().join(name);
        let read = |name: &str| fs::read_to_string(note(name)).ok()?.trim().parse::<i32>().ok();
        // The other job has an ordinary child, an orphan with its marker, and one without.
        let line = format!(
            "sleep 1000 & echo $! > {0}/child; (setsid sh -c 'echo $$ > {0}/stray; exec sleep 1000' &); \
             (env -i setsid sh -c 'echo $$ > {0}/unmarked; exec sleep 1000' &); sleep 1000",
            dir.path().display()
        );
        let cancel = CancellationToken::new();
        let other = tokio::spawn(process::run(shell(&line), cancel.clone()));
        eventually("the other job's processes run", || {
            ["child", "stray", "unmarked"].iter().all(|name| read(name).is_some_and(alive))
        })
        .await;
        for _ in 0..3 {
            let finished = run(daemon(&[])).await.unwrap();
            assert!(!alive(text(&finished).parse().unwrap()));
        }
        for name in ["child", "stray", "unmarked"] {
            assert!(alive(read(name).unwrap()), "{name} was killed by a job that is not its own");
        }
        cancel.cancel();
        assert_eq!(other.await.unwrap().unwrap().ended, Ended::Cancelled);
        for name in ["child", "stray", "unmarked"] {
            assert!(!alive(read(name).unwrap()), "{name} outlived its job");
        }
        assert!(plain.try_wait().unwrap().is_none(), "a child that is no job was killed or reaped");
        plain.kill().unwrap();
        plain.wait().unwrap();
        assert!(!a_zombie_is_left());
    });
}

#[tokio::test]
async fn concurrent_jobs_get_their_own_results() {
    let runs = (0..24).map(|i| async move {
        let line = format!("(setsid sleep 1000 &); echo {i}; exit {i}");
        (i, run(shell(&line)).await.unwrap())
    });
    for (i, finished) in futures::future::join_all(runs).await {
        assert_eq!((finished.ended, text(&finished)), (Ended::Exited(i), i.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_dropped_run_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let line = format!("echo $$ > {0}.tmp && mv {0}.tmp {0}; sleep 1000", file.display());
    let running = tokio::spawn(run(shell(&line)));
    eventually("it runs", || file.exists()).await;
    let pid = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(alive(pid));
    running.abort();
    eventually("it is gone", || !alive(pid)).await;
}

#[test]
fn a_command_dies_with_us_even_when_we_are_killed() {
    let name = "trees::a_command_dies_with_us_even_when_we_are_killed";
    if let Some(file) = std::env::var_os("KUBERVISOR_TEST_VICTIM") {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let line = format!("echo $$ > {0}.tmp && mv {0}.tmp {0}; exec sleep 1000", file.display());
        let _ = runtime.block_on(run(shell(&line)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("KUBERVISOR_TEST_VICTIM", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        eventually("the command runs", || file.exists()).await;
        let pid = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert!(alive(pid));
        victim.kill().unwrap();
        victim.wait().unwrap();
        eventually("the command is gone", || !alive(pid)).await;
    });
}

#[tokio::test]
async fn a_thread_that_asked_for_a_run_may_end_before_it() {
    // The death signal follows the thread that forked, not the process.
    let handle = tokio::runtime::Handle::current();
    let asked = tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || handle.spawn(run(shell("sleep 0.3; echo still here")))).join().unwrap()
    });
    let finished = asked.await.unwrap().await.unwrap().unwrap();
    assert_eq!((finished.ended, text(&finished)), (Ended::Exited(0), "still here"));
}

#[test]
fn survivors_of_a_job_that_keeps_them_live_through_other_jobs_and_are_reaped_when_they_end() {
    if !isolated(
        "trees::survivors_of_a_job_that_keeps_them_live_through_other_jobs_and_are_reaped_when_they_end",
    ) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let kept = |job: Job| Job { keeps_survivors: true, ..job };
        let pid = |finished: &process::Finished| text(finished).trim().parse::<i32>().unwrap();
        let mut left = Vec::new();
        for job in [daemon(&[]), daemon(&["clear"]), shell("sleep 1000 >/dev/null 2>&1 & echo $!")] {
            let finished = run(kept(job)).await.unwrap();
            assert_eq!(finished.ended, Ended::Exited(0));
            left.push(pid(&finished));
        }
        for _ in 0..3 {
            run(shell("(setsid sleep 1000 &) ; true")).await.unwrap();
        }
        assert!(left.iter().all(|pid| alive(*pid)), "{left:?}");
        // One that fails keeps nothing.
        let failed = run(kept(shell("sleep 1000 >/dev/null 2>&1 & echo $!; exit 3"))).await.unwrap();
        assert_eq!(failed.ended, Ended::Exited(3));
        assert!(!alive(pid(&failed)));
        for pid in left {
            let kill = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
            assert!(kill.success());
            eventually("it has ended", || !alive(pid)).await;
        }
        run(shell("true")).await.unwrap();
        assert!(!a_zombie_is_left());
    });
}
