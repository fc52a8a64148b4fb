//! One command: its pipes, its end, its environment, its limits.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubervisor::adapters::process::{self, Ended, Job, ProcessError, ResourceLimits};
use nix::sys::resource::{Resource, setrlimit};
use tokio_util::sync::CancellationToken;

use super::{alive, eventually, isolated, run, shell, text, words};

#[tokio::test]
async fn input_and_output_of_any_size_are_passed() {
    let input = Bytes::from(vec![b'x'; 5 << 20]);
    let finished = run(Job { stdin: input.clone(), ..words(&["cat"]) }).await.unwrap();
    assert_eq!(finished.ended, Ended::Exited(0));
    assert!(finished.stdout == input);
    assert!(!finished.truncated);
}

#[tokio::test]
async fn a_command_that_ignores_its_input_ends_well() {
    let finished =
        run(Job { stdin: vec![b'x'; 5 << 20].into(), ..shell("exec <&-; echo done") }).await.unwrap();
    assert_eq!((finished.ended, text(&finished)), (Ended::Exited(0), "done"));
}

#[tokio::test]
async fn gigabytes_of_output_are_drained_and_the_first_bytes_kept() {
    let job = Job { stdout_limit: 1 << 20, ..shell("yes | head -c 200M; echo end >&2") };
    let finished = run(job).await.unwrap();
    assert_eq!(finished.ended, Ended::Exited(0), "it must not have been held up or cut off");
    assert_eq!((finished.stdout.len(), finished.truncated), (1 << 20, true));
    assert!(finished.stdout.starts_with(b"y\ny\n"));
    assert_eq!(finished.complaint, "end");
}

#[tokio::test]
async fn a_flood_on_both_pipes_does_not_deadlock() {
    let line = "yes err | head -c 20M >&2 & yes out | head -c 20M; wait; echo last >&2; exit 3";
    let finished = run(Job { stdout_limit: 10, ..shell(line) }).await.unwrap();
    assert_eq!(finished.ended, Ended::Exited(3));
    assert_eq!((&finished.stdout[..], finished.complaint.as_str()), (&b"out\nout\nou"[..], "last"));
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_at_its_timeout_and_its_output_is_kept() {
    let begun = Instant::now();
    let job = Job { timeout: Duration::from_secs(1), ..shell("echo early $$; sleep 1000; echo late") };
    let finished = run(job).await.unwrap();
    assert_eq!(finished.ended, Ended::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let pid = text(&finished).strip_prefix("early ").unwrap().parse().unwrap();
    assert!(!alive(pid));
}

#[tokio::test]
async fn the_code_and_the_signal_are_told_apart() {
    assert_eq!(run(shell("exit 7")).await.unwrap().ended, Ended::Exited(7));
    assert_eq!(run(shell("kill -9 $$")).await.unwrap().ended, Ended::Signalled(9));
    assert_eq!(run(shell("kill -SEGV $$")).await.unwrap().ended, Ended::Signalled(11));
}

#[tokio::test]
async fn a_cancelled_command_can_handle_term() {
    let cancel = CancellationToken::new();
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let line =
        format!("trap 'echo bye; exit 0' TERM; touch {}; while :; do sleep 0.01; done", ready.display());
    let running = tokio::spawn(process::run(shell(&line), cancel.clone()));
    eventually("the trap is set", || ready.exists()).await;
    cancel.cancel();
    let finished = running.await.unwrap().unwrap();
    assert_eq!((finished.ended, text(&finished)), (Ended::Cancelled, "bye"));
}

#[tokio::test]
async fn a_cancelled_command_that_ignores_term_is_killed_after_the_grace() {
    let cancel = CancellationToken::new();
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let line = format!("trap '' TERM; echo $$; touch {}; while :; do sleep 0.01; done", ready.display());
    let running = tokio::spawn(process::run(shell(&line), cancel.clone()));
    eventually("the trap is set", || ready.exists()).await;
    let begun = Instant::now();
    cancel.cancel();
    let finished = running.await.unwrap().unwrap();
    assert_eq!(finished.ended, Ended::Cancelled);
    assert!(begun.elapsed() >= process::GRACE);
    assert!(begun.elapsed() < process::GRACE + Duration::from_secs(5));
    assert!(!alive(text(&finished).parse().unwrap()));
}

#[tokio::test]
async fn nothing_starts_after_the_cancel() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let finished = process::run(shell(&format!("touch {}", trace.display())), cancel).await.unwrap();
    assert_eq!(finished.ended, Ended::Cancelled);
    assert!(!trace.exists());
}

#[tokio::test]
async fn every_failure_to_start_has_its_category() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let cases = [
        ("/no/such/program".to_owned(), "not_found"),
        ("no-such-program-anywhere".to_owned(), "not_found"),
        (file("plain", "#!/bin/sh\n", 0o644), "not_executable"),
        (dir.path().display().to_string(), "not_executable"),
        (file("orphan", "#!/no/such/interpreter\n", 0o755), "not_found"),
    ];
    for (program, category) in cases {
        let error = run(words(&[&program])).await.unwrap_err();
        assert_eq!(error.category(), category, "{program}: {error}");
        assert!(error.to_string().contains(&program));
    }
    // The kernel says "no such file" of a script that is there.
    for (name, line, words_of_error) in [
        ("crlf", "#!/bin/sh\r\necho 1\r\n", ["/bin/sh\\r", "CRLF"]),
        ("python2", "#! /usr/bin/python2.7 -u\n", ["\"/usr/bin/python2.7\"", "install it"]),
    ] {
        let error = run(words(&[&file(name, line, 0o755)])).await.unwrap_err().to_string();
        assert!(words_of_error.iter().all(|word| error.contains(word)), "{error}");
    }
    // As in a shell: a script without `#!` goes to the shell.
    let script = file("bare", "echo from the shell", 0o755);
    assert_eq!(text(&run(words(&[&script])).await.unwrap()), "from the shell");
    let directory = Some(dir.path().join("nowhere"));
    let error = run(Job { directory, ..words(&["true"]) }).await.unwrap_err();
    assert!(matches!(error, ProcessError::NoDirectory { .. }), "{error}");
}

