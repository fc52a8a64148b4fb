//! The master's memory under a fleet in churn: the real process over 1000 connections, and the ensemble
//! alone over an hour of virtual time.
//!
//! The real process sees ten minutes of that churn in 72 s: its pods ping once a second, between two pings
//! changes as much as in TTL/3, and its damper is shortened by as much (10 s to 1.2 s). The TTL stays 25 s, so
//! that it remembers the silent for longer than it would. Payloads of 100 bytes, embedded store (cache 4 MiB).

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    churn, cores, fleet,
    fleet::{Link, Pod},
    load::Load,
    report::{Figure, Goal, Report},
    running::{Recipe, Running, pause},
};

const LINKS: usize = 1000;

/// How often all pods ping.
const PASSES: u32 = 72;

/// From one ping to the next: what stands for TTL/3.
const PACE: Duration = Duration::from_secs(1);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for (pods, goal) in [(10_000, 40.0), (50_000, 64.0)] {
        real(report, pods, goal)?;
        virtual_hour(report, pods)?;
    }
    Ok(())
}

fn virtual_hour(report: &mut Report, pods: u32) -> anyhow::Result<()> {
    let series = churn::hour(pods)?;
    // The first tenth is the fleet's arrival.
    let (first, last) =
        (series.get(1).copied().unwrap_or_default(), series.last().copied().unwrap_or_default());
    let most = series.iter().copied().fold(0.0, f64::max);
    report.add(
        Figure::new(format!("growth of the ensemble alone, {pods} pods, virtual hour"), last / first, "x")
            .goal(Goal::AtMost(1.1))
            .note(format!("from the 2nd to the 10th tenth: {first:.1} to {last:.1} MiB, at most {most:.1}")),
    );
    Ok(())
}

fn real(report: &mut Report, size: u32, goal: f64) -> anyhow::Result<()> {
    let recipe = Recipe::master("bench").with("KONTROL_DAMPER", "1.2");
    let server = cores::on_the_first(|| recipe.start())??;
    let bare = mebibytes(&server)?;
    let mut load = Load::new(size);
    let mut links = (0..LINKS).map(|_| Link::zerorpc(server.port)).collect::<std::io::Result<Vec<_>>>()?;
    ping_all(&mut links, load.pods())?;
    server.wait_for("ensemble_pods", f64::from(size), Duration::from_secs(60))?;
    let mut series = vec![mebibytes(&server)?];
    for _ in 0..PASSES {
        let began = Instant::now();
        for (slot, pod) in load.churn() {
            links[slot % LINKS].ping(&pod.farewell())?;
        }
        ping_all(&mut links, load.pods())?;
        series.push(mebibytes(&server)?);
        pause(PACE.saturating_sub(began.elapsed()));
    }
    ensure!(server.metric("keepalives_refused_total")? == 0.0, "keepalives were refused");
    let (first, last) = (series[0], series[series.len() - 1]);
    let most = series.iter().copied().fold(0.0, f64::max);
    report.add(Figure::new(format!("master RSS, {size} pods"), most, "MiB").goal(Goal::AtMost(goal)).note(
        format!(
            "highest of ten minutes' churn in 72 s; idle process {bare:.1}, after the joins {first:.1}, last {last:.1}"
        ),
    ));
    Ok(())
}

/// Every pod pings once over its connection; a few connections at a time.
fn ping_all(links: &mut [Link], pods: &[Pod]) -> anyhow::Result<()> {
    let reply = fleet::reply_length();
    let mut bytes = Vec::new();
    for first in (0..links.len()).step_by(50) {
        let group = first..links.len().min(first + 50);
        for at in group.clone() {
            bytes.clear();
            let mut count = 0;
            for pod in pods.iter().skip(at).step_by(LINKS) {
                bytes.extend(fleet::request(&pod.keepalive()));
                count += 1;
            }
            links[at].send(&bytes, count * reply)?;
        }
        for at in group {
            links[at].settle()?;
        }
    }
    Ok(())
}

fn mebibytes(server: &Running) -> anyhow::Result<f64> {
    Ok(server.resident()? as f64 / f64::from(1 << 20))
}
