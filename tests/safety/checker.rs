//! The judge: replays every stored revision and says where the promise was broken. It shares no code with the gate.
//!
//! The promise: at each withdrawal of ours the pods that serve afterwards are at least the floor; whatever is below it
//! for another reason is restored in 10 s; nothing is reserved while a resource is paused or a dry run; what must not be
//! withheld any more is given back in 10 s; in the end nothing is stuck or left behind.
//!
//! The numbers are those of the moment: an autoscaler's `minReplicas` raises the floor at once, a scaling to a lower number
//! lowers it at once, and the surplus pods of a rollout serve like all others without raising it.
//!
//! *When* a revision happened is when the live etcd watch of [`history`](super::history) heard of it. Pods carry times
//! only to the second, and an audit log loses the last writes of a killed API server; the watch hears of everything, in
//! order, milliseconds late and never early.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    ops::Range,
    time::Duration,
};

use serde_json::Value;

pub(super) use super::violation::{Report, Violation};
use super::{
    objects::{self, BREAK_AT, FENCE, Kind, NAME, Pod, Resource, STRATEGY},
    spans::{merged, served_time, unexcused},
    stored::{Fleet, Stored},
};

/// What was lost without us so shortly before a withdrawal is not held against us; nor is a floor that rose since.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// What is below the floor is restored within this, and what must not be withheld is given back.
pub(super) const RESTORE: Duration = Duration::from_secs(10);
/// Who the controller is for the API server.
const US: &str = "kubervisor";
/// Who all people are.
const PEOPLE: &str = "admin";

/// One change of one object.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    pub(super) number: i64,
    /// When it was heard of, since the recording began.
    pub(super) at: Duration,
    pub(super) key: String,
    /// `None`: deleted.
    pub(super) object: Option<Value>,
}

/// What the history alone does not tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Circumstances {
    /// Only these are judged.
    pub(super) namespaces: BTreeSet<String>,
    /// Who wrote a revision, where the audit log tells it.
    pub(super) authors: HashMap<i64, String>,
    /// No controller or no API server was there to restore anything.
    pub(super) excused: Vec<Range<Duration>>,
    /// No API server was there at all. Nothing is stored then, and what was sent before may be stored after: no such
    /// time counts for [`GRACE`].
    pub(super) away: Vec<Range<Duration>>,
    /// One of the controllers was frozen: what it sees when it goes on is as old as that.
    pub(super) frozen: Vec<Range<Duration>>,
}

/// What must be remembered of one resource's fleet.
#[derive(Default)]
struct Watched {
    serving: BTreeSet<String>,
    /// Pods that stopped serving, not by our hand.
    lost: HashMap<String, Duration>,
    /// Since when which floor held, the newest last.
    floors: VecDeque<(Duration, u64)>,
    below_since: Option<Duration>,
    dark_since: Option<Duration>,
    /// When each pod was last selected, by the clock of who may lag.
    selected: HashMap<String, Duration>,
}

impl Watched {
    fn floor_is(&mut self, at: Duration, floor: u64) {
        if self.floors.back().is_none_or(|(_, last)| *last != floor) {
            self.floors.push_back((at, floor));
        }
        while self.floors.get(1).is_some_and(|(since, _)| *since + GRACE < at) {
            self.floors.pop_front();
        }
    }

    fn select(&mut self, fleet: &Fleet<'_>, at: Duration) {
        self.selected.retain(|_, last| *last + GRACE >= at);
        self.selected.extend(fleet.pods.iter().map(|pod| (pod.uid.clone(), at)));
    }

    /// The pod was selected a moment before: the Service's selector is read by a watch.
    fn selected_lately(&self, pod: &Pod, at: Duration) -> bool {
        self.selected.get(&pod.uid).is_some_and(|last| *last + GRACE >= at)
    }

    /// The plan's list is up to [`GRACE`] old: a floor that rose since cannot be held against it.
    fn lowest_floor(&self) -> u64 {
        self.floors.iter().map(|(_, floor)| *floor).min().unwrap_or(0)
    }
}

/// Judges a history that was recorded until `end`.
pub(super) fn judge(history: &[Revision], circumstances: &Circumstances, end: Duration) -> Report {
    let lag = merged(circumstances.away.iter().chain(&circumstances.frozen));
    let mut judge = Judge {
        circumstances,
        lag,
        stored: Stored::default(),
        watched: BTreeMap::new(),
        fences: HashMap::new(),
        paused_by_us: HashSet::new(),
        report: Report::default(),
    };
    for revision in history {
        judge.hear(revision);
    }
    judge.close(end);
    judge.report
}

struct Judge<'a> {
    circumstances: &'a Circumstances,
    /// Somebody's knowledge stood still.
    lag: Vec<Range<Duration>>,
    stored: Stored,
    watched: BTreeMap<(String, String), Watched>,
    fences: HashMap<String, HashSet<String>>,
    paused_by_us: HashSet<String>,
    report: Report,
}

