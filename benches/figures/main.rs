//! Every figure that we promise, beside its goal and beside a yardstick of the same run.
//!
//! `make bench` runs all of them, `scripts/bench absorb` those whose section is named. The server
//! under test is the real `kubervisor run` in a process of its own on the first core; this process is
//! its client, on the second. The same program, started again by itself, plays the yardsticks' servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the shared builders may fail loudly"
)]

mod absorb;
mod callback;
mod churn;
mod core_figures;
mod cores;
mod detection;
mod drive;
mod expiry;
mod failover;
mod idle;
mod load;
mod memory;
mod plane_many;
mod plane_memory;
mod plane_replicas;
mod plane_stage;
mod plane_withdraw;
mod replay;
mod report;
mod soak;
mod view;
mod yardsticks;

#[path = "../../tests/support/backfill.rs"]
mod backfill;
#[path = "../../tests/support/etcd.rs"]
mod etcd;
#[path = "../../tests/support/fleet.rs"]
mod fleet;
#[path = "../../tests/support/plane.rs"]
mod plane;
#[path = "../../tests/support/ports.rs"]
mod ports;
#[path = "../../tests/support/running.rs"]
mod running;
#[path = "../../tests/support/scraper.rs"]
mod scraper;
#[path = "../../tests/support/traces.rs"]
mod traces;
#[path = "../../tests/support/trial.rs"]
mod trial;
#[path = "../../tests/support/world.rs"]
mod world;
#[path = "../../tests/support/yardstick.rs"]
mod yardstick;

use anyhow::{Context, bail};

use report::Report;

/// What is measured.
struct Section {
    name: &'static str,
    measure: fn(&mut Report) -> anyhow::Result<()>,
    /// Whether other work on the machine would show in it.
    timed: bool,
}

const fn section(name: &'static str, measure: fn(&mut Report) -> anyhow::Result<()>, timed: bool) -> Section {
    Section { name, measure, timed }
}

const SECTIONS: [Section; 17] = [
    section("absorb", absorb::measure, true),
    section("callback", callback::measure, true),
    section("snapshot", core_figures::measure_snapshot, true),
    section("gate", core_figures::measure_gate, true),
    section("detection", detection::measure, false),
    section("expiry", expiry::measure, true),
    section("failover", failover::measure, true),
    section("idle", idle::measure, false),
    section("memory", memory::measure, false),
    section("withdraw", plane_withdraw::measure, false),
    section("many", plane_many::measure, false),
    section("cache", plane_memory::measure, false),
    section("takeover", plane_replicas::measure_take_over, false),
    section("rolling", plane_replicas::measure_rolling, false),
    section("sharing", plane_replicas::measure_sharing, false),
    section("view", view::measure, true),
    section("report", replay::measure, true),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--role", role @ ..] => play(role),
        // `cargo bench` says so; `cargo test --all-targets` starts this program too, and wants nothing measured.
        words if !words.contains(&"--bench") => Ok(()),
        words => {
            cores::take_the_second()?;
            let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--bench").collect();
            match words.as_slice() {
                ["soak", minutes] => soak::run(minutes.parse().context("soak MINUTES")?),
                sections => figures(sections),
            }
        }
    }
}

/// What this program does when it has started itself.
fn play(role: &[&str]) -> anyhow::Result<()> {
    match role {
        ["echo", request, reply] => yardsticks::echo(request.parse()?, reply.parse()?),
        ["hyper"] => yardsticks::hyper(),
        ["churn", pods] => churn::run(pods.parse()?),
        _ => bail!("no such role: {role:?}"),
    }
}

fn figures(wanted: &[&str]) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.iter().any(|section| section.name == **name)) {
        let known = SECTIONS.map(|section| section.name).join(", ");
        bail!("no section {unknown:?}; there are: {known}");
    }
    let mut report = Report::default();
    for Section { name, measure, timed } in SECTIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            eprintln!("measuring: {name}");
            cores::go_ahead_of_others(timed);
            measure(&mut report).with_context(|| format!("section {name}"))?;
        }
    }
    report.publish()
}
