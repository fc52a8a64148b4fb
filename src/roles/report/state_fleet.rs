//! The fleet from the series of kube-state-metrics, in the form that its documentation has and with its default flags.
//!
//! `kube_pod_created` and `kube_pod_owner` say which pods there were and whose they are, `kube_pod_status_ready` when they
//! were Ready, and the replicas of their owners how many there should be. A Service's selector needs `kube_pod_labels` with
//! these labels, which the default flags leave out; otherwise the fleet is made of all pods of the owners of those pods
//! that the breakers' queries name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    history_query::{HistoryError, HistoryFetcher, HistoryQuery},
    time_range::TimeRange,
};
use crate::decide::{
    detect::{MetricSource, Query},
    fleet::Uid,
    replay::{
        answers::{RangeAnswer, RangeSeries},
        history::{FleetChange, FleetEvent, HistoricPod},
    },
    time::Timestamp,
};

/// How finely the fleet's changes are known: kube-state-metrics is hardly scraped more often.
const STEP: Duration = Duration::from_secs(60);
/// What does not change with time is asked for over windows of this length.
const SURVEY: Duration = Duration::from_secs(600);

/// Which pods are of the fleet.
#[derive(Clone, Debug)]
pub(super) enum FleetSelection {
    /// Those with these labels.
    Labels(BTreeMap<String, String>),
    /// Those that share an owner with one of these names.
    Kin(BTreeSet<String>),
}

/// The fleet over the whole range.
#[derive(Debug, Default)]
pub(super) struct StateFleet {
    /// In order of time.
    pub(super) events: Vec<FleetEvent>,
    /// Every pod's name.
    pub(super) names: BTreeSet<String>,
    /// What is not known.
    pub(super) notes: Vec<String>,
}

/// The owner of pods: kind and name.
type Owner = (String, String);

/// Asks one server about one namespace.
pub(super) struct StateReader<'a> {
    pub(super) fetcher: &'a HistoryFetcher,
    pub(super) source: &'a Arc<MetricSource>,
    pub(super) namespace: &'a str,
    pub(super) range: TimeRange,
    pub(super) by_node: bool,
}

