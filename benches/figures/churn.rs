//! The virtual hour: the real ensemble at virtual time in a process of its own, so that its memory is
//! the ensemble's and nobody else's. Every batch is confirmed, every 10 s (the default damper) a
//! snapshot is taken and digested, the newest one is held as the master holds it.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::Context;
use kubervisor::decide::{
    ensemble::{Ensemble, Settings},
    time::Moment,
};

use crate::{
    load::{Load, ROUNDS},
    running,
};

const TTL: Duration = Duration::from_secs(25);
const DAMPER: Duration = Duration::from_secs(10);

/// What the process saw: MiB in RAM after each tenth of the hour.
pub(crate) fn hour(pods: u32) -> anyhow::Result<Vec<f64>> {
    let output =
        Command::new(std::env::current_exe()?).args(["--role", "churn", &pods.to_string()]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let series: Option<Vec<f64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    series.filter(|series| !series.is_empty()).with_context(|| format!("no figures: {text:?}"))
}

/// The process itself.
pub(crate) fn run(size: u32) -> anyhow::Result<()> {
    let mut ensemble = Ensemble::new(Settings::new(TTL, TTL / 3));
    let mut load = Load::new(size);
    let mut held = None;
    let (mut now, mut next_digest) = (Duration::from_secs(1), DAMPER);
    for round in 0..ROUNDS {
        if round > 0 {
            for (_, pod) in load.churn() {
                let _ = ensemble.observe(Moment::after_origin(now), pod.farewell().as_bytes(), None);
            }
        }
        let step = TTL / 3 / u32::try_from(load.pods().len())?.max(1);
        for pod in load.pods() {
            now += step;
            let moment = Moment::after_origin(now);
            ensemble.observe(moment, pod.keepalive().as_bytes(), None)?;
        }
        let moment = Moment::after_origin(now);
        ensemble.expire(moment);
        while let Some(changes) = ensemble.take_changes() {
            ensemble.confirm(changes.ticket);
        }
        if now >= next_digest {
            next_digest = now + DAMPER;
            let snapshot = ensemble.snapshot();
            let _ = snapshot.digest();
            held = Some(Arc::clone(&snapshot));
        }
        if round % (ROUNDS / 10) == ROUNDS / 10 - 1 {
            print!("{} ", running::resident(std::process::id())? as f64 / f64::from(1 << 20));
        }
    }
    drop(held);
    Ok(())
}
