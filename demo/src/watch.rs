//! Polls what a person can see: the endpoints file, the payload files, the admin pages. Promises are measured by it, and
//! the timeline is drawn from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::SocketAddrV4,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    app::Payload,
    client,
    listing::Listing,
    load::RequestLog,
    stage::{APPS, BROKEN, Places, name},
    story::{AppState, Kind, Sample, Story},
};
use kubervisor::decide::time::Timestamp;

const FILES: Duration = Duration::from_millis(20);
const PAGES: Duration = Duration::from_millis(100);
const SAMPLES: Duration = Duration::from_millis(250);
const DISK: Duration = Duration::from_millis(500);
/// An error rate above this is drawn as bad.
const BAD: f64 = 0.1;

/// The present state, and since when.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The endpoints file.
    pub(super) listed: BTreeSet<SocketAddrV4>,
    /// Each change of it.
    pub(super) changes: Vec<(Instant, BTreeSet<SocketAddrV4>)>,
    /// Each app's payload.
    pub(super) payloads: Vec<Option<Payload>>,
    /// Since when each app has reported an error rate beyond any bound.
    pub(super) broken_since: Vec<Option<Instant>>,
    /// Apps whose process the demo has killed.
    pub(super) dead: BTreeSet<usize>,
    /// The gate's page, while it answers.
    pub(super) gate: Option<Gate>,
    /// The last floor that was seen.
    pub(super) floor: usize,
    /// Alarms that are up.
    pub(super) alarms: Vec<Alarm>,
    /// The ensemble's page, while it answers: by id.
    pub(super) ensemble: BTreeMap<String, Member>,
    /// Time of each pod's last keepalive at the master.
    pub(super) last_keepalive: BTreeMap<String, Instant>,
    /// Largest delay of our own timer, which shows how busy the machine is.
    pub(super) timer_delay: Duration,
    /// Longest time until written bytes were on the disk.
    pub(super) disk_delay: Duration,
}

/// `/services`.
#[derive(Clone, Debug, Deserialize)]
struct Services {
    services: Vec<Gate>,
    alarms: Alarms,
}

#[derive(Clone, Debug, Deserialize)]
struct Alarms {
    up: Vec<Alarm>,
}

/// An alarm that is up.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Alarm {
    pub(super) at: Timestamp,
    pub(super) reason: String,
    pub(super) message: String,
}

/// One service.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Gate {
    pub(super) part: String,
    pub(super) panic: bool,
    /// Why nothing may be withheld at the moment.
    pub(super) hold: Option<String>,
    pub(super) floor: Floor,
    pub(super) pods: Vec<Pod>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Floor {
    pub(super) floor: usize,
    pub(super) desired: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) id: String,
    pub(super) traffic: String,
    history: Vec<HistoryEntry>,
}

#[derive(Clone, Debug, Deserialize)]
struct HistoryEntry {
    at: Timestamp,
    what: String,
    #[serde(default)]
    breaker: String,
    #[serde(default)]
    reason: String,
}

/// `/ensemble`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ensemble {
    /// `None` from a master that does not lead.
    pub(super) pods: Option<Vec<Member>>,
}

/// One pod of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) status: String,
    pub(super) age_seconds: f64,
}

/// The watcher; clones share its observations.
#[derive(Clone)]
pub(super) struct Watch {
    observed: Arc<Mutex<Observed>>,
}

impl Watch {
    /// Polls until the tasks are aborted.
    pub(super) fn start(
        places: &Places,
        story: &Story,
        log: &RequestLog,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let watch = Self { observed: Arc::new(Mutex::new(Observed::nothing())) };
        // Without a name, so that nothing of it can be left behind.
        let probe = tempfile::tempfile_in(&places.directory).context("cannot make a file for the demo")?;
        tasks.spawn(watch.clone().measure_disk(probe));
        tasks.spawn(watch.clone().follow_files(places.clone()));
        tasks.spawn(watch.clone().follow_pages(
            client(Duration::from_secs(1))?,
            places.clone(),
            story.clone(),
        ));
        tasks.spawn(watch.clone().take_samples(places.apps.clone(), story.clone(), log.clone()));
        Ok(watch)
    }

