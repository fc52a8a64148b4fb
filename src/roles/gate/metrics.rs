//! The gate's metrics. `breaker_gauge`, `item_gauge` and `breaker_count` keep the original's names; `breaker_count` only
//! rises, but is registered as a gauge, because a counter would get the suffix `_total`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::snapshot::{GateSnapshot, PodCounts};
use crate::{
    decide::gate::{Plan, action::Verb, ledger::ActionOutcome},
    metrics::{LabelledCounter, registered},
};

/// Labels with their values, in the order of the names.
type SeriesLabels<const N: usize> = [(&'static str, String); N];

/// The gate's metric families.
#[derive(Clone, Debug)]
pub struct GateMetrics {
    pods: Family<SeriesLabels<3>, Gauge>,
    items: Family<SeriesLabels<1>, Gauge>,
    breaker_count: Family<SeriesLabels<3>, Gauge>,
    actions: Family<SeriesLabels<4>, Counter>,
    /// The series of `actions`: a family does not list its own.
    action_series: Arc<Mutex<BTreeSet<SeriesLabels<4>>>>,
    floor: Family<SeriesLabels<2>, Gauge>,
    serving: Family<SeriesLabels<2>, Gauge>,
    desired: Family<SeriesLabels<2>, Gauge>,
    may_withhold: Family<SeriesLabels<2>, Gauge>,
    panic: Family<SeriesLabels<2>, Gauge>,
    silent_listed: Family<SeriesLabels<2>, Gauge>,
    unknown_verdicts: Family<SeriesLabels<2>, Gauge>,
    plans: Counter,
    failures: LabelledCounter,
}

/// Values of the label `type` of `breaker_gauge`, as in the original.
const KINDS: [&str; 4] = ["managed", "breaked", "paused", "unknown"];

impl GateMetrics {
    /// Registers the metrics in `to`, a registry whose prefix is `kubervisor`.
    pub fn register(to: &mut Registry) -> Self {
        let failures = "Plans that could not be made or carried out, by step";
        let unknown = "Verdicts of the last callback run for pods that nobody knows";
        Self {
            pods: registered(to, "breaker_gauge", "Ready pods: all, and by their traffic"),
            items: registered(to, "item_gauge", "Services that are worked on"),
            breaker_count: registered(to, "breaker_count", "What was done to pods so far"),
            actions: registered(to, "gate_actions", "Actions on pods that landed"),
            action_series: Arc::default(),
            floor: registered(to, "gate_floor", "Pods that must serve"),
            serving: registered(to, "gate_serving", "Pods that serve"),
            desired: registered(to, "gate_desired", "Pods that there should be"),
            may_withhold: registered(to, "gate_may_withhold", "Serving pods that may still be withheld"),
            panic: registered(to, "gate_panic", "1 while most of the fleet looks bad"),
            silent_listed: registered(
                to,
                "gate_silent_listed",
                "Pods that are silent and listed all the same",
            ),
            unknown_verdicts: registered(to, "gate_unknown_verdicts", unknown),
            plans: registered(to, "gate_plans", "Plans made"),
            failures: LabelledCounter::register(to, "gate_failures", failures, "step"),
        }
    }

    /// Sets the number of services of each namespace.
    pub fn items(&self, counts: &BTreeMap<&str, usize>) {
        self.items.clear();
        for (namespace, count) in counts {
            self.items.get_or_create_owned(&[("namespace", (*namespace).to_owned())]).set(signed(*count));
        }
    }

    /// Removes the series of a fleet that is no longer reconciled.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let service = fleet(namespace, name);
        self.action_series
            .lock()
            .retain(|labels| !labels.ends_with(&service) || !self.actions.remove(labels));
        for kind in KINDS {
            self.pods.remove(&of_kind(&service, kind));
        }
        for gauge in self.fleet_gauges() {
            gauge.remove(&service);
        }
    }

    /// The gauges with a series for each fleet.
    fn fleet_gauges(&self) -> [&Family<SeriesLabels<2>, Gauge>; 7] {
        [
            &self.floor,
            &self.serving,
            &self.desired,
            &self.may_withhold,
            &self.panic,
            &self.silent_listed,
            &self.unknown_verdicts,
        ]
    }

    pub(super) fn planned(&self, snapshot: &GateSnapshot) {
        self.plans.inc();
        let service = fleet(&snapshot.namespace, &snapshot.name);
        let PodCounts { managed, breaked, paused, unknown } = snapshot.counts();
        for (kind, count) in KINDS.into_iter().zip([managed, breaked, paused, unknown]) {
            self.pods.get_or_create_owned(&of_kind(&service, kind)).set(signed(count));
        }
        let budget = snapshot.floor.budget;
        let values = [
            i64::from(budget.floor),
            i64::from(budget.serving),
            i64::from(budget.desired),
            i64::from(snapshot.floor.may_withhold),
            i64::from(snapshot.panic),
            signed(snapshot.silent_listed()),
            signed(snapshot.unknown_verdicts),
        ];
        for (gauge, value) in self.fleet_gauges().into_iter().zip(values) {
            gauge.get_or_create_owned(&service).set(value);
        }
    }

    /// Counts the actions that landed. A breaker outside `known` is counted as `other`, which bounds the label's values.
    pub(super) fn acted(
        &self,
        (namespace, name): (&str, &str),
        known: &BTreeSet<&str>,
        plan: &Plan,
        outcomes: &[ActionOutcome],
    ) {
        for (action, _) in
            plan.actions.iter().zip(outcomes).filter(|(_, outcome)| **outcome == ActionOutcome::Landed)
        {
            // The original's word, and ours.
            let (kind, verb) = match action.verb {
                Verb::Withhold => ("break", "withhold"),
                Verb::Admit => ("activate", "admit"),
                Verb::Pause => ("pause", "pause"),
                Verb::Kill => ("kill", "kill"),
                Verb::Claim | Verb::Cancel | Verb::Release | Verb::Forget => continue,
            };
            let breaker = known.get(action.breaker.as_str()).copied().unwrap_or("other").to_owned();
            let breaker = ("breaker", breaker);
            let [name, namespace] = fleet(namespace, name);
            let original = [breaker.clone(), namespace.clone(), ("type", kind.to_owned())];
            self.breaker_count.get_or_create_owned(&original).inc();
            let labels = [("action", verb.to_owned()), breaker, name, namespace];
            self.actions.get_or_create_owned(&labels).inc();
            self.action_series.lock().insert(labels);
        }
    }

    pub(super) fn failed(&self, step: &'static str) {
        self.failures.of(step).inc();
    }
}

fn fleet(namespace: &str, name: &str) -> SeriesLabels<2> {
    [("name", name.to_owned()), ("namespace", namespace.to_owned())]
}

fn of_kind([name, namespace]: &SeriesLabels<2>, kind: &str) -> SeriesLabels<3> {
    [name.clone(), namespace.clone(), ("type", kind.to_owned())]
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
