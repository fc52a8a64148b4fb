//! How a breaker remembers: when it is due, and which of a pod's last looks were bad.
//!
//! A callback's state is written at every run and a fleet has thousands of pods, so a pod whose
//! recent looks were all good takes no room at all, and any other takes one number.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Consecutive, Observation, Rule, outlier::PeerComparison};
use crate::decide::{fleet::Uid, time::Timestamp, verdict::Judgement};

/// The memory of all breakers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows {
    breakers: BTreeMap<String, BreakerWindows>,
}

/// The memory of one breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerWindows {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<Timestamp>,
    /// The last 64 looks of each pod that had a bad one: bit 0 is the newest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    bad: BTreeMap<Uid, u64>,
}

impl Windows {
    /// Forgets breakers that are not in the policy any more.
    pub fn retain_breakers(&mut self, is_known: impl Fn(&str) -> bool) {
        self.breakers.retain(|breaker, _| is_known(breaker));
    }

    /// Whether an evaluation of any of these rules has come.
    #[must_use]
    pub fn any_due(&self, now: Timestamp, rules: &[Rule]) -> bool {
        rules.iter().any(|rule| {
            self.breakers.get(&rule.breaker).is_none_or(|breaker| breaker.is_due(now, rule.every))
        })
    }

    /// The same looks, with every breaker due at once; breakers without a bad look are left out.
    #[must_use]
    pub fn without_due_times(&self) -> Self {
        let remembers = |(name, breaker): (&String, &BreakerWindows)| {
            let bad = breaker.bad.clone();
            (!bad.is_empty()).then(|| (name.clone(), BreakerWindows { due: None, bad }))
        };
        Self { breakers: self.breakers.iter().filter_map(remembers).collect() }
    }

    /// The memory of `breaker`, empty at first.
    pub fn of(&mut self, breaker: &str) -> &mut BreakerWindows {
        self.breakers.entry(breaker.to_owned()).or_default()
    }
}

impl BreakerWindows {
    /// Whether the breaker's next evaluation has come. More than one period ahead is no due time of
    /// ours: the clock was set back, or the period shortened.
    #[must_use]
    pub fn is_due(&self, now: Timestamp, every: Duration) -> bool {
        self.due.is_none_or(|due| due <= now || due > now + every)
    }

    /// Sets the next due time: in step with the last, or one period from now when looks were missed.
    pub fn next_due(&mut self, now: Timestamp, every: Duration) {
        let in_step = self.due.map(|due| due + every).filter(|due| *due > now && *due <= now + every);
        self.due = Some(in_step.unwrap_or(now + every));
    }

    /// Due at once: the answer to its last question will never come.
    pub fn ask_again(&mut self) {
        self.due = None;
    }

    /// When the next evaluation is due.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Turns single looks into judgements: bad when `rule.bad` of the last `rule.of` looks were, also
    /// when the newest is not. A look without data moves no window. `push` is false between two
    /// evaluations.
    #[must_use]
    pub fn hold(
        &mut self,
        rule: Consecutive,
        pods: &[&Observation],
        looks: Vec<PeerComparison>,
        push: bool,
    ) -> Vec<Judgement> {
        let mask = u64::MAX >> (64 - rule.of.clamp(1, 64));
        let mut kept = BTreeMap::new();
        let mut judgements = Vec::with_capacity(looks.len());
        for (pod, look) in pods.iter().zip(looks) {
            let mut bits = self.bad.get(&pod.uid).copied().unwrap_or(0) & mask;
            if let (true, PeerComparison::Measured { beyond, .. }) = (push, &look) {
                bits = ((bits << 1) | u64::from(*beyond)) & mask;
            }
            if bits != 0 {
                kept.insert(pod.uid.clone(), bits);
            }
            judgements.push(settle(rule, bits.count_ones(), look));
        }
        self.bad = kept;
        judgements
    }
}