impl StateReader<'_> {
    /// The fleet; `None` without series of kube-state-metrics.
    pub(super) async fn read(&self, selection: &FleetSelection) -> Result<Option<StateFleet>, HistoryError> {
        let created = self.survey("kube_pod_created").await?;
        if created.series.is_empty() {
            return Ok(None);
        }
        let owners =
            Owners::new(&self.survey("kube_pod_owner").await?, &self.survey("kube_replicaset_owner").await?);
        let mut fleet = StateFleet::default();
        let members = match selection {
            FleetSelection::Labels(labels) => {
                let (members, known) = labelled(&self.survey("kube_pod_labels").await?, labels);
                if !known {
                    return Ok(None);
                }
                members
            }
            FleetSelection::Kin(names) => owners.kin(&created, names),
        };
        let nodes = if self.by_node { self.nodes().await? } else { HashMap::new() };
        let mut pods = BTreeMap::new();
        for series in &created.series {
            let Some((uid, name)) = identity(series).filter(|(uid, _)| members.contains(uid)) else {
                continue;
            };
            let created =
                series.values.iter().rev().find(|value| value.is_finite()).map(|seconds| unix(*seconds));
            let owner = owners.of.get(&uid);
            let pod = HistoricPod {
                name: name.clone(),
                created,
                // As in a cluster: these names may come again.
                reusable_name: owner.is_none_or(|(kind, _)| kind == "StatefulSet"),
                has_controller: owner.is_some(),
                node: nodes.get(&uid).cloned(),
                ready: false,
                uid: uid.clone(),
            };
            fleet.names.insert(name);
            pods.insert(uid, pod);
        }
        let ready = format!("kube_pod_status_ready{{namespace={:?},condition=\"true\"}}", self.namespace);
        presence(&self.fetch(ready, STEP).await?, &pods, &mut fleet.events);
        let top: BTreeSet<Owner> = pods.keys().filter_map(|uid| owners.top(uid)).collect();
        self.desired(&top, &mut fleet).await?;
        fleet.events.sort_by_key(|event| event.at);
        Ok(Some(fleet))
    }

    /// The fleet by a query that gives 1 for a Ready pod and 0 for another one.
    pub(super) async fn by_query(&self, promql: &str) -> Result<StateFleet, HistoryError> {
        let answer = self.fetch(promql.to_owned(), STEP).await?;
        let mut fleet = StateFleet::default();
        let pods = answer.series.iter().filter_map(|series| {
            let (uid, name) = identity(series)?;
            let (created, node) = (None, None);
            Some((
                uid.clone(),
                HistoricPod {
                    uid,
                    name,
                    created,
                    reusable_name: false,
                    has_controller: true,
                    node,
                    ready: false,
                },
            ))
        });
        let pods: BTreeMap<Uid, HistoricPod> = pods.collect();
        fleet.names = pods.values().map(|pod| pod.name.clone()).collect();
        presence(&answer, &pods, &mut fleet.events);
        Ok(fleet)
    }

    async fn nodes(&self) -> Result<HashMap<Uid, Arc<str>>, HistoryError> {
        let info = self.survey("kube_pod_info").await?;
        let node = |series: &RangeSeries| Some((identity(series)?.0, label(series, "node")?.into()));
        Ok(info.series.iter().filter_map(node).collect())
    }

    /// The wanted pods: the replicas of all owners.
    async fn desired(&self, owners: &BTreeSet<Owner>, fleet: &mut StateFleet) -> Result<(), HistoryError> {
        let mut by_owner: BTreeMap<(Timestamp, Owner), u32> = BTreeMap::new();
        for (kind, metric, label_name) in [
            ("Deployment", "kube_deployment_spec_replicas", "deployment"),
            ("StatefulSet", "kube_statefulset_replicas", "statefulset"),
            ("DaemonSet", "kube_daemonset_status_desired_number_scheduled", "daemonset"),
            ("ReplicaSet", "kube_replicaset_spec_replicas", "replicaset"),
        ] {
            if !owners.iter().any(|(of, _)| of == kind) {
                continue;
            }
            let answer = self.fetch(format!("{metric}{{namespace={:?}}}", self.namespace), STEP).await?;
            let ours = |series: &RangeSeries| {
                let owner = (kind.to_owned(), label(series, label_name)?.to_owned());
                owners.contains(&owner).then_some(owner)
            };
            for (series, owner) in answer.series.iter().filter_map(|series| Some((series, ours(series)?))) {
                for index in 0..answer.steps {
                    let Some(replicas) = series.at(index).filter(|value| (0.0..1e6).contains(value)) else {
                        continue;
                    };
                    #[allow(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "checked above"
                    )]
                    let replicas = replicas as u32;
                    // Two kube-state-metrics tell the same owner's twice.
                    let known = by_owner.entry((answer.time(index), owner.clone())).or_default();
                    *known = replicas.max(*known);
                }
            }
        }
        let mut steps: BTreeMap<Timestamp, u32> = BTreeMap::new();
        for ((at, _), replicas) in by_owner {
            *steps.entry(at).or_default() += replicas;
        }
        if steps.is_empty() {
            fleet
                .notes
                .push("No replicas of owners are known: the existing pods count as wanted.".to_owned());
        }
        let mut last = None;
        for (at, replicas) in steps {
            if last.replace(replicas) != Some(replicas) {
                fleet.events.push(FleetEvent { at, change: FleetChange::Desired(Some(replicas)) });
            }
        }
        Ok(())
    }

    /// A metric whose values do not change, over windows that leave nothing out.
    async fn survey(&self, metric: &str) -> Result<RangeAnswer, HistoryError> {
        let window = SURVEY.as_secs();
        self.fetch(format!("max_over_time({metric}{{namespace={:?}}}[{window}s])", self.namespace), SURVEY)
            .await
    }

    async fn fetch(&self, promql: String, step: Duration) -> Result<RangeAnswer, HistoryError> {
        let query = Query {
            source: Arc::clone(self.source),
            promql: String::new(),
            pod_name_key: "pod".to_owned(),
            namespace_key: "namespace".to_owned(),
            min_pod_age: Duration::ZERO,
            max_sample_age: Duration::from_secs(300),
            timeout: Duration::from_secs(60),
        };
        let query = HistoryQuery { query, promql, key: None, step };
        // One step more, whose window reaches back to the end.
        let range = TimeRange { to: self.range.to + step, ..self.range };
        self.fetcher.fetch(&query, self.range.from, range).await
    }
}

/// Who owns what.
struct Owners {
    /// The controlling owner of each pod.
    of: HashMap<Uid, Owner>,
    of_replica_sets: HashMap<String, Owner>,
}