    /// The present state.
    pub(super) fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow_files(self, places: Places) {
        let mut listing = Listing::new(places.endpoints.clone());
        let mut round = interval(FILES);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = round.tick().await;
            let now = Instant::now();
            let changed = listing.refresh();
            let payloads: Vec<Option<Payload>> = (0..APPS).map(|app| read_payload(&places, app)).collect();
            let mut seen = self.observed();
            seen.timer_delay = seen.timer_delay.max(now.saturating_duration_since(due));
            if changed {
                seen.listed.clone_from(listing.addresses());
                seen.changes.push((now, listing.addresses().clone()));
            }
            for (since, payload) in seen.broken_since.iter_mut().zip(&payloads) {
                let broken = payload.is_some_and(|payload| payload.error_rate > BROKEN);
                *since = if broken { since.or(Some(now)) } else { None };
            }
            seen.payloads = payloads;
        }
    }

    async fn measure_disk(self, probe: File) {
        let probe = Arc::new(probe);
        let mut round = interval(DISK);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            let (began, file) = (Instant::now(), Arc::clone(&probe));
            let written =
                tokio::task::spawn_blocking(move || file.write_at(b"x", 0).and_then(|_| file.sync_all()));
            if let Ok(Ok(())) = written.await {
                let mut seen = self.observed();
                seen.disk_delay = seen.disk_delay.max(began.elapsed());
            }
        }
    }

    async fn follow_pages(self, client: reqwest::Client, places: Places, story: Story) {
        let mut feed = EventFeed::default();
        let mut round = interval(PAGES);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            let services: Option<Services> = page(&client, &places.admin, "services").await;
            let ensemble: Option<Ensemble> = page(&client, &places.admin, "ensemble").await;
            let now = Instant::now();
            let mut seen = self.observed();
            seen.ensemble = members(ensemble);
            let last_keepalive: Vec<(String, Instant)> =
                seen.ensemble.values().map(|m| (m.id.clone(), m.last_keepalive(now))).collect();
            seen.last_keepalive.extend(last_keepalive);
            seen.alarms = services.as_ref().map(|s| s.alarms.up.clone()).unwrap_or_default();
            seen.gate = services.and_then(|services| services.services.into_iter().next());
            if let Some(gate) = seen.gate.clone() {
                feed.publish(&gate, &seen.alarms, &story);
                // The page of a master that has just started is empty.
                if gate.floor.desired > 0 {
                    seen.floor = gate.floor.floor;
                }
            }
        }
    }

    async fn take_samples(self, apps: Vec<SocketAddrV4>, story: Story, log: RequestLog) {
        let mut round = interval(SAMPLES);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A request counts in the span in which it was sent; the newest span still waits for answers.
        let (mut from, mut waiting) = (Instant::now(), None);
        loop {
            round.tick().await;
            let to = Instant::now();
            let sample = self.observed().sample(&apps, story.now());
            if let Some((sample, from, to)) = waiting.replace((sample, from, to)) {
                story.sample(counted(sample, &log, from, to));
            }
            from = to;
        }
    }
}

fn counted(mut sample: Sample, log: &RequestLog, from: Instant, to: Instant) -> Sample {
    let tally = log.between(from, to);
    sample.requests = tally.requests;
    sample.failures = tally.failures as f64 / (to - from).as_secs_f64().max(0.001);
    sample
}

impl Observed {
    fn nothing() -> Self {
        Self {
            listed: BTreeSet::new(),
            changes: Vec::new(),
            payloads: vec![None; APPS],
            broken_since: vec![None; APPS],
            dead: BTreeSet::new(),
            gate: None,
            floor: 0,
            alarms: Vec::new(),
            ensemble: BTreeMap::new(),
            last_keepalive: BTreeMap::new(),
            timer_delay: Duration::ZERO,
            disk_delay: Duration::ZERO,
        }
    }

    /// An act counts its own delays.
    pub(super) fn forget_delays(&mut self) {
        (self.timer_delay, self.disk_delay) = (Duration::ZERO, Duration::ZERO);
    }

    /// The first change since `from` from which on the file has been as `wanted`.
    pub(super) fn settled(
        &self,
        from: Instant,
        wanted: impl Fn(&BTreeSet<SocketAddrV4>) -> bool,
    ) -> Option<Instant> {
        if !wanted(&self.listed) {
            return None;
        }
        let so = self.changes.iter().rev().take_while(|(_, listed)| wanted(listed)).last();
        Some(so.map_or(from, |(at, _)| *at).max(from))
    }

    /// The fewest addresses that were listed at any time since `from`.
    pub(super) fn fewest_since(&self, from: Instant) -> usize {
        let during = self.changes.iter().filter(|(at, _)| *at >= from).map(|(_, listed)| listed.len());
        let before = self.changes.iter().rev().find(|(at, _)| *at < from).map(|(_, listed)| listed.len());
        during.chain(before).min().unwrap_or(0)
    }