#[tokio::test]
async fn a_variable_beyond_the_kernel_s_limit_is_a_typed_error() {
    let variable = |len: usize| vec![("V".into(), "x".repeat(len - 2).into())];
    let fits = Job { environment: variable(process::VARIABLE_LIMIT), ..shell("echo ${#V}") };
    assert_eq!(text(&run(fits).await.unwrap()), (process::VARIABLE_LIMIT - 2).to_string());
    let beyond = Job { environment: variable(process::VARIABLE_LIMIT + 1), ..words(&["true"]) };
    assert_eq!(run(beyond).await.unwrap_err().category(), "too_long");
}

#[test]
fn without_descriptors_the_error_is_typed_and_the_next_run_succeeds() {
    if !isolated("runs::without_descriptors_the_error_is_typed_and_the_next_run_succeeds") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(run(words(&["true"])).await.unwrap().ended, Ended::Exited(0));
        let in_use = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        // Each limit fails at another one of the pipes and the pidfd.
        let mut outcomes = Vec::new();
        for room in 0..9 {
            setrlimit(Resource::RLIMIT_NOFILE, in_use + room, 20_000).unwrap();
            outcomes.push(run(words(&["true"])).await.map_or_else(|error| error.category(), |_| "ran"));
        }
        let failures = outcomes.iter().take_while(|outcome| **outcome == "no_descriptors").count();
        assert!((4..8).contains(&failures), "{outcomes:?}");
        assert!(outcomes[failures..].iter().all(|outcome| *outcome == "ran"), "{outcomes:?}");
        setrlimit(Resource::RLIMIT_NOFILE, 20_000, 20_000).unwrap();
        assert_eq!(run(words(&["true"])).await.unwrap().ended, Ended::Exited(0));
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() as u64 <= in_use, "descriptors leaked");
    });
}