impl Judge<'_> {
    fn hear(&mut self, revision: &Revision) {
        let Some((kind, namespace, name)) = objects::identify(&revision.key) else { return };
        if !self.circumstances.namespaces.contains(namespace) {
            return;
        }
        self.report.revisions += 1;
        if kind == Kind::Resource {
            self.resource_changed(namespace, name, revision);
        }
        let change = self.stored.take(&revision.key, revision.object.as_ref());
        if kind == Kind::Resource && revision.object.is_none() {
            self.watched.remove(&(namespace.to_owned(), name.to_owned()));
        }
        let withdrawn =
            change.and_then(|(before, after)| self.pod_changed(revision, before.as_ref(), after?));
        self.weigh(namespace, revision, withdrawn.as_ref());
    }

    /// A write of the status rests on the revision before it, by its resourceVersion.
    fn resource_changed(&mut self, namespace: &str, name: &str, revision: &Revision) {
        let before = self.stored.resources.get(&(namespace.to_owned(), name.to_owned()));
        let after = revision.object.as_ref().map(Resource::read);
        let Some((before, after)) = before.zip(after).filter(|(before, after)| before.uid == after.uid)
        else {
            return;
        };
        let Some(why) = before.off() else { return };
        let new: Vec<_> = after.reserved.difference(&before.reserved).cloned().collect();
        for pod in new {
            let resource = name.to_owned();
            self.fault(Violation::ReservedWhileOff { revision: revision.number, resource, pod, why });
        }
    }

    /// Marks and fences; the pod, if this is a withdrawal by us.
    fn pod_changed(&mut self, revision: &Revision, before: Option<&Pod>, after: Pod) -> Option<Pod> {
        self.fence_is_new(revision, before, &after);
        let before = before.filter(|before| before.uid == after.uid)?;
        if before.traffic() == after.traffic() {
            return None;
        }
        let marked = after.annotation(BREAK_AT).is_some()
            && (before.annotation(BREAK_AT) != after.annotation(BREAK_AT)
                || before.labels.get(STRATEGY) != after.labels.get(STRATEGY));
        let fenced = before.annotation(FENCE) != after.annotation(FENCE);
        // A kubelet's answer may name a revision that it did not make; people's and ours cannot be confused.
        let ours = match self.circumstances.authors.get(&revision.number).map(String::as_str) {
            Some(US) => true,
            Some(PEOPLE) => false,
            _ => marked || fenced,
        };
        if ours && after.traffic() == Some("pause") {
            self.paused_by_us.insert(after.uid.clone());
        } else {
            self.paused_by_us.remove(&after.uid);
        }
        match (before.traffic(), after.traffic()) {
            (Some("no" | "pause"), Some("yes")) if ours => self.report.admissions += 1,
            (Some("yes"), Some("no" | "pause")) if ours => {
                self.report.withdrawals += 1;
                if !marked {
                    self.fault(Violation::Unmarked { revision: revision.number, pod: after.name.clone() });
                }
                return Some(after);
            }
            _ => {}
        }
        None
    }

    fn fence_is_new(&mut self, revision: &Revision, before: Option<&Pod>, after: &Pod) {
        let Some(fence) = after.annotation(FENCE) else { return };
        let same =
            before.is_some_and(|before| before.uid == after.uid && before.annotation(FENCE) == Some(fence));
        if !same && !self.fences.entry(after.uid.clone()).or_default().insert(fence.to_owned()) {
            let (pod, fence) = (after.name.clone(), fence.to_owned());
            self.fault(Violation::RepeatedFence { revision: revision.number, pod, fence });
        }
    }

    /// Counts every fleet of the namespace anew, and holds it against its floor.
    fn weigh(&mut self, namespace: &str, revision: &Revision, withdrawn: Option<&Pod>) {
        let Self { stored, watched, circumstances, lag, paused_by_us, report, .. } = self;
        let mut whose = 0;
        let lagging = served_time(revision.at, lag);
        for ((of, name), resource) in stored.resources.iter().filter(|((of, _), _)| of == namespace) {
            let watched = watched.entry((of.clone(), name.clone())).or_default();
            let fleet = stored.fleet(namespace, resource);
            let ours = withdrawn.filter(|pod| pod.labels.get(NAME) == Some(name));
            let below = match &fleet {
                None => {
                    watched.serving.clear();
                    false
                }
                Some(fleet) => {
                    recount(watched, fleet, served_time(revision.at, &circumstances.away), withdrawn);
                    watched.select(fleet, lagging);
                    // Each resource answers for its own withdrawals: another one may have the same pods.
                    if let Some(pod) = ours.filter(|pod| fleet.has(pod)) {
                        hold_against_floor(watched, name, pod, revision, report);
                    }
                    (watched.serving.len() as u64) < fleet.floor
                        && fleet.pods.iter().any(|pod| withheld(pod, paused_by_us))
                }
            };
            if let Some(pod) = ours {
                whose += u64::from(watched.selected_lately(pod, lagging));
                if !resource.entries.contains(&pod.uid) {
                    let (revision, pod) = (revision.number, pod.name.clone());
                    report.violations.push(Violation::Unreserved { revision, pod });
                }
            }
            let dark = stored.named(namespace, name).any(|pod| {
                withheld(pod, paused_by_us) && stored.to_give_back(namespace, resource, fleet.as_ref(), pod)
            });
            follow(watched, Seen { below, dark }, name, revision.at, circumstances, report);
        }
        if let Some(pod) = withdrawn.filter(|pod| whose == 0 && pod.lives()) {
            self.fault(Violation::ForNobody { revision: revision.number, pod: pod.name.clone() });
        }
    }

    fn close(&mut self, end: Duration) {
        let Self { stored, watched, circumstances, report, .. } = self;
        for ((_, name), watched) in watched {
            follow(watched, Seen::default(), name, end, circumstances, report);
        }
        let mut owned = HashSet::new();
        for ((namespace, name), resource) in &stored.resources {
            if !resource.entries.is_empty() {
                let (resource, entries) = (name.clone(), resource.entries.clone());
                report.violations.push(Violation::LedgerNotEmpty { resource, entries });
            }
            for pod in stored.fleet(namespace, resource).into_iter().flat_map(|fleet| fleet.pods) {
                owned.insert(pod.uid.clone());
                if pod.traffic() != Some("yes") {
                    let traffic = pod.traffic().map(str::to_owned);
                    report.violations.push(Violation::Stuck { pod: pod.name.clone(), traffic });
                }
            }
        }
        for pod in stored.pods.values().filter(|pod| pod.lives()) {
            let mut left = pod.leftovers();
            if !owned.contains(&pod.uid) && pod.labels.contains_key(NAME) {
                left.push(NAME);
            }
            if pod.traffic() == Some("yes") {
                report
                    .violations
                    .extend(left.into_iter().map(|key| Violation::Leaked { pod: pod.name.clone(), key }));
            }
        }
    }

    fn fault(&mut self, violation: Violation) {
        self.report.violations.push(violation);
    }
}

