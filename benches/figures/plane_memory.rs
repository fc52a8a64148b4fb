//! The controller's memory with 10 000 pods in 100 services, beside an informer that keeps the same pods whole.
//!
//! The informer is client-go's own, as most controllers use it (`full-cache` of the test cluster's program). Both are
//! looked at half a minute after they have everything.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    plane::User,
    plane_stage::{Controller, Detector, Fleets, Stage, on_a_plane},
    report::{Figure, Goal, Report},
    running::resident,
};

const SERVICES: u32 = 100;
const PODS_EACH: u32 = 100;
const SETTLE: Duration = Duration::from_secs(30);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    on_a_plane(async |stage| memory(report, stage).await)
}

async fn memory(report: &mut Report, stage: &Stage) -> anyhow::Result<()> {
    let fleets = Fleets::make(stage, "memory", SERVICES, PODS_EACH).await?;
    let signal = Detector::start().await?;
    fleets.gate(&signal, 5.0)?;
    let mut controller = Controller::start(&fleets)?;
    fleets.adopted().await?;
    let adopted = controller.mebibytes()?;
    tokio::time::sleep(SETTLE).await;
    controller.lives()?;
    let first = controller.mebibytes()?;
    drop(controller);
    // A restart is what an update does, and it meets claims that are in place.
    let controller = Controller::start(&fleets)?;
    tokio::time::sleep(SETTLE).await;
    let again = controller.mebibytes()?;
    drop(controller);
    let full = full_cache(&fleets).await?;
    let row = |when: &str, value, goal| {
        Figure::new(format!("controller RSS, 10 000 pods in 100 services, {when}"), value, "MiB")
            .goal(Goal::AtMost(goal))
            .beside("client-go informer of the same pods", full)
    };
    report.add(row("after the first adoption", first, 48.0).note(format!("right after it {adopted:.1}")));
    report.add(row("after a restart", again, 40.0));
    Ok(())
}

/// Ends with its reader.
struct Informer(Child);

impl Drop for Informer {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

async fn full_cache(fleets: &Fleets<'_>) -> anyhow::Result<f64> {
    let child = Command::new(fleets.stage.plane.directory().join("bin/kubectl").canonicalize()?)
        .args(["full-cache", "--namespace", &fleets.namespace, "--kubeconfig"])
        .arg(fleets.stage.plane.kubeconfig(User::Admin))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the informer")?;
    let mut informer = Informer(child);
    let output = informer.0.stdout.take().context("no output")?;
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map(|_| line)
    })
    .await??;
    ensure!(line.trim_end() == format!("synced {}", fleets.size()), "the informer says {line:?}");
    tokio::time::sleep(SETTLE).await;
    Ok(resident(informer.0.id())? as f64 / f64::from(1 << 20))
}
