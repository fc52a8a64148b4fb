//! One task for all open views: it records the time lines, and counts the changes that make a page out of date.
//!
//! A look every [`INTERVAL`] compares the fleets with the last ones. Most are the same object in memory, which costs
//! nothing, so that open views of a quiet fleet cost nothing either: they wait for a number to change.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::timeline::{FleetTimeline, LanePhase, is_withheld};
use crate::{admin::Views, roles::gate::snapshot::GateSnapshot};

/// Time between two looks: a page is at most this much older than what it shows.
const INTERVAL: Duration = Duration::from_secs(1);

/// Namespace and name of a fleet.
pub(super) type FleetKey = (String, String);

/// Numbers that differ once a page is out of date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revisions {
    overview: u64,
    fleets: BTreeMap<FleetKey, u64>,
}

/// Records time lines and revisions.
pub(super) struct Watcher {
    seen: Mutex<BTreeMap<FleetKey, WatchedFleet>>,
    revisions: watch::Sender<Revisions>,
}

struct WatchedFleet {
    snapshot: Arc<GateSnapshot>,
    timeline: FleetTimeline,
    /// What the overview shows of it.
    summary: u64,
    /// What its own page shows.
    detail: u64,
}

impl Revisions {
    /// The overview's, or that of one fleet's page; 0 for a fleet that is not there.
    pub(super) fn of(&self, fleet: Option<&FleetKey>) -> u64 {
        fleet.map_or(self.overview, |fleet| self.fleets.get(fleet).copied().unwrap_or(0))
    }
}

impl Watcher {
    pub(super) fn new() -> Self {
        Self { seen: Mutex::default(), revisions: watch::Sender::new(Revisions::default()) }
    }

    /// Looks at the fleets until `stop`.
    pub(super) async fn run(&self, views: &dyn Views, stop: &CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => self.look(views),
            }
        }
    }

    /// The revisions as they change.
    pub(super) fn revisions(&self) -> watch::Receiver<Revisions> {
        self.revisions.subscribe()
    }

    /// The time line of a fleet, so far.
    pub(super) fn timeline(&self, namespace: &str, name: &str) -> FleetTimeline {
        let key = (namespace.to_owned(), name.to_owned());
        self.seen.lock().get(&key).map(|seen| seen.timeline.clone()).unwrap_or_default()
    }

    /// One look at all fleets and alarms.
    pub(super) fn look(&self, views: &dyn Views) {
        let fleets = views.fleets();
        let mut seen = self.seen.lock();
        let mut kept = BTreeMap::new();
        for snapshot in fleets {
            let key = (snapshot.namespace.clone(), snapshot.name.clone());
            let next = match seen.remove(&key) {
                Some(same) if Arc::ptr_eq(&same.snapshot, &snapshot) => same,
                before => WatchedFleet::after(before, snapshot),
            };
            kept.insert(key, next);
        }
        let mut overview = DefaultHasher::new();
        for (key, one) in &kept {
            (key, one.summary).hash(&mut overview);
        }
        for alarm in views.alarms().up() {
            (alarm.reason.as_str(), &alarm.of, &alarm.message).hash(&mut overview);
        }
        let fleets = kept.iter().map(|(key, one)| (key.clone(), one.detail)).collect();
        let revisions = Revisions { overview: overview.finish(), fleets };
        *seen = kept;
        drop(seen);
        self.revisions.send_if_modified(|shared| {
            let changed = *shared != revisions;
            *shared = revisions;
            changed
        });
    }
}

impl WatchedFleet {
    fn after(before: Option<Self>, snapshot: Arc<GateSnapshot>) -> Self {
        let mut timeline = before.map(|before| before.timeline).unwrap_or_default();
        timeline.observe(&snapshot);
        let (summary, detail) = (summary(&snapshot), detail(&snapshot));
        Self { snapshot, timeline, summary, detail }
    }
}

fn summary(snapshot: &GateSnapshot) -> u64 {
    let mut hash = DefaultHasher::new();
    let budget = snapshot.floor.budget;
    let withheld = snapshot.pods.iter().filter(|pod| is_withheld(pod)).count();
    (snapshot.serving(), budget.floor, budget.desired, withheld, snapshot.panic).hash(&mut hash);
    (snapshot.dry_run, snapshot.part as u8, &snapshot.frozen, &snapshot.hold).hash(&mut hash);
    hash.finish()
}

fn detail(snapshot: &GateSnapshot) -> u64 {
    let mut hash = DefaultHasher::new();
    summary(snapshot).hash(&mut hash);
    snapshot.floor.formula.hash(&mut hash);
    for pod in &snapshot.pods {
        (&pod.id, LanePhase::of(pod), pod.retry_count, &pod.summary, pod.history.len()).hash(&mut hash);
    }
    for reading in &snapshot.readings {
        let measured = &reading.measurements;
        for bound in [measured.low, measured.high, measured.median].into_iter().flatten() {
            bound.to_bits().hash(&mut hash);
        }
        measured.values.iter().for_each(|one| one.value.to_bits().hash(&mut hash));
    }
    hash.finish()
}
