//! The leader ends, killed or in order: how long until the next one's callback has started. Real etcd,
//! two masters, lease 3 s, damper 0.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    callback::{Bell, millis},
    cores,
    etcd::Etcd,
    report::{Figure, Goal, Report, median, percentile},
    running::{Recipe, Running},
};

const KILLS: usize = 20;
const STOPS: usize = 10;
const LEASE: &str = "3";

/// Masters in the order in which they will lead.
struct Line {
    recipe: Recipe,
    masters: VecDeque<Running>,
    bell: Bell,
}

impl Line {
    /// Ends the leader by `signal`; the time until the next one's callback, in milliseconds.
    fn succeed(&mut self, signal: Signal) -> anyhow::Result<f64> {
        let Some(mut leader) = self.masters.pop_front() else { anyhow::bail!("nobody leads") };
        self.bell.rest(Duration::from_millis(200));
        let ended = Instant::now();
        leader.signal(signal)?;
        let (rang, _) = self.bell.wait()?;
        leader.wait()?;
        drop(leader);
        self.masters.push_back(join(&self.recipe)?);
        Ok(millis(rang - ended))
    }
}

fn join(recipe: &Recipe) -> anyhow::Result<Running> {
    let master = cores::on_the_first(|| recipe.start())??;
    // It has asked the store who leads when it knows that there is a member besides itself, or that it leads.
    master.wait_for("members", 1.0, Duration::from_secs(20))?;
    Ok(master)
}

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let etcd = runtime.block_on(Etcd::start());
    let directory = tempfile::tempdir()?;
    let bell = Bell::hang(directory.path())?;
    let recipe = Recipe::master("bench")
        .with("KUBERVISOR_STORE", format!("etcd:{}", etcd.endpoint()))
        .with("KONTROL_FOVER", LEASE)
        .with("KONTROL_DAMPER", "0")
        .with("KONTROL_SHELL_CALLBACK", "TRUE")
        .with("KONTROL_CALLBACK", bell.line("x"));
    let leader = join(&recipe)?;
    leader.wait_for("leading", 1.0, Duration::from_secs(20))?;
    bell.wait()?;
    let masters = VecDeque::from([leader, join(&recipe)?]);
    let mut line = Line { recipe, masters, bell };
    let mut stops = (0..STOPS).map(|_| line.succeed(Signal::SIGTERM)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut kills = (0..KILLS).map(|_| line.succeed(Signal::SIGKILL)).collect::<anyhow::Result<Vec<_>>>()?;
    let middle = median(&mut kills);
    report.add(
        Figure::new("leader SIGKILL -> next leader's callback", percentile(&mut kills, 1.0) / 1e3, "s")
            .goal(Goal::AtMost(5.0))
            .beside("lease, s", 3.0)
            .note(format!(
                "slowest of {KILLS}, median {:.2} s; etcd, lease {LEASE} s, damper 0",
                middle / 1e3
            )),
    );
    let middle = median(&mut stops);
    report.add(
        Figure::new(
            "leader stopped in order -> next leader's callback",
            percentile(&mut stops, 1.0) / 1e3,
            "s",
        )
        .goal(Goal::AtMost(1.0))
        .note(format!("slowest of {STOPS}, median {middle:.0} ms")),
    );
    drop(line);
    runtime.block_on(async { drop(etcd) });
    Ok(())
}
