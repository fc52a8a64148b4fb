//! A hundred services with a thousand pods: their adoption, a minute in which nothing happens, and a restart.
//!
//! The restart finds ledgers and claims in place and one bad pod in every service; the clock runs from before the
//! process is made until the first of them is withheld, and on to the last.

use std::time::{Duration, Instant};

use crate::{
    callback::millis,
    plane_stage::{Controller, Detector, Fleets, Stage, Witness, counted, on_a_plane, wait},
    report::{Figure, Goal, Report, median},
};

const SERVICES: u32 = 100;
const PODS_EACH: u32 = 10;
const RESTARTS: usize = 3;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    on_a_plane(async |stage| many(report, stage).await)
}

async fn many(report: &mut Report, stage: &Stage) -> anyhow::Result<()> {
    let fleets = Fleets::make(stage, "many", SERVICES, PODS_EACH).await?;
    let signal = Detector::start().await?;
    fleets.gate(&signal, 5.0)?;
    let mut controller = Controller::start(&fleets)?;
    fleets.adopted().await?;
    let adoption = controller.began.elapsed();
    report.add(
        Figure::new("first adoption, 100 services, 1000 pods", adoption.as_secs_f64(), "s")
            .note("from the process's start until the last resource is Ready"),
    );
    quiet(report, stage, &mut controller).await?;
    drop(controller);
    restart(report, &fleets, &signal).await
}

async fn quiet(report: &mut Report, stage: &Stage, controller: &mut Controller) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(10)).await;
    let witness = Witness::new(&stage.plane)?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    controller.lives()?;
    let asked = witness.asked()?;
    report.add(
        Figure::new("API requests of an idle minute, 100 resources", asked.len() as f64, "requests")
            .goal(Goal::AtMost(20.0))
            .note(format!("beside the watches: {}", counted(&asked))),
    );
    Ok(())
}

async fn restart(report: &mut Report, fleets: &Fleets<'_>, signal: &Detector) -> anyhow::Result<()> {
    let mut bad = Vec::new();
    for service in &fleets.services {
        let mut pods = fleets.ready(Some(service)).await?;
        pods.sort_unstable();
        bad.extend(pods.into_iter().next().map(|pod| (fleets.namespace.clone(), pod)));
    }
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        signal.name(bad.clone());
        let controller = Controller::start(fleets)?;
        first.push(millis(withheld(fleets, 1).await? - controller.began));
        last.push(millis(withheld(fleets, bad.len()).await? - controller.began));
        signal.name(Vec::new());
        fleets.follow().await?.until(fleets.size()).await?;
        fleets.adopted().await?;
    }
    report.add(
        Figure::new("start -> first withdrawal, 100 services, 1000 pods", median(&mut first) / 1000.0, "s")
            .goal(Goal::AtMost(1.0))
            .note(format!(
                "median of {RESTARTS}, ledgers and claims in place; the last of 100 after {:.2} s",
                median(&mut last) / 1000.0
            )),
    );
    Ok(())
}

/// When so many pods were withheld.
async fn withheld(fleets: &Fleets<'_>, count: usize) -> anyhow::Result<Instant> {
    wait(&format!("{count} pods withheld"), Duration::from_secs(120), async || {
        Ok((fleets.labelled("kubervisor/traffic=no").await? >= count).then(Instant::now))
    })
    .await
}
