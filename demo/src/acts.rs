//! The acts: what is done to the fleet, the promise about it, and the measured figures.
//!
//! Each promise waits for its condition, with a cap; a broken promise is reported with the last observation.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddrV4,
    pin::Pin,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

use super::{
    app::Fault,
    load::RequestLog,
    stage::{APPS, BATCH, EVALUATION, Places, Stage, TTL, name},
    story::{Kind, Story, Verdict},
    watch::{Observed, Watch},
};

/// Time between two checks of a condition.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time without failures after which the client counts as recovered.
const QUIET: Duration = Duration::from_secs(2);
/// Added to every bound: delay of an idle machine.
const ALLOWANCE: Duration = Duration::from_millis(500);

/// Below the absolute bound of the policy, but unlike the peers.
const FAILING: Fault = Fault { error_rate: 0.4, latency_ms: 40 };
/// Above the absolute bound of the policy.
const BROKEN: Fault = Fault { error_rate: 0.9, latency_ms: 40 };
const HEALTHY: Fault = Fault { error_rate: 0.0, latency_ms: 0 };

const FAILING_APPS: [usize; 3] = [1, 5, 8];
const VICTIM: usize = 4;
const WITHHELD: usize = 10;

pub(super) struct Play {
    pub(super) stage: Stage,
    pub(super) places: Places,
    pub(super) watch: Watch,
    pub(super) log: RequestLog,
    pub(super) story: Story,
    /// Longest wait for a promise.
    pub(super) cap: Duration,
}

type Playing<'a> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send + 'a>>;

/// An act.
struct Act {
    title: &'static str,
    promise: &'static str,
    play: for<'a> fn(&'a mut Play) -> Playing<'a>,
}

const ACTS: [Act; 7] = [
    Act {
        title: "healthy",
        promise: "all 12 apps serve, and nothing fails",
        play: |play| Box::pin(play.healthy()),
    },
    Act {
        title: "three apps go bad",
        promise: "they are withheld, and the client's failures return to 0",
        play: |play| Box::pin(play.three_go_bad()),
    },
    Act {
        title: "they recover",
        promise: "they are admitted again, in batches",
        play: |play| Box::pin(play.they_recover()),
    },
    Act {
        title: "an app is killed together with its agent",
        promise: "it is out at its TTL, and comes back when it is started again",
        play: |play| Box::pin(play.one_is_killed()),
    },
    Act {
        title: "the master is killed and started again",
        promise: "nobody loses traffic, and nothing is forgotten",
        play: |play| Box::pin(play.master_is_killed()),
    },
    Act {
        title: "all apps go bad",
        promise: "it cannot be the apps: nobody is withheld, and an alarm says why",
        play: |play| Box::pin(play.all_go_bad()),
    },
    Act {
        title: "three hosts share three ensembles, and one is killed",
        promise: "another one leads its ensemble after the lease, and no pod is forgotten",
        play: |play| Box::pin(play.leader_is_killed()),
    },
];

impl Play {
    /// How many acts there are: the last one needs etcd.
    pub(super) fn acts(&self) -> usize {
        ACTS.len() - usize::from(self.stage.masters.is_none())
    }

    /// All acts in order, also after a broken promise.
    pub(super) async fn run(&mut self) {
        for act in ACTS.iter().take(self.acts()) {
            self.story.begin_act(act.title, act.promise);
            self.watch.observed().forget_delays();
            let played = (act.play)(self).await;
            let verdict = match (played, self.stage.unexpected_exit()) {
                (Ok(figures), None) => Verdict { held: true, figures },
                (Ok(_), Some(exit)) => Verdict { held: false, figures: exit },
                (Err(broken), exit) => {
                    let why = exit.map(|exit| format!("\n{exit}")).unwrap_or_default();
                    Verdict { held: false, figures: format!("{}: {broken:#}{why}", act.promise) }
                }
            };
            self.story.end_act(verdict);
        }
    }

    async fn healthy(&mut self) -> anyhow::Result<String> {
        let began = Instant::now();
        self.stage.start_master();
        (0..APPS).for_each(|app| self.stage.start_app(app));
        self.until("all 12 apps are listed", |seen| (seen.listed.len() == APPS).then_some(())).await?;
        let all = began.elapsed();
        // The gate holds for one TTL after the master's start; the first act begins after that.
        self.until("the gate counts 12 and is open", |seen| {
            let gate = seen.gate.as_ref()?;
            (gate.floor.desired == APPS && gate.hold.is_none()).then_some(())
        })
        .await?;
        let from = Instant::now();
        self.quiet(from + QUIET).await?;
        let tally = self.log.since(from);
        ensure!(tally.failures == 0, "{} of {} requests failed", tally.failures, tally.requests);
        Ok(format!(
            "{APPS} apps listed {} after the start; {} requests, 0 failures; floor {}",
            seconds(all),
            tally.requests,
            self.watch.observed().floor,
        ))
    }

