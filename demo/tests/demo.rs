//! The demo as a user runs it, in full, and a demo whose promises cannot hold.
//!
//! `cargo test --test demo` in the workspace builds both programs: the package `kubervisor` has a test of that name too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A demo with a directory of its own for everything that it leaves.
fn demo(temporary: &Path) -> Command {
    let kubervisor = Path::new(env!("CARGO_BIN_EXE_kubervisor-demo")).with_file_name("kubervisor");
    assert!(
        kubervisor.exists(),
        "build {} with `cargo build`, or test the whole workspace",
        kubervisor.display()
    );
    let mut command = Command::new(kubervisor);
    command.arg("demo").env("TMPDIR", temporary).stdin(Stdio::null());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("KONTROL") || name.starts_with("KUBERVISOR"))
    {
        command.env_remove(name);
    }
    command
}

/// Processes whose environment or command line names `temporary`.
fn survivors(temporary: &Path) -> BTreeSet<i32> {
    let wanted = temporary.to_str().unwrap();
    let names_it = |pid: &i32| {
        ["cmdline", "environ"].iter().any(|file| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(wanted)
        })
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(names_it).collect()
}

/// Waits until nothing of the demo is left, neither process nor file.
fn assert_nothing_is_left(temporary: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (left, files) = (survivors(temporary), fs::read_dir(temporary).unwrap().count());
        if left.is_empty() && files == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: processes {left:?}, {files} files");
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "a test without a runtime that looks again and again")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The verdict lines, in order.
fn verdicts(output: &Output) -> Vec<String> {
    let lines = text(&output.stdout);
    lines
        .lines()
        .filter(|line| line.starts_with("PASS") || line.starts_with("FAIL"))
        .map(str::to_owned)
        .collect()
}

/// The number that stands right before `unit` after `label`.
fn figure(line: &str, label: &str) -> f64 {
    let rest = line.split_once(label).unwrap_or_else(|| panic!("no {label:?} in {line:?}")).1.trim_start();
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    number.parse().unwrap_or_else(|_| panic!("no number after {label:?} in {line:?}"))
}

#[test]
fn the_demo_keeps_all_its_promises_and_leaves_nothing_behind() {
    let (temporary, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let report = results.path().join("report.html");
    let began = Instant::now();
    let output = demo(temporary.path()).arg("--report").arg(&report).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(began.elapsed() < Duration::from_secs(150), "{:?}", began.elapsed());

    let lines = verdicts(&output);
    assert_eq!(lines.len(), 7, "{said}");
    assert!(lines.iter().all(|line| line.starts_with("PASS  ")), "{said}");
    assert!(lines[0].contains("0 failures; floor 6"), "{}", lines[0]);
    assert!(lines[1].contains("floor 6, serving 9"), "{}", lines[1]);
    assert!(figure(&lines[1], "client failures") > 0.0, "{}", lines[1]);
    assert!(lines[2].contains("in batches of"), "{}", lines[2]);
    assert!((5.5..12.0).contains(&figure(&lines[3], "killed app out")), "{}", lines[3]);
    assert!(figure(&lines[3], "client failures") > 0.0, "{}", lines[3]);
    assert!(lines[4].contains("0 failures; seq of 12 pods, 1 withheld and STATE"), "{}", lines[4]);
    assert!(lines[5].contains("nobody withheld") && lines[5].contains("of 12 pods look bad"), "{}", lines[5]);

    assert!(lines[6].contains("seq of all 6 pods kept; the other 2 keep their leaders"), "{}", lines[6]);

    let page = fs::read_to_string(&report).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for series in ["withheld", "floor", "serving", "failures"] {
        let path = page.split_once(&format!("id=\"series-{series}\"")).unwrap().1;
        let path = path.split_once(" d=\"").unwrap().1;
        assert!(path.starts_with('M') && path.find('"').unwrap() > 100, "{series} is not drawn");
    }
    let data = page.split_once("id=\"samples\">").unwrap().1.split_once("</script>").unwrap().0;
    let samples: Vec<Value> = serde_json::from_str(data).unwrap();
    assert!(samples.len() > 60, "{} samples", samples.len());
    let listed = |sample: &Value| sample["listed"].as_u64().unwrap();
    let full = samples.iter().position(|sample| listed(sample) == 12).unwrap();
    assert!(samples[full..].iter().all(|sample| listed(sample) >= 6), "below the floor");
    assert!(samples.iter().any(|sample| listed(sample) == 9));
    assert!(!page.contains("http://") && !page.contains("https://"), "the page loads nothing");
    assert_nothing_is_left(temporary.path());
}

#[test]
fn a_demo_whose_promises_do_not_hold_says_so_and_ends_with_1() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path()).args(["--without-policy", "--cap", "10"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let lines = verdicts(&output);
    assert_eq!(lines.len(), 7, "{}", text(&output.stdout));
    assert!(lines[0].starts_with("PASS"), "{}", lines[0]);
    for broken in [1, 4, 5] {
        assert!(lines[broken].starts_with("FAIL"), "{}", lines[broken]);
    }
    assert!(text(&output.stderr).contains("not every promise held"));
    assert_nothing_is_left(temporary.path());
}

#[test]
fn a_killed_demo_takes_its_children_and_its_files_with_it() {
    let temporary = tempfile::tempdir().unwrap();
    let mut running: Child =
        demo(temporary.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The demo, its janitor, 12 apps, 12 agents and the master.
    while survivors(temporary.path()).len() < 27 {
        assert!(Instant::now() < deadline, "only {:?}", survivors(temporary.path()));
        pause();
    }
    kill(Pid::from_raw(i32::try_from(running.id()).unwrap()), Signal::SIGKILL).unwrap();
    running.wait().unwrap();
    assert_nothing_is_left(temporary.path());
}
