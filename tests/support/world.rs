//! A small world for the gate: pods that hold their own switches and fences, a ledger that is stored, and an executor
//! that carries plans out to the letter. It decides nothing.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::{collections::BTreeMap, time::Duration};

use kubervisor::decide::{
    fleet::{Epoch, Fence, Fleet, PodView, Presence, Traffic, Uid},
    gate::{
        self, Plan,
        action::{Action, Verb},
        budget::Budget,
        ledger::{ActionOutcome, Ledger},
    },
    policy::{ActivatorStrategy, Breaker, FloorRule, OnNoData, Policy},
    time::Timestamp,
    verdict::{Evidence, Judgement, Opinion, Source, SourceKind, Verdicts},
};

pub(crate) const EPOCH: Epoch = Epoch(0xe);

/// Where the switches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// On the pods; the ledger is stored first, then each pod is patched.
    Labels,
    /// In the ledger itself: a line of a file is there or not.
    File,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) sink: Sink,
    pub(crate) now: Timestamp,
    pub(crate) policy: Policy,
    pub(crate) desired: u32,
    pub(crate) pods: BTreeMap<Uid, PodView>,
    pub(crate) ledger: Ledger,
    pub(crate) verdicts: Verdicts,
    pub(crate) can_kill: bool,
    pub(crate) gated: bool,
    /// The resource is being deleted.
    pub(crate) leaving: bool,
    pub(crate) log: Vec<(Timestamp, Verb, String)>,
}

impl World {
    pub(crate) fn new(sink: Sink, policy: Policy, pods: u32) -> Self {
        let fence = Fence { epoch: EPOCH, serial: 0 };
        let pods = (0..pods).map(|n| PodView::serving(format!("u{n:05}"), format!("p{n}"), fence));
        let pods: BTreeMap<_, _> = pods.map(|pod| (pod.uid.clone(), pod)).collect();
        Self {
            sink,
            now: Timestamp::from_unix_millis(1_000_000_000),
            policy,
            desired: u32::try_from(pods.len()).unwrap(),
            pods,
            ledger: Ledger::begin("world", EPOCH),
            verdicts: Verdicts::default(),
            can_kill: false,
            gated: true,
            leaving: false,
            log: Vec::new(),
        }
    }

    pub(crate) fn fleet(&self) -> Fleet {
        let mut pods: Vec<_> = self.pods.values().cloned().collect();
        if self.sink == Sink::File {
            pods.iter_mut().for_each(|pod| self.ledger.project(pod));
        }
        let mut fleet = Fleet::new(self.desired, pods);
        (fleet.can_kill, fleet.gated, fleet.leaving) = (self.can_kill, self.gated, self.leaving);
        fleet
    }

    pub(crate) fn plan(&self) -> Plan {
        gate::plan(self.now, &self.policy, &self.fleet(), &self.ledger, &self.verdicts)
    }

    /// Plans once and carries it out. `false`: there was nothing to do.
    pub(crate) fn step(&mut self) -> bool {
        let plan = self.plan();
        self.carry_out(&plan)
    }

    pub(crate) fn carry_out(&mut self, plan: &Plan) -> bool {
        if self.sink == Sink::File {
            let Some(ledger) = plan.committed(&self.ledger) else { return false };
            self.ledger = ledger;
            for action in &plan.actions {
                self.log.push((self.now, action.verb, action.name.clone()));
                if action.verb == Verb::Forget {
                    self.pods.remove(&action.uid);
                }
            }
            return true;
        }
        self.store(plan);
        for action in &plan.actions {
            if let Some(outcome) = self.carry(action)
                && action.verb == Verb::Withhold
            {
                self.ledger.outcome(&action.uid, outcome);
            }
        }
        plan.next.is_some() || !plan.actions.is_empty()
    }

    pub(crate) fn store(&mut self, plan: &Plan) {
        if let Some(next) = &plan.next {
            assert_eq!(next.serial, self.ledger.serial + 1, "every write has its own serial");
            assert_eq!(next.epoch, self.ledger.epoch);
            self.ledger = next.clone();
        }
    }