    async fn three_go_bad(&mut self) -> anyhow::Result<String> {
        let from = Instant::now();
        self.fault(&FAILING_APPS, FAILING, "answer 40 % of requests with an error").await?;
        let ill = self.addresses(&FAILING_APPS);
        let out = self
            .until("the 3 bad apps are withheld", |seen| seen.settled(from, |listed| ill.is_disjoint(listed)))
            .await?;
        self.quiet_again().await?;
        let seen = self.watch.observed();
        ensure!(
            seen.listed.len() == APPS - FAILING_APPS.len(),
            "{} apps are listed, where only the 3 bad ones should be out",
            seen.listed.len()
        );
        Ok(format!(
            "3 bad apps withheld after {}; client failures {} -> 0 per second; floor {}, serving {}",
            seconds(out - from),
            self.log.worst_second(from),
            seen.floor,
            seen.listed.len(),
        ))
    }

    async fn they_recover(&mut self) -> anyhow::Result<String> {
        let from = Instant::now();
        self.fault(&FAILING_APPS, HEALTHY, "answer properly again").await?;
        let back =
            self.until("all 12 are listed again", |seen| seen.settled(from, |l| l.len() == APPS)).await?;
        let batches = batches(&self.watch.observed(), from);
        ensure!(batches.iter().all(|&(_, size)| size <= BATCH), "more than {BATCH} at once: {batches:?}");
        ensure!(batches.len() > 1, "all at once, where {BATCH} may come back at a time");
        self.quiet_again().await?;
        let tally = self.log.since(from + ALLOWANCE);
        ensure!(tally.failures == 0, "{} of {} requests failed", tally.failures, tally.requests);
        let sizes: Vec<String> = batches.iter().map(|(_, size)| size.to_string()).collect();
        Ok(format!(
            "3 recovered apps admitted again after {} in batches of {}; client failures 0",
            seconds(back - from),
            sizes.join(" + "),
        ))
    }

    async fn one_is_killed(&mut self) -> anyhow::Result<String> {
        let victim = self.addresses(&[VICTIM]);
        let from = Instant::now();
        self.stage.kill_app(VICTIM).await?;
        self.watch.observed().dead.insert(VICTIM);
        self.story.note(Kind::Fault, format!("{} and its agent: killed (SIGKILL)", name(VICTIM)));
        let out = self.out_at_its_ttl(from, &victim).await;
        // The acts after this one have all apps, whatever has become of the promise.
        let again = Instant::now();
        self.stage.start_app(VICTIM);
        self.watch.observed().dead.remove(&VICTIM);
        self.story.note(Kind::Fault, format!("{} and its agent: started again", name(VICTIM)));
        let back = self.until("it is listed again", |seen| seen.settled(again, |l| l.len() == APPS)).await?;
        let (silent, failures) = out?;
        Ok(format!(
            "killed app out {} after its last keepalive (TTL {} s); client failures {failures} -> 0 per second; \
             started again, listed after {}",
            seconds(silent),
            TTL.as_secs(),
            seconds(back - again),
        ))
    }

    /// How long the killed app was silent when it was out, and the client's failures in the worst second.
    async fn out_at_its_ttl(
        &self,
        from: Instant,
        victim: &BTreeSet<SocketAddrV4>,
    ) -> anyhow::Result<(Duration, usize)> {
        let out = self
            .until("the dead app is out", |seen| seen.settled(from, |listed| victim.is_disjoint(listed)))
            .await?;
        let last_keepalive = self.watch.observed().last_keepalive.get(&name(VICTIM)).copied();
        let silent = out - last_keepalive.context("the master has no keepalive of the dead app")?;
        // The age of the last keepalive is rounded, and the page is read a moment after it was made.
        let earliest = TTL.saturating_sub(ALLOWANCE);
        ensure!(silent >= earliest, "out after {} of silence, before its TTL", seconds(silent));
        let latest = TTL + ALLOWANCE + self.machine_allowance();
        ensure!(
            silent <= latest,
            "out after {} of silence, {} were allowed",
            seconds(silent),
            seconds(latest)
        );
        self.quiet_again().await?;
        Ok((silent, self.log.worst_second(from)))
    }

