//! Every figure that we promise, beside its goal and beside a yardstick of the same run.
//!
//! `make bench` runs all of them; `make bench ARGS=absorb` those whose section is named. The server
//! under test is the real `kubervisor run` in a process of its own on the first core; this process is
//! its client, on the second. The same program, started again by itself, plays the yardsticks' servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the shared builders may fail loudly")]

mod absorb;
mod callback;
mod churn;
mod cores;
mod core_figures;
mod drive;
mod expiry;
mod failover;
mod herd;
mod idle;
mod memory;
mod report;
mod soak;
mod yardsticks;

#[path = "../../tests/support/etcd.rs"]
mod etcd;
#[path = "../../tests/support/fleet.rs"]
mod fleet;
#[path = "../../tests/support/running.rs"]
mod running;
#[path = "../../tests/support/world.rs"]
mod world;
#[path = "../../tests/support/yardstick.rs"]
mod yardstick;

use anyhow::{Context, bail};

use report::Report;

type Section = (&'static str, fn(&mut Report) -> anyhow::Result<()>);

const SECTIONS: [Section; 8] = [
    ("absorb", absorb::measure),
    ("callback", callback::measure),
    ("snapshot", core_figures::measure_snapshot),
    ("expiry", expiry::measure),
    ("memory", memory::measure),
    ("idle", idle::measure),
    ("failover", failover::measure),
    ("gate", core_figures::measure_gate),
];

fn main() -> anyhow::Result<()> {
    // Cargo itself adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", request, reply] => return yardsticks::echo(request.parse()?, reply.parse()?),
        ["hyper"] => return yardsticks::hyper(),
        ["churn", pods] => return churn::run(pods.parse()?),
        _ => {}
    }
    cores::take_the_second()?;
    match words.as_slice() {
        ["soak", minutes] => soak::run(minutes.parse().context("soak MINUTES")?),
        sections => figures(sections),
    }
}

fn figures(wanted: &[&str]) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.iter().any(|section| section.0 == **name)) {
        let known = SECTIONS.map(|section| section.0).join(", ");
        bail!("no section {unknown:?}; there are: {known}");
    }
    let mut report = Report::default();
    for (name, measure) in SECTIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            eprintln!("measuring: {name}");
            measure(&mut report).with_context(|| format!("section {name}"))?;
        }
    }
    report.publish()
}