    /// One patch, with its tests. `None`: nothing is written to a pod by this verb.
    pub(crate) fn carry(&mut self, action: &Action) -> Option<ActionOutcome> {
        if matches!(action.verb, Verb::Release | Verb::Forget) {
            return None;
        }
        let Some(pod) = self.pods.get_mut(&action.uid) else { return Some(ActionOutcome::Refused) };
        let guard = &action.guard;
        let holds = guard.traffic.is_none_or(|traffic| pod.traffic == traffic)
            && pod.fence == guard.fence
            && (!guard.ours || pod.claimed)
            && guard.until.is_none_or(|until| self.now <= until);
        if !holds {
            return Some(ActionOutcome::Refused);
        }
        self.log.push((self.now, action.verb, action.name.clone()));
        if action.verb == Verb::Kill {
            self.pods.remove(&action.uid);
            return Some(ActionOutcome::Landed);
        }
        let write = action.write.clone();
        pod.traffic = write.traffic.unwrap_or(pod.traffic);
        pod.fence = write.fence.or(pod.fence);
        pod.strategy = write.strategy.or(pod.strategy.take());
        pod.break_at = write.break_at.or(pod.break_at);
        pod.retry_count = write.retry_count.or(pod.retry_count);
        pod.admitted_at = write.admitted_at.or(pod.admitted_at);
        if action.verb == Verb::Claim {
            pod.claimed = true;
        }
        if action.verb == Verb::Admit {
            (pod.break_at, pod.strategy) = (None, None);
        }
        Some(ActionOutcome::Landed)
    }

    /// Until there is nothing to do at this moment; it must come to that.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            if !self.step() {
                return;
            }
        }
        panic!("the gate does not come to rest: {:#?}", self.plan());
    }

    /// Lets time pass, waking up when the plan asks for it and at least every second.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let second = self.now + Duration::from_secs(1);
            self.now = self.plan().next_wakeup.map_or(second, |wakeup| wakeup.min(second)).min(end);
            self.settle();
        }
    }

    pub(crate) fn pod(&mut self, name: &str) -> &mut PodView {
        self.pods.values_mut().find(|pod| pod.name == name).unwrap_or_else(|| panic!("no pod {name}"))
    }

    pub(crate) fn uid(&self, name: &str) -> Uid {
        self.pods.values().find(|pod| pod.name == name).map_or_else(|| name.into(), |pod| pod.uid.clone())
    }

    /// A breaker's run: these are bad with this severity, all others good.
    pub(crate) fn bad(&mut self, breaker: &str, bad: &[(&str, f64)]) {
        let bad: BTreeMap<Uid, f64> =
            bad.iter().map(|(name, severity)| (self.uid(name), *severity)).collect();
        let opinions = self.pods.keys().map(|uid| {
            let judgement = bad.get(uid).map_or(Judgement::Good, |severity| bad_with(*severity));
            (uid.clone(), Opinion::Judged(judgement))
        });
        let opinions = opinions.collect();
        self.verdicts.replace(Source::new(breaker, SourceKind::Breaker, self.now, opinions));
    }

    pub(crate) fn all_bad(&mut self, breaker: &str) {
        let names: Vec<String> = self.pods.values().map(|pod| pod.name.clone()).collect();
        self.bad(breaker, &names.iter().map(|name| (name.as_str(), 0.5)).collect::<Vec<_>>());
    }

    pub(crate) fn serving(&self) -> u32 {
        self.plan().budget.serving
    }

    pub(crate) fn floor(&self) -> u32 {
        Budget::floor(&self.policy, self.desired)
    }

    /// Names of the pods without traffic, in order.
    pub(crate) fn withheld(&self) -> Vec<String> {
        let fleet = self.fleet();
        let out = fleet.pods().iter().filter(|pod| matches!(pod.traffic, Traffic::No | Traffic::Pause));
        out.map(|pod| pod.name.clone()).collect()
    }

    /// Pods that get traffic and can serve it.
    pub(crate) fn truly_serving(&self) -> u32 {
        let fleet = self.fleet();
        let serving = fleet.pods().iter().filter(|pod| {
            pod.ready
                && !pod.terminating
                && pod.traffic == Traffic::Yes
                && pod.presence == Presence::Present
                && pod.unlisted_since.is_none()
        });
        u32::try_from(serving.count()).unwrap()
    }
}

pub(crate) fn bad_with(severity: f64) -> Judgement {
    let evidence = Evidence {
        rule: "error rate".into(),
        value: Some(severity),
        threshold: Some(0.1),
        ..Evidence::default()
    };
    Judgement::Bad { severity, evidence: Box::new(evidence) }
}

/// A breaker with everything at its default but its name.
pub(crate) fn breaker(name: &str) -> Breaker {
    Breaker {
        name: name.into(),
        evaluation_period: Duration::from_secs(5),
        floor: FloorRule::DEFAULT,
        activator: ActivatorStrategy::default(),
        on_no_data: OnNoData::Hold,
        min_coverage: 50,
        dry_run: false,
    }
}

/// One breaker `rate` at this ratio.
pub(crate) fn ratio(percent: u8) -> Policy {
    let floor = FloorRule { min_available_ratio: Some(percent), ..FloorRule::DEFAULT };
    let breakers = vec![Breaker { floor, ..breaker("rate") }];
    Policy { breakers, floor: FloorRule::DEFAULT, ..Policy::without_manifest("web") }
}