    async fn master_is_killed(&mut self) -> anyhow::Result<String> {
        let withheld_app = self.addresses(&[WITHHELD]);
        let ill = Instant::now();
        self.fault(&[WITHHELD], FAILING, "answers 40 % of requests with an error").await?;
        self.until("the bad app is withheld", |seen| seen.settled(ill, |l| withheld_app.is_disjoint(l)))
            .await?;
        self.quiet_again().await?;
        let before = self.master_state().await?;
        let from = Instant::now();
        let pid = self.stage.kill_master().await?;
        self.story.note(Kind::Fault, format!("the master: killed (SIGKILL, pid {pid})"));
        self.quiet(from + QUIET).await?;
        let again = Instant::now();
        self.stage.start_master();
        self.story.note(Kind::Fault, "the master: started again");
        let has_all = |seen: &Observed| {
            let last_keepalive =
                seen.ensemble.keys().filter(|id| seen.last_keepalive.get(*id).is_some_and(|at| *at > again));
            let leads = seen.gate.as_ref().is_some_and(|gate| gate.part == "leading");
            (leads && last_keepalive.count() == APPS).then(Instant::now)
        };
        let up = self.until("the new master leads, and has heard of all 12", has_all).await?;
        let after = self.master_state_after_run(before.runs).await?;
        before.is_kept_in(&after)?;
        self.quiet(Instant::now() + QUIET).await?;
        let tally = self.log.since(from);
        ensure!(tally.failures == 0, "{} of {} requests failed", tally.failures, tally.requests);
        ensure!(
            !self.watch.observed().changes.iter().any(|(at, _)| *at > from),
            "the endpoints file has changed"
        );
        let fine = Instant::now();
        self.fault(&[WITHHELD], HEALTHY, "answers properly again").await?;
        let back = self
            .until("the withheld app is admitted", |seen| seen.settled(fine, |l| l.len() == APPS))
            .await?;
        Ok(format!(
            "master back {} after its restart, {} requests meanwhile, 0 failures; seq of {} pods, {} withheld and \
             STATE (run {} -> {}) kept; the withheld app admitted {} after it recovered",
            seconds(up - again),
            tally.requests,
            after.seqs.len(),
            after.withheld.len(),
            before.runs,
            after.runs,
            seconds(back - fine),
        ))
    }

    async fn all_go_bad(&mut self) -> anyhow::Result<String> {
        let from = Instant::now();
        let all: Vec<usize> = (0..APPS).collect();
        self.fault(&all, BROKEN, "answer 90 % of requests with an error").await?;
        let last = self
            .until("all 12 apps report it", |seen| {
                let since: Option<Vec<Instant>> = seen.broken_since.iter().copied().collect();
                since?.into_iter().max()
            })
            .await?;
        let (none, why) = self
            .until("nobody is withheld, and an alarm says why", |seen| {
                let alarm = seen.alarms.iter().find(|alarm| alarm.reason == "panic")?;
                let panic = seen.gate.as_ref().is_some_and(|gate| gate.panic);
                let none = seen.settled(from, |listed| listed.len() == APPS)?;
                panic.then(|| (none, alarm.message.clone()))
            })
            .await?;
        let after = none.saturating_duration_since(last);
        let latest = EVALUATION + ALLOWANCE + self.machine_allowance();
        ensure!(
            after <= latest,
            "{} after the last bad payload, {} were allowed",
            seconds(after),
            seconds(latest)
        );
        sleep(QUIET).await;
        let seen = self.watch.observed();
        ensure!(seen.listed.len() == APPS, "only {} are listed a moment later", seen.listed.len());
        let most = APPS - seen.fewest_since(from);
        Ok(format!(
            "all {APPS} apps bad: nobody withheld {} after the last bad payload (one evaluation: {}), at most {most} \
             on the way; alarm: {}",
            seconds(after),
            seconds(EVALUATION),
            why.split(';').next().unwrap_or_default(),
        ))
    }

