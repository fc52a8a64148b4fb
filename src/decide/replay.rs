//! A policy over a history: the functions that decide in production, fed with samples and fleets of the past.
//!
//! Nothing is decided here. [`detect::queried`] says which breakers are due and judges their answers with windows and
//! coverage; [`gate::plan`] decides. What stands in for the cluster is a ledger in memory that takes every plan at once,
//! and pods whose switch follows it, as with the endpoints file and in a dry run. So a replay differs from production in
//! two points only: a query's answer and a withdrawal take no time, and a withheld pod goes on being measured as it was.
//!
//! Time advances from one evaluation, change of the fleet or wake-up of the plan to the next; the jitter of the activator
//! is a hash of the pod, so that a replay of the same history is the same.

pub mod answers;
pub mod history;

use std::collections::HashMap;

use self::{
    answers::{RangeAnswer, StepCursor},
    history::{FleetEvent, ReplayFleet},
};
use super::{
    detect::{
        Rule, Windows, judged_pods,
        listed::FleetScope,
        queried::{self, JudgedAnswer},
    },
    fleet::{Epoch, Fleet},
    gate::{self, Plan, ledger::Ledger},
    policy::{FloorRule, Policy},
    time::Timestamp,
    verdict::{Source, Verdicts},
};

/// Plans in a row at one moment: each may find what the last one made possible. A plan over its own result has no
/// actions, so that this bound is never reached.
const PLANS: usize = 16;

/// What a replay tells as it goes.
pub trait ReplayLog {
    /// A breaker's answer was judged.
    fn evaluated(&mut self, judged: &JudgedAnswer);

    /// A plan was made; `after` is the ledger that it led to.
    fn planned(&mut self, step: &ReplayStep<'_>);
}

/// One plan of a replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayStep<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The fleet that it was made for.
    pub fleet: &'a Fleet,
    /// The verdicts that it was made with.
    pub verdicts: &'a Verdicts,
    /// The ledger after it.
    pub after: &'a Ledger,
    /// No further plan follows at this moment.
    pub last: bool,
}

/// One policy on its way through a history.
#[derive(Clone, Debug)]
pub struct Replay {
    policy: Policy,
    rules: Vec<Rule>,
    scope: FleetScope,
    windows: Windows,
    verdicts: Verdicts,
    ledger: Ledger,
    fleet: ReplayFleet,
    next_evaluation: Timestamp,
    wakeup: Option<Timestamp>,
    /// By rule: judgements whose memory the next ones take.
    spare: Vec<Option<Source>>,
    /// The last plan, while the next one is known to be the same ([`Plan::stands`]).
    standing: Option<Plan>,
}

impl Replay {
    /// A replay that begins at `from`, with an empty ledger and no pod.
    ///
    /// `dryRun` is cleared, because a replay changes nothing anyway. Breakers without a query have no history: they are
    /// left out, but their floor holds.
    pub fn new(policy: &Policy, rules: &[Rule], scope: FleetScope, from: Timestamp) -> Self {
        let rules: Vec<Rule> = rules.iter().filter(|rule| rule.detector.query().is_some()).cloned().collect();
        let mut policy = Policy { dry_run: false, ..policy.clone() };
        policy.breakers.iter_mut().for_each(|breaker| breaker.dry_run = false);
        let left_out = |name: &str| !rules.iter().any(|rule| rule.breaker == name);
        let floors = policy.breakers.iter().filter(|breaker| left_out(&breaker.name)).map(|left| left.floor);
        policy.floor = floors.fold(policy.floor, larger);
        policy.breakers.retain(|breaker| !left_out(&breaker.name));
        Self {
            policy,
            spare: vec![None; rules.len()],
            rules,
            scope,
            windows: Windows::default(),
            verdicts: Verdicts::default(),
            ledger: Ledger::begin("replay", Epoch(1)),
            fleet: ReplayFleet::default(),
            next_evaluation: from,
            wakeup: None,
            standing: None,
        }
    }