/// What a look means, given how many of the last ones were bad.
fn settle(rule: Consecutive, count: u32, look: PeerComparison) -> Judgement {
    match look {
        PeerComparison::Measured { severity, mut evidence, .. } if count >= rule.bad => {
            evidence.note = Some(format!("{count} of the last {} looks were bad", rule.of));
            Judgement::Bad { severity, evidence }
        }
        PeerComparison::Measured { .. } => Judgement::Good,
        PeerComparison::Unjudged(judgement) => judgement,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decide::{detect::Status, verdict::Evidence};

    const RULE: Consecutive = Consecutive { of: 5, bad: 3 };

    fn pod(uid: &str) -> Observation {
        Observation {
            uid: uid.into(),
            id: uid.into(),
            age: Duration::ZERO,
            status: Status::Live,
            heard: true,
            withheld: false,
            payload: Arc::default(),
        }
    }

    fn look(beyond: bool) -> PeerComparison {
        PeerComparison::Measured { beyond, severity: 0.5, evidence: Evidence::default() }
    }

    /// The judgements of one pod over these looks: `x` beyond, `.` within, `?` no data, `-` a repeated
    /// bad look between evaluations.
    fn run(looks: &str) -> String {
        let (mut memory, pod) = (BreakerWindows::default(), pod("a"));
        let step = |c| {
            let (look, push) = match c {
                'x' => (look(true), true),
                '.' => (look(false), true),
                '-' => (look(true), false),
                _ => (PeerComparison::Unjudged(Judgement::NoData), true),
            };
            match memory.hold(RULE, &[&pod], vec![look], push).remove(0) {
                Judgement::Good => 'g',
                Judgement::Bad { .. } => 'B',
                _ => '?',
            }
        };
        looks.chars().map(step).collect()
    }

    #[test]
    fn three_bad_looks_of_the_last_five_are_bad_and_fewer_are_not() {
        assert_eq!(run("xx.x"), "gggB");
        assert_eq!(run("x.x..x.x.."), "gggggggggg");
        assert_eq!(run("xxx...x"), "ggBBBgg", "three good looks of five end it");
    }

    #[test]
    fn a_look_without_data_moves_no_window() {
        assert_eq!(run("xx?????x"), "gg?????B");
        assert_eq!(run("xxx???."), "ggB???B");
    }

    #[test]
    fn a_run_between_two_evaluations_does_not_age_a_fault() {
        assert_eq!(run("x----x-x"), "ggggggg".to_owned() + "B");
    }

    #[test]
    fn a_healthy_fleet_is_remembered_in_no_room() {
        let mut memory = BreakerWindows::default();
        let pods: Vec<_> = (0..1000).map(|n| pod(&format!("uid-{n}"))).collect();
        let pods: Vec<_> = pods.iter().collect();
        for bad_one in [3, 1001] {
            let looks = (0..1000).map(|n| look(n == bad_one)).collect();
            let _ = memory.hold(RULE, &pods, looks, true);
        }
        assert_eq!(serde_json::to_string(&memory).unwrap(), r#"{"bad":{"uid-3":2}}"#);
        let _ = memory.hold(RULE, &pods[5..], (5..1000).map(|_| look(false)).collect(), true);
        assert_eq!(serde_json::to_string(&memory).unwrap(), "{}", "who is gone is forgotten");
    }

    #[test]
    fn evaluations_keep_step_and_a_clock_set_back_silences_nobody() {
        let (at, every) = (Timestamp::from_unix_millis, Duration::from_secs(5));
        let mut memory = BreakerWindows::default();
        assert!(memory.is_due(at(1_000_000), every), "never asked");
        memory.next_due(at(1_000_000), every);
        assert_eq!(memory.due(), Some(at(1_005_000)));
        assert!(!memory.is_due(at(1_004_999), every));
        assert!(memory.is_due(at(1_005_020), every));
        memory.next_due(at(1_005_020), every);
        assert_eq!(memory.due(), Some(at(1_010_000)), "20 ms late do not add up");
        memory.next_due(at(1_100_000), every);
        assert_eq!(memory.due(), Some(at(1_105_000)), "missed looks are not caught up");
        assert!(memory.is_due(at(500_000), every), "an hour back");
    }

    #[test]
    fn the_widest_window_is_sixty_four_looks() {
        let rule = Consecutive { of: 64, bad: 64 };
        let (mut memory, pod) = (BreakerWindows::default(), pod("a"));
        let bad_after = (1..=70)
            .find(|_| !matches!(memory.hold(rule, &[&pod], vec![look(true)], true)[0], Judgement::Good));
        assert_eq!(bad_after, Some(64));
    }
}