    /// Waits until `found` returns a value.
    async fn until<T>(&self, what: &str, found: impl Fn(&Observed) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + self.cap;
        loop {
            if let Some(found) = found(&self.watch.observed()) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let seen = self.watch.observed();
                let alarms: Vec<&str> = seen.alarms.iter().map(|alarm| alarm.reason.as_str()).collect();
                bail!(
                    "not so that {what} within {} ({} listed, floor {}, alarms: {alarms:?}); the end of \
                     the master's log:\n{}",
                    seconds(self.cap),
                    seen.listed.len(),
                    seen.floor,
                    self.stage.master_log_tail(),
                );
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until nothing that was sent in the last two seconds has failed.
    async fn quiet_again(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        let deadline = since + self.cap + QUIET;
        loop {
            let from = (Instant::now() - QUIET).max(since);
            let tally = self.log.since(from);
            if from > since && tally.failures == 0 && tally.requests > 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} of {} requests still fail", tally.failures, tally.requests);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until `to`; an error if the client has sent nothing meanwhile.
    async fn quiet(&self, to: Instant) -> anyhow::Result<()> {
        let from = Instant::now();
        tokio::time::sleep_until(to).await;
        ensure!(self.log.since(from).requests > 0, "the client has sent nothing");
        Ok(())
    }

    /// Four times the worst delays of a timer and of the disk on this machine in this act, for which no promise is broken:
    /// a verdict is in the ledger, the file and its directory before it counts.
    pub(super) fn machine_allowance(&self) -> Duration {
        let seen = self.watch.observed();
        (seen.timer_delay + seen.disk_delay) * 4
    }

    async fn fault(&self, apps: &[usize], fault: Fault, what: &str) -> anyhow::Result<()> {
        let names: Vec<String> = apps.iter().map(|&app| name(app)).collect();
        let names = if apps.len() == APPS { "all apps".to_owned() } else { names.join(", ") };
        self.stage.set_faults(apps, fault).await?;
        self.story.note(Kind::Fault, format!("{names}: {what}"));
        Ok(())
    }

    fn addresses(&self, apps: &[usize]) -> BTreeSet<SocketAddrV4> {
        apps.iter().filter_map(|&app| self.places.apps.get(app).copied()).collect()
    }

    /// The new master's state once its callback has run: each start runs it, with the persisted STATE.
    async fn master_state_after_run(&self, run: u64) -> anyhow::Result<MasterState> {
        let deadline = Instant::now() + self.cap;
        loop {
            let master_state = self.master_state().await?;
            if master_state.runs != run || Instant::now() > deadline {
                return Ok(master_state);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The state that a restart must keep.
    async fn master_state(&self) -> anyhow::Result<MasterState> {
        let state = self.stage.state().await.context("cannot read STATE")?;
        let number = |field: &str| state.get(field).and_then(serde_json::Value::as_u64);
        let seen = self.watch.observed();
        let gate = seen.gate.as_ref().context("the gate's page does not answer")?;
        let withheld = gate.pods.iter().filter(|pod| pod.traffic == "no").map(|pod| pod.id.clone());
        let live = seen.ensemble.iter().filter(|(_, member)| member.status == "live");
        Ok(MasterState {
            seqs: live.map(|(id, member)| (id.clone(), member.seq)).collect(),
            withheld: withheld.collect(),
            listed: seen.listed.clone(),
            born: number("born").context("the callback has left no STATE")?,
            runs: number("runs").context("the callback has left no STATE")?,
        })
    }
}

/// State that must survive the death of a master.
#[derive(Clone, Debug)]
struct MasterState {
    seqs: BTreeMap<String, u64>,
    withheld: BTreeSet<String>,
    listed: BTreeSet<SocketAddrV4>,
    born: u64,
    runs: u64,
}

impl MasterState {
    fn is_kept_in(&self, after: &Self) -> anyhow::Result<()> {
        ensure!(self.seqs.len() == APPS, "only {} pods were there before", self.seqs.len());
        ensure!(self.seqs == after.seqs, "seq was {:?} and is {:?}", self.seqs, after.seqs);
        ensure!(!self.withheld.is_empty(), "nobody was withheld before");
        ensure!(self.withheld == after.withheld, "withheld: {:?}, then {:?}", self.withheld, after.withheld);
        ensure!(self.listed == after.listed, "the endpoints file has changed");
        ensure!(self.born == after.born, "STATE began anew");
        ensure!(self.runs < after.runs, "after run {} of the callback came run {}", self.runs, after.runs);
        Ok(())
    }
}

/// Times and sizes of the batches admitted since `from`; admissions within half an evaluation are one batch.
fn batches(seen: &Observed, from: Instant) -> Vec<(Instant, usize)> {
    let mut batches: Vec<(Instant, usize)> = Vec::new();
    let mut size = seen.changes.iter().rev().find(|(at, _)| *at < from).map_or(0, |(_, listed)| listed.len());
    for (at, listed) in seen.changes.iter().filter(|(at, _)| *at >= from) {
        let more = listed.len().saturating_sub(size);
        size = listed.len();
        match batches.last_mut() {
            Some((first, count)) if *at < *first + EVALUATION / 2 => *count += more,
            _ => batches.push((*at, more)),
        }
    }
    batches
}

/// A span, in seconds with one decimal place.
pub(super) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
