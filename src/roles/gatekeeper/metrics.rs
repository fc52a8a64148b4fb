//! The gate's metrics. The original's three keep their names, `breaker_count` included: a gauge by type, since a counter
//! would be renamed to `_total`; it only rises.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::view::GatekeeperView;
use crate::decide::gate::{Plan, action::Verb, explain::Standing, ledger::Outcome};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Service {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Standings {
    name: String,
    namespace: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Acts {
    breaker: String,
    namespace: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Place {
    namespace: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Step {
    step: &'static str,
}

/// The gate in numbers.
#[derive(Clone, Debug, Default)]
pub struct GateMetrics {
    standings: Family<Standings, Gauge>,
    items: Family<Place, Gauge>,
    acts: Family<Acts, Gauge>,
    floor: Family<Service, Gauge>,
    serving: Family<Service, Gauge>,
    desired: Family<Service, Gauge>,
    may_withhold: Family<Service, Gauge>,
    panic: Family<Service, Gauge>,
    silent_listed: Family<Service, Gauge>,
    unknown_verdicts: Family<Service, Gauge>,
    plans: Counter,
    failures: Family<Step, Counter>,
}

/// How pods are counted, in the original's words.
const KINDS: [&str; 4] = ["managed", "breaked", "paused", "unknown"];

impl GateMetrics {
    /// Metrics in `registry`, whose prefix is `kubervisor`.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("breaker_gauge", "Pods by how they stand", it.standings.clone());
        registry.register("item_gauge", "Services that are worked on", it.items.clone());
        registry.register("breaker_count", "What was done to pods so far", it.acts.clone());
        registry.register("gate_floor", "Pods that must serve", it.floor.clone());
        registry.register("gate_serving", "Pods that serve", it.serving.clone());
        registry.register("gate_desired", "Pods that there should be", it.desired.clone());
        registry.register(
            "gate_may_withhold",
            "Serving pods that may still be withheld",
            it.may_withhold.clone(),
        );
        registry.register("gate_panic", "1 while most of the fleet looks bad", it.panic.clone());
        registry.register(
            "gate_silent_listed",
            "Pods that are silent and listed all the same",
            it.silent_listed.clone(),
        );
        registry.register(
            "gate_unknown_verdicts",
            "Verdicts of the last callback run for pods that nobody knows",
            it.unknown_verdicts.clone(),
        );
        registry.register("gate_plans", "Plans made", it.plans.clone());
        registry.register(
            "gate_failures",
            "Plans that could not be made or carried out, by step",
            it.failures.clone(),
        );
        it
    }

    /// How many services are worked on, by namespace.
    pub fn items(&self, counts: &BTreeMap<&str, usize>) {
        self.items.clear();
        for (namespace, count) in counts {
            let place = Place { namespace: (*namespace).to_owned() };
            self.items.get_or_create_owned(&place).set(signed(*count));
        }
    }

    /// Shows no more numbers of a fleet that is not worked on any more.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        for kind in KINDS {
            self.standings.remove(&Standings {
                name: name.clone(),
                namespace: namespace.clone(),
                r#type: kind,
            });
        }
        let service = Service { name, namespace };
        for gauge in [
            &self.floor,
            &self.serving,
            &self.desired,
            &self.may_withhold,
            &self.panic,
            &self.silent_listed,
            &self.unknown_verdicts,
        ] {
            gauge.remove(&service);
        }
    }

    pub(super) fn planned(&self, view: &GatekeeperView) {
        self.plans.inc();
        let (name, namespace) = (view.name.clone(), view.namespace.clone());
        for (kind, count) in [
            ("managed", view.pods.len()),
            (
                "breaked",
                view.count(&[Standing::Withheld, Standing::Leaving, Standing::Ending, Standing::Foreign]),
            ),
            ("paused", view.count(&[Standing::Paused])),
            ("unknown", view.silent_listed()),
        ] {
            let labels = Standings { name: name.clone(), namespace: namespace.clone(), r#type: kind };
            self.standings.get_or_create_owned(&labels).set(signed(count));
        }
        let service = Service { name, namespace };
        let budget = view.floor.budget;
        for (gauge, value) in [
            (&self.floor, i64::from(budget.floor)),
            (&self.serving, i64::from(budget.serving)),
            (&self.desired, i64::from(budget.desired)),
            (&self.may_withhold, i64::from(view.floor.may_withhold)),
            (&self.panic, i64::from(view.panic)),
            (&self.silent_listed, signed(view.silent_listed())),
            (&self.unknown_verdicts, signed(view.unknown_verdicts)),
        ] {
            gauge.get_or_create_owned(&service).set(value);
        }
    }

    /// Counts what landed; a breaker that the policy does not name is `other`, so that callbacks cannot make labels up.
    pub(super) fn acted(&self, namespace: &str, known: &BTreeSet<&str>, plan: &Plan, outcomes: &[Outcome]) {
        for (action, _) in
            plan.actions.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Landed)
        {
            let kind = match action.verb {
                Verb::Withhold => "break",
                Verb::Admit => "activate",
                Verb::Pause => "pause",
                Verb::Kill => "kill",
                Verb::Claim | Verb::Cancel | Verb::Release | Verb::Forget => continue,
            };
            let breaker = known.get(action.breaker.as_str()).copied().unwrap_or("other").to_owned();
            self.acts
                .get_or_create_owned(&Acts { breaker, namespace: namespace.to_owned(), r#type: kind })
                .inc();
        }
    }

    pub(super) fn failed(&self, step: &'static str) {
        self.failures.get_or_create_owned(&Step { step }).inc();
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