impl Owners {
    fn new(pods: &RangeAnswer, replica_sets: &RangeAnswer) -> Self {
        let owner = |series: &RangeSeries| {
            let (kind, name) = (label(series, "owner_kind")?, label(series, "owner_name")?);
            // "<none>" is what kube-state-metrics says of a pod without an owner.
            (!kind.is_empty() && kind != "<none>").then(|| (kind.to_owned(), name.to_owned()))
        };
        let controls = |series: &&RangeSeries| label(series, "owner_is_controller") != Some("false");
        let of = pods
            .series
            .iter()
            .filter(controls)
            .filter_map(|series| Some((identity(series)?.0, owner(series)?)));
        let sets = replica_sets.series.iter().filter(controls);
        let sets = sets.filter_map(|series| Some((label(series, "replicaset")?.to_owned(), owner(series)?)));
        Self { of: of.collect(), of_replica_sets: sets.collect() }
    }

    /// The pod's owner, or that of its `ReplicaSet`.
    fn top(&self, pod: &Uid) -> Option<Owner> {
        let owner = self.of.get(pod)?;
        let above = (owner.0 == "ReplicaSet").then(|| self.of_replica_sets.get(&owner.1)).flatten();
        Some(above.unwrap_or(owner).clone())
    }

    /// All pods of the owners of the pods with these names; those without an owner themselves.
    fn kin(&self, created: &RangeAnswer, names: &BTreeSet<String>) -> BTreeSet<Uid> {
        let all: Vec<(Uid, String)> = created.series.iter().filter_map(identity).collect();
        let named = all.iter().filter(|(_, name)| names.contains(name));
        let owners: BTreeSet<Owner> = named.clone().filter_map(|(uid, _)| self.top(uid)).collect();
        let kin = all.iter().filter(|(uid, _)| self.top(uid).is_some_and(|owner| owners.contains(&owner)));
        kin.chain(named).map(|(uid, _)| uid.clone()).collect()
    }
}

/// The pods with these labels, and whether the series have such labels at all.
fn labelled(answer: &RangeAnswer, labels: &BTreeMap<String, String>) -> (BTreeSet<Uid>, bool) {
    let keys: Vec<(String, &String)> = labels.iter().map(|(key, value)| (label_name(key), value)).collect();
    let known = keys.iter().all(|(key, _)| answer.series.iter().any(|series| label(series, key).is_some()));
    let matches =
        |series: &&RangeSeries| keys.iter().all(|(key, value)| label(series, key) == Some(value.as_str()));
    (answer.series.iter().filter(matches).filter_map(identity).map(|(uid, _)| uid).collect(), known)
}

/// The label of `kube_pod_labels` for a label of the pod.
fn label_name(key: &str) -> String {
    let plain = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' });
    format!("label_{}", plain.collect::<String>())
}

fn label<'s>(series: &'s RangeSeries, name: &str) -> Option<&'s str> {
    series.element.labels.get(name).map(String::as_str)
}

/// UID and name of a series' pod.
fn identity(series: &RangeSeries) -> Option<(Uid, String)> {
    let name = series.element.pod.clone().filter(|name| !name.is_empty())?;
    let uid = label(series, "uid").unwrap_or(&name).into();
    Some((uid, name))
}

fn unix(seconds: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation, reason = "a cast saturates")]
    Timestamp::from_unix_millis((seconds * 1000.0) as i64)
}

/// When each pod was there and Ready. A step at which no pod has a sample is a hole of the server, and changes nothing.
fn presence(answer: &RangeAnswer, pods: &BTreeMap<Uid, HistoricPod>, events: &mut Vec<FleetEvent>) {
    let ours: Vec<(&RangeSeries, &HistoricPod)> =
        answer.series.iter().filter_map(|series| Some((series, pods.get(&identity(series)?.0)?))).collect();
    let mut states: BTreeMap<&Uid, bool> = BTreeMap::new();
    for index in 0..answer.steps {
        let at = answer.time(index);
        // Two series of one pod in a step: Ready if one of them says so.
        let mut now: BTreeMap<&Uid, (bool, &HistoricPod)> = BTreeMap::new();
        for (series, pod) in &ours {
            if let Some(value) = series.at(index) {
                let known = now.entry(&pod.uid).or_insert((false, pod));
                known.0 |= value > 0.0;
            }
        }
        if now.is_empty() {
            continue;
        }
        let gone: Vec<&Uid> = states.keys().filter(|uid| !now.contains_key(*uid)).copied().collect();
        for uid in gone {
            states.remove(uid);
            events.push(FleetEvent { at, change: FleetChange::Leaves(uid.clone()) });
        }
        for (uid, (ready, pod)) in now {
            match states.insert(uid, ready) {
                None => {
                    let change = FleetChange::Appears(HistoricPod { ready, ..pod.clone() });
                    events.push(FleetEvent { at, change });
                }
                Some(before) if before != ready => {
                    events.push(FleetEvent { at, change: FleetChange::Ready(uid.clone(), ready) });
                }
                Some(_) => {}
            }
        }
    }
}
