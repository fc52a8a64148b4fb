//! From a change on the wire to a started callback, beside starting the same command ourselves.
//!
//! The clock starts before the changed keepalive is written to the socket and stops when the
//! callback's first word comes out of a pipe: the shell's own start is part of it, for both.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::{
    cores,
    fleet::{Link, Pod},
    report::{Figure, Goal, Report, median, percentile},
    running::Recipe,
};

const PODS: u32 = 1000;
const CHANGES: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(10);

/// A pipe that callbacks write a line into when they start.
pub(crate) struct Bell {
    path: PathBuf,
    rings: Receiver<(Instant, String)>,
}

impl Bell {
    pub(crate) fn hang(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("bell");
        mkfifo(&path, Mode::S_IRWXU)?;
        // Open for writing too, so that it never ends between two callbacks.
        let pipe = File::options().read(true).write(true).open(&path)?;
        let (ring, rings) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if ring.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { path, rings })
    }

    /// The shell line that rings it; `word` may be a variable.
    pub(crate) fn line(&self, word: &str) -> String {
        format!("echo {word} > {}", self.path.display())
    }

    /// The next ring: when, and what it said.
    pub(crate) fn wait(&self) -> anyhow::Result<(Instant, String)> {
        self.rings.recv_timeout(PATIENCE).context("no callback started")
    }

    /// Waits until it has been silent for a while.
    pub(crate) fn rest(&self, quiet: Duration) {
        while self.rings.recv_timeout(quiet).is_ok() {}
    }
}

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let bell = Bell::hang(directory.path())?;
    let recipe = Recipe::master("bench")
        .with("KONTROL_DAMPER", "0")
        .with("KONTROL_SHELL_CALLBACK", "TRUE")
        .with("KONTROL_CALLBACK", bell.line("x"));
    let server = cores::on_the_first(|| recipe.start())??;
    let mut link = Link::zerorpc(server.port)?;
    let pods: Vec<u32> = (0..PODS).collect();
    for some in pods.chunks(200) {
        link.ping_all(some.iter().map(|number| Pod::new(*number).keepalive()))?;
    }
    server.wait_for("ensemble_pods", f64::from(PODS), Duration::from_secs(30))?;
    bell.rest(Duration::from_millis(500));
    let mut delays = Vec::new();
    for change in 0..CHANGES {
        // All over the snapshot: what comes before the changed pod is not hashed again.
        let pod = Pod { load: change + 1, ..Pod::new(change * (PODS / CHANGES) + PODS / CHANGES / 2) };
        let began = Instant::now();
        link.ping(&pod.keepalive())?;
        let (rang, _) = bell.wait()?;
        delays.push(millis(rang - began));
        // The run is over, and what it changed is persisted, before the next change.
        bell.rest(Duration::from_millis(30));
    }
    let mut bare = starts(&bell)?;
    let yardstick = median(&mut bare);
    let row = |name: &str, value, goal| {
        Figure::new(name, value, "ms")
            .goal(Goal::AtMost(goal))
            .beside("fork+exec of the same command", yardstick)
    };
    let (middle, late) = (median(&mut delays), percentile(&mut delays, 0.95));
    let worst = percentile(&mut delays, 1.0);
    report.add(
        row("change -> callback started, median", middle, 2.0)
            .note(format!("1000 pods, damper 0, {CHANGES} changes")),
    );
    report.add(row("change -> callback started, p95", late, 5.0).note(format!("slowest {worst:.1} ms")));
    let ratio = |name: &str, value, goal| Figure::new(name, value / yardstick, "x").goal(Goal::AtMost(goal));
    report.add(ratio("change -> callback over fork+exec, median", middle, 2.0));
    report.add(ratio("change -> callback over fork+exec, p95", late, 2.5));
    Ok(())
}

/// The same command, started from here on the same core.
fn starts(bell: &Bell) -> anyhow::Result<Vec<f64>> {
    let line = bell.line("x");
    let mut delays = Vec::new();
    for _ in 0..CHANGES {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line]).stdin(Stdio::null());
        let (began, child) = cores::on_the_first(|| (Instant::now(), command.spawn()))?;
        let mut child = child?;
        let (rang, _) = bell.wait()?;
        delays.push(millis(rang - began));
        child.wait()?;
    }
    Ok(delays)
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