    fn sample(&self, apps: &[SocketAddrV4], at: f64) -> Sample {
        let look = |(app, address): (usize, &SocketAddrV4)| {
            let payload = self.payloads.get(app).copied().flatten();
            let bad = payload.is_some_and(|payload| payload.error_rate > BAD);
            match (self.dead.contains(&app), self.listed.contains(address), bad) {
                (true, ..) => AppState::Dead,
                (_, true, false) => AppState::Serving,
                (_, true, true) => AppState::Bad,
                (_, false, true) => AppState::Withheld,
                (_, false, false) => AppState::Waiting,
            }
        };
        Sample {
            at,
            requests: 0,
            failures: 0.0,
            listed: self.listed.len(),
            floor: self.floor,
            panic: self.gate.as_ref().is_some_and(|gate| gate.panic),
            master: self.gate.is_some(),
            apps: apps.iter().enumerate().map(look).collect(),
        }
    }
}

impl Member {
    fn last_keepalive(&self, now: Instant) -> Instant {
        let age = Duration::try_from_secs_f64(self.age_seconds).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    }
}

/// Publishes each event of the gate's page once.
#[derive(Default)]
struct EventFeed {
    entries: BTreeSet<(Timestamp, String, String)>,
    alarms: BTreeSet<String>,
}

impl EventFeed {
    fn publish(&mut self, gate: &Gate, alarms: &[Alarm], story: &Story) {
        for (pod, entry) in gate.pods.iter().flat_map(|pod| pod.history.iter().map(move |h| (pod, h))) {
            let kind = match entry.what.as_str() {
                "withheld" => Kind::Out,
                "admitted" => Kind::Back,
                "fell silent" | "was heard again" | "left the fleet" => Kind::Note,
                _ => continue,
            };
            if self.entries.insert((entry.at, pod.id.clone(), entry.what.clone())) {
                story.note_at(story.at(entry.at), kind, entry.describe(&pod.id));
            }
        }
        for alarm in alarms.iter().filter(|alarm| !self.alarms.contains(&alarm.reason)) {
            story.note_at(
                story.at(alarm.at),
                Kind::Alarm,
                format!("alarm {}: {}", alarm.reason, alarm.message),
            );
        }
        let up: BTreeSet<String> = alarms.iter().map(|alarm| alarm.reason.clone()).collect();
        for over in self.alarms.difference(&up) {
            story.note(Kind::Alarm, format!("alarm {over} is over"));
        }
        self.alarms = up;
    }
}

impl HistoryEntry {
    fn describe(&self, pod: &str) -> String {
        match (self.reason.is_empty(), self.breaker.is_empty()) {
            (true, _) => format!("{pod} {}", self.what),
            (false, true) => format!("{pod} {}: {}", self.what, self.reason),
            (false, false) => format!("{pod} {} by {}: {}", self.what, self.breaker, self.reason),
        }
    }
}

fn members(ensemble: Option<Ensemble>) -> BTreeMap<String, Member> {
    let pods = ensemble.and_then(|ensemble| ensemble.pods).unwrap_or_default();
    pods.into_iter().map(|member| (member.id.clone(), member)).collect()
}

fn read_payload(places: &Places, app: usize) -> Option<Payload> {
    let bytes = std::fs::read(places.directory.join(format!("{}.json", name(app)))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// An admin page; `None` when it does not answer.
pub(super) async fn page<T: serde::de::DeserializeOwned>(
    client: &reqwest::Client,
    admin: &str,
    page: &str,
) -> Option<T> {
    let answer = client.get(format!("{admin}/{page}")).send().await.ok()?;
    let read = answer.error_for_status().ok()?.json().await;
    read.inspect_err(|error| tracing::warn!("cannot read the page {page}: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn settled_is_when_the_file_last_became_so() {
        let origin = Instant::now();
        let at = |seconds| origin + Duration::from_secs(seconds);
        let few = BTreeSet::new();
        let many: BTreeSet<SocketAddrV4> = ["127.0.0.1:1".parse().unwrap()].into();
        let mut seen = Observed::nothing();
        seen.changes = vec![(at(1), many.clone()), (at(2), few.clone()), (at(4), many.clone())];
        seen.listed = many;
        assert_eq!(seen.settled(at(0), |listed| !listed.is_empty()), Some(at(4)));
        assert_eq!(seen.settled(at(5), |listed| !listed.is_empty()), Some(at(5)));
        assert_eq!(seen.settled(at(0), BTreeSet::is_empty), None);
        assert_eq!(seen.fewest_since(at(3)), 0);
        assert_eq!(seen.fewest_since(at(5)), 1);
    }
}