#[tokio::test]
async fn the_environment_is_inherited_minus_removed_plus_added() {
    let inherited = run(words(&["env"])).await.unwrap();
    assert!(text(&inherited).contains("PATH="));
    let job = Job {
        without: vec!["PATH".into()],
        environment: vec![("PWD".into(), "mine".into())],
        ..words(&["/usr/bin/env"])
    };
    let changed = run(job).await.unwrap();
    assert!(!text(&changed).lines().any(|line| line.starts_with("PATH=")));
    assert!(text(&changed).contains("PWD=mine\n"));
    let job = Job { clear_environment: true, environment: vec![("A".into(), "b".into())], ..words(&["env"]) };
    let cleared = run(job).await.unwrap();
    let mut names: Vec<&str> = text(&cleared).lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "KUBERVISOR_JOB", "PATH"]);
}

#[tokio::test]
async fn limits_and_the_ban_on_new_privileges_hold_inside() {
    let limits = ResourceLimits { open_files: Some(77), core_size: Some(0), ..ResourceLimits::default() };
    let line = "ulimit -n; ulimit -c; grep NoNewPrivs /proc/self/status | tr -d '\\t'; umask; pwd";
    let job = Job { limits, directory: Some("/".into()), ..shell(line) };
    let finished = run(job).await.unwrap();
    let mut lines = text(&finished).lines();
    assert_eq!(lines.next(), Some("77"));
    assert_eq!(lines.next(), Some("0"));
    assert_eq!(lines.next(), Some("NoNewPrivs:1"));
    let mask = u32::from_str_radix(lines.next().unwrap(), 8).unwrap();
    assert_eq!(mask & 0o022, 0o022);
    assert_eq!(lines.next(), Some("/"));
    let spinning =
        Job { limits: ResourceLimits { cpu_seconds: Some(1), ..limits }, ..shell("while :; do :; done") };
    assert!(matches!(run(spinning).await.unwrap().ended, Ended::Signalled(9 | 24)));
}

#[tokio::test]
async fn signals_reach_the_command_as_if_it_had_been_started_from_a_shell() {
    let finished = run(words(&["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"])).await.unwrap();
    let mask = |name: &str| {
        let line = text(&finished).lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk"), 0, "the thread that starts commands blocks all of them");
    assert_eq!(mask("SigIgn") & (1 << 12), 0, "our runtime ignores the pipe's");
}

#[test]
fn a_master_without_standard_descriptors_can_run_commands() {
    if !isolated("runs::a_master_without_standard_descriptors_can_run_commands") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // SAFETY: nothing else runs in this process; 0, 1 and 2 are open until they are closed below, their copies after that.
    let borrow = |fd| unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    for fd in 0..3 {
        // The output of the test is needed: its descriptors are moved away and back.
        rustix::io::fcntl_dupfd_cloexec(borrow(fd), 100 + fd).map(std::mem::forget).unwrap();
        nix::unistd::close(fd).unwrap();
    }
    let finished = runtime.block_on(run(Job { stdin: "in".into(), ..shell("cat; echo err >&2") }));
    for fd in 0..3 {
        rustix::io::fcntl_dupfd_cloexec(borrow(100 + fd), fd).map(std::mem::forget).unwrap();
    }
    let finished = finished.unwrap();
    assert_eq!((text(&finished), finished.complaint.as_str()), ("in", "err"));
}

#[tokio::test]
async fn no_descriptor_of_ours_reaches_the_command() {
    use std::os::fd::AsRawFd;
    // A descriptor without close-on-exec, as a parent may leave it.
    let stray = fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&stray, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let finished = run(words(&["ls", "/proc/self/fd"])).await.unwrap();
    let seen: Vec<i32> = text(&finished).lines().map(|line| line.parse().unwrap()).collect();
    // The fourth is the directory that ls reads.
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(!seen.contains(&stray.as_raw_fd()) || stray.as_raw_fd() == 3);
}