    /// The rules that are evaluated.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Goes on to just before `until`. `events` are the fleet's changes up to there, in order of time; `answers` those of
    /// the breakers, by name. A breaker without one, or outside of its range, has no answer.
    pub fn advance(
        &mut self,
        until: Timestamp,
        events: &[FleetEvent],
        answers: &HashMap<&str, &RangeAnswer>,
        log: &mut dyn ReplayLog,
    ) {
        let mut cursors: Vec<StepCursor<'_>> =
            self.rules.iter().map(|rule| StepCursor::new(answers.get(&*rule.breaker).copied())).collect();
        let mut events = events.iter().peekable();
        loop {
            let event = events.peek().map(|event| event.at);
            let due = (!self.rules.is_empty()).then_some(self.next_evaluation);
            let Some(now) = [due, self.wakeup, event].into_iter().flatten().min() else { return };
            if now >= until {
                return;
            }
            let mut changed = false;
            while let Some(event) = events.next_if(|event| event.at <= now) {
                self.fleet.apply(event);
                changed = true;
            }
            if changed {
                self.fleet.rebuild(&self.ledger);
                self.standing = None;
                cursors.iter_mut().for_each(StepCursor::forget_pods);
            }
            if due.is_some_and(|due| due <= now) {
                self.evaluate(now, &mut cursors, log);
            }
            self.settle(now, log);
        }
    }

    /// Judges the answers of the breakers that are due.
    fn evaluate(&mut self, now: Timestamp, cursors: &mut [StepCursor<'_>], log: &mut dyn ReplayLog) {
        let (due, next) = queried::due(&self.rules, now, &mut self.windows, |_| false);
        self.fleet.age(now);
        let pods = judged_pods(self.fleet.observations());
        for ((rule, cursor), spare) in self.rules.iter().zip(cursors).zip(&mut self.spare) {
            if !due.iter().any(|due| std::ptr::eq(*due, rule)) {
                continue;
            }
            let answer = cursor.joined(now, &pods, &self.scope);
            let judged =
                queried::judge_joined(rule, now, &pods, answer, &self.scope, &mut self.windows, spare.take());
            log.evaluated(&judged);
            self.standing = self.standing.take().filter(|_| self.verdicts.are_as_calm_as(&judged.source));
            *spare = self.verdicts.replace(judged.source);
        }
        // Without a due time nothing is evaluated any more; there is one as long as there are rules.
        self.next_evaluation = next.unwrap_or(Timestamp::from_unix_millis(i64::MAX));
    }

    /// Plans until nothing is left to do at this moment.
    fn settle(&mut self, now: Timestamp, log: &mut dyn ReplayLog) {
        if let Some(standing) = &mut self.standing {
            standing.at = now;
            let plan = &*standing;
            let (fleet, verdicts, after) = (self.fleet.view(), &self.verdicts, &self.ledger);
            debug_assert_eq!(*plan, gate::plan(now, &self.policy, fleet, after, verdicts));
            return log.planned(&ReplayStep { plan, fleet, verdicts, after, last: true });
        }
        for round in 1..=PLANS {
            let plan = gate::plan(now, &self.policy, self.fleet.view(), &self.ledger, &self.verdicts);
            let next = plan.committed(&self.ledger);
            let (after, last) = (next.as_ref().unwrap_or(&self.ledger), next.is_none() || round == PLANS);
            let (fleet, verdicts) = (self.fleet.view(), &self.verdicts);
            log.planned(&ReplayStep { plan: &plan, fleet, verdicts, after, last });
            self.wakeup = plan.next_wakeup;
            let Some(next) = next else {
                self.standing = Some(plan).filter(|plan| plan.stands(&self.ledger));
                return;
            };
            self.ledger = next;
            self.fleet.project(&self.ledger);
        }
    }
}

/// The floor that holds where both hold.
fn larger(a: FloorRule, b: FloorRule) -> FloorRule {
    FloorRule {
        min_available_count: a.min_available_count.max(b.min_available_count),
        min_available_ratio: a.min_available_ratio.max(b.min_available_ratio),
    }
}
