//! How long after its TTL a dead pod is out of the snapshot: until a callback that sees the new one
//! has started, so the true figure is smaller by that start.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    callback::{Bell, millis},
    cores,
    fleet::{Link, Pod},
    report::{Figure, Goal, Report, median, percentile},
    running::{Recipe, pause},
};

const TTL: Duration = Duration::from_secs(1);
const LIVING: u32 = 100;
const DYING: u32 = 15;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let bell = Bell::hang(directory.path())?;
    let recipe = Recipe::master("bench")
        .with("KONTROL_DAMPER", "0")
        .with("KONTROL_TTL", TTL.as_secs().to_string())
        .with("KONTROL_SHELL_CALLBACK", "TRUE")
        .with("KONTROL_CALLBACK", bell.line("x"));
    let server = cores::on_the_first(|| recipe.start())??;
    let over = AtomicBool::new(false);
    let mut late = std::thread::scope(|scope| {
        let living = scope.spawn(|| -> std::io::Result<()> {
            let mut link = Link::zerorpc(server.port)?;
            while !over.load(Ordering::Relaxed) {
                link.ping_all((0..LIVING).map(|number| Pod::new(number).keepalive()))?;
                pause(TTL / 5);
            }
            Ok(())
        });
        let late = deaths(&bell, &server);
        over.store(true, Ordering::Relaxed);
        living.join().map_err(|_| anyhow::anyhow!("the living died"))??;
        late
    })?;
    let middle = median(&mut late);
    report.add(
        Figure::new("dead pod -> out of the snapshot, after its TTL", percentile(&mut late, 1.0), "ms")
            .goal(Goal::AtMost(100.0))
            .note(format!(
                "slowest of {DYING}, median {middle:.1}; until the callback that sees it has started"
            )),
    );
    Ok(())
}

fn deaths(bell: &Bell, server: &crate::running::Running) -> anyhow::Result<Vec<f64>> {
    server.wait_for("ensemble_pods", f64::from(LIVING), Duration::from_secs(10))?;
    let mut link = Link::zerorpc(server.port)?;
    let mut late = Vec::new();
    for number in 0..DYING {
        link.ping(&Pod::new(LIVING + number).keepalive())?;
        let last_word = Instant::now();
        bell.rest(TTL / 2);
        let (rang, _) = bell.wait()?;
        late.push(millis(rang - last_word) - millis(TTL));
    }
    Ok(late)
}