/// Who serves now, and who stopped without us.
fn recount(watched: &mut Watched, fleet: &Fleet<'_>, at: Duration, withdrawn: Option<&Pod>) {
    let serving: BTreeSet<String> =
        fleet.pods.iter().filter(|pod| fleet.serves(pod)).map(|pod| pod.uid.clone()).collect();
    for gone in watched.serving.difference(&serving) {
        watched.lost.insert(gone.clone(), at);
    }
    if let Some(pod) = withdrawn {
        watched.lost.remove(&pod.uid);
    }
    watched.lost.retain(|uid, lost| !serving.contains(uid) && *lost + GRACE >= at);
    watched.serving = serving;
    watched.floor_is(at, fleet.floor);
}

fn hold_against_floor(watched: &Watched, name: &str, pod: &Pod, revision: &Revision, report: &mut Report) {
    let (counted, floor) = ((watched.serving.len() + watched.lost.len()) as u64, watched.lowest_floor());
    match counted.checked_sub(floor) {
        Some(above) => report.narrowest = Some(report.narrowest.map_or(above, |least| least.min(above))),
        None => report.violations.push(Violation::BelowFloor {
            revision: revision.number,
            resource: name.to_owned(),
            pod: pod.name.clone(),
            serving: counted,
            floor,
        }),
    }
}

/// Whether it could serve and only we keep it from that: a person's `no` and `pause` are theirs.
fn withheld(pod: &Pod, paused_by_us: &HashSet<String>) -> bool {
    let ours = match pod.traffic() {
        Some("no") => pod.annotation(BREAK_AT).is_some(),
        Some("pause") => paused_by_us.contains(&pod.uid),
        _ => false,
    };
    ours && pod.could_serve()
}

/// What must not last.
#[derive(Clone, Copy, Default)]
struct Seen {
    below: bool,
    dark: bool,
}

fn follow(
    watched: &mut Watched,
    seen: Seen,
    name: &str,
    at: Duration,
    circumstances: &Circumstances,
    report: &mut Report,
) {
    let resource = || name.to_owned();
    if let Some((since, took)) = ended(&mut watched.below_since, seen.below, at, circumstances) {
        report.longest_below = report.longest_below.max(took);
        if took > RESTORE {
            report.violations.push(Violation::NotRestored { resource: resource(), since, took });
        }
    }
    if let Some((since, took)) = ended(&mut watched.dark_since, seen.dark, at, circumstances) {
        report.longest_dark = report.longest_dark.max(took);
        if took > RESTORE {
            report.violations.push(Violation::NotGivenBack { resource: resource(), since, took });
        }
    }
}

/// When it began and how long somebody could have ended it, once it has ended.
fn ended(
    began: &mut Option<Duration>,
    lasts: bool,
    at: Duration,
    circumstances: &Circumstances,
) -> Option<(Duration, Duration)> {
    if lasts {
        began.get_or_insert(at);
        return None;
    }
    let since = began.take()?;
    Some((since, unexcused(since, at, &circumstances.excused)))
}
