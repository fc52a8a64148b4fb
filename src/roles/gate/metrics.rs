//! The gate's metrics. `breaker_gauge`, `item_gauge` and `breaker_count` keep the original's names; `breaker_count` only
//! rises, but is registered as a gauge, because a counter would get the suffix `_total`.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::snapshot::{GateSnapshot, PodCounts};
use crate::decide::gate::{Plan, action::Verb, ledger::ActionOutcome};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FleetLabels {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PodLabels {
    name: String,
    namespace: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActionLabels {
    breaker: String,
    namespace: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Namespace {
    namespace: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailureLabels {
    step: &'static str,
}

/// The gate's metric families.
#[derive(Clone, Debug, Default)]
pub struct GateMetrics {
    pods: Family<PodLabels, Gauge>,
    items: Family<Namespace, Gauge>,
    actions: Family<ActionLabels, Gauge>,
    floor: Family<FleetLabels, Gauge>,
    serving: Family<FleetLabels, Gauge>,
    desired: Family<FleetLabels, Gauge>,
    may_withhold: Family<FleetLabels, Gauge>,
    panic: Family<FleetLabels, Gauge>,
    silent_listed: Family<FleetLabels, Gauge>,
    unknown_verdicts: Family<FleetLabels, Gauge>,
    plans: Counter,
    failures: Family<FailureLabels, Counter>,
}

/// Values of the label `type` of `breaker_gauge`, as in the original.
const KINDS: [&str; 4] = ["managed", "breaked", "paused", "unknown"];

impl GateMetrics {
    /// Registers the metrics in `registry`, whose prefix is `kubervisor`.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        for (name, help, family) in [
            ("gate_floor", "Pods that must serve", &it.floor),
            ("gate_serving", "Pods that serve", &it.serving),
            ("gate_desired", "Pods that there should be", &it.desired),
            ("gate_may_withhold", "Serving pods that may still be withheld", &it.may_withhold),
            ("gate_panic", "1 while most of the fleet looks bad", &it.panic),
            ("gate_silent_listed", "Pods that are silent and listed all the same", &it.silent_listed),
            (
                "gate_unknown_verdicts",
                "Verdicts of the last callback run for pods that nobody knows",
                &it.unknown_verdicts,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register("breaker_gauge", "Ready pods: all, and by their traffic", it.pods.clone());
        registry.register("item_gauge", "Services that are worked on", it.items.clone());
        registry.register("breaker_count", "What was done to pods so far", it.actions.clone());
        registry.register("gate_plans", "Plans made", it.plans.clone());
        registry.register(
            "gate_failures",
            "Plans that could not be made or carried out, by step",
            it.failures.clone(),
        );
        it
    }

    /// Sets the number of services of each namespace.
    pub fn items(&self, counts: &BTreeMap<&str, usize>) {
        self.items.clear();
        for (namespace, count) in counts {
            let labels = Namespace { namespace: (*namespace).to_owned() };
            self.items.get_or_create_owned(&labels).set(signed(*count));
        }
    }

    /// Removes the series of a fleet that is no longer reconciled.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        for kind in KINDS {
            self.pods.remove(&PodLabels { name: name.clone(), namespace: namespace.clone(), r#type: kind });
        }
        let service = FleetLabels { name, namespace };
        for gauge in self.fleet_gauges() {
            gauge.remove(&service);
        }
    }

    /// The gauges with a series for each fleet.
    fn fleet_gauges(&self) -> [&Family<FleetLabels, Gauge>; 7] {
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
        let (name, namespace) = (snapshot.name.clone(), snapshot.namespace.clone());
        let PodCounts { managed, breaked, paused, unknown } = snapshot.counts();
        for (kind, count) in KINDS.into_iter().zip([managed, breaked, paused, unknown]) {
            let labels = PodLabels { name: name.clone(), namespace: namespace.clone(), r#type: kind };
            self.pods.get_or_create_owned(&labels).set(signed(count));
        }
        let service = FleetLabels { name, namespace };
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
        namespace: &str,
        known: &BTreeSet<&str>,
        plan: &Plan,
        outcomes: &[ActionOutcome],
    ) {
        for (action, _) in
            plan.actions.iter().zip(outcomes).filter(|(_, outcome)| **outcome == ActionOutcome::Landed)
        {
            let kind = match action.verb {
                Verb::Withhold => "break",
                Verb::Admit => "activate",
                Verb::Pause => "pause",
                Verb::Kill => "kill",
                Verb::Claim | Verb::Cancel | Verb::Release | Verb::Forget => continue,
            };
            let breaker = known.get(action.breaker.as_str()).copied().unwrap_or("other").to_owned();
            self.actions
                .get_or_create_owned(&ActionLabels { breaker, namespace: namespace.to_owned(), r#type: kind })
                .inc();
        }
    }

    pub(super) fn failed(&self, step: &'static str) {
        self.failures.get_or_create_owned(&FailureLabels { step }).inc();
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
