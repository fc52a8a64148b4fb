//! A breaker's state between evaluations: its due time, and which of each pod's last 64 evaluations were bad.
//!
//! A callback's state is written at every run and a fleet has thousands of pods: a pod without a recent bad
//! evaluation has no entry, any other one `u64`.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Consecutive, Observation, Rule, outlier::PeerComparison};
use crate::decide::{fleet::Uid, time::Timestamp, verdict::Judgement};

/// The state of all breakers, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows {
    breakers: BTreeMap<String, BreakerWindows>,
}

/// The state of one breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerWindows {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<Timestamp>,
    /// The last 64 evaluations of each pod with a bad one; bit 0 is the newest, 1 is bad.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    bad: BTreeMap<Uid, u64>,
}

impl Windows {
    /// Removes the breakers that are no longer in the policy.
    pub fn retain_breakers(&mut self, is_known: impl Fn(&str) -> bool) {
        self.breakers.retain(|breaker, _| is_known(breaker));
    }

    /// Whether any of these rules is due.
    pub fn any_due(&self, now: Timestamp, rules: &[Rule]) -> bool {
        rules.iter().any(|rule| {
            self.breakers.get(&rule.breaker).is_none_or(|breaker| breaker.is_due(now, rule.every))
        })
    }

    /// A copy without due times, and without breakers that have no bad evaluation.
    pub fn without_due_times(&self) -> Self {
        let without_due = |(name, breaker): (&String, &BreakerWindows)| {
            let bad = breaker.bad.clone();
            (!bad.is_empty()).then(|| (name.clone(), BreakerWindows { due: None, bad }))
        };
        Self { breakers: self.breakers.iter().filter_map(without_due).collect() }
    }

    /// The state of `breaker`, created empty if absent.
    pub fn of(&mut self, breaker: &str) -> &mut BreakerWindows {
        self.breakers.entry(breaker.to_owned()).or_default()
    }
}

impl BreakerWindows {
    /// Whether the breaker is due. A due time more than one period ahead is ignored: the clock was set back, or the
    /// period shortened.
    pub fn is_due(&self, now: Timestamp, every: Duration) -> bool {
        self.due.is_none_or(|due| due <= now || due > now + every)
    }

    /// Sets the next due time: one period after the last, or after `now` if that is past.
    pub fn next_due(&mut self, now: Timestamp, every: Duration) {
        let in_step = self.due.map(|due| due + every).filter(|due| *due > now && *due <= now + every);
        self.due = Some(in_step.unwrap_or(now + every));
    }

    /// Makes the breaker due at once, after a query whose answer was lost.
    pub fn make_due(&mut self) {
        self.due = None;
    }

    /// The next due time; `None` is at once.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Judges pods by their windows: bad when `rule.bad` of the last `rule.of` evaluations were, even if the newest
    /// was not. A comparison without data moves no window; none moves with `push` false (between two evaluations).
    pub fn judge(
        &mut self,
        rule: Consecutive,
        pods: &[&Observation],
        compared: impl IntoIterator<Item = PeerComparison>,
        push: bool,
    ) -> Vec<Judgement> {
        let mask = u64::MAX >> (64 - rule.of.clamp(1, 64));
        let mut kept = BTreeMap::new();
        let mut judgements = Vec::with_capacity(pods.len());
        for (pod, comparison) in pods.iter().zip(compared) {
            let mut bits = self.bad.get(&pod.uid).copied().unwrap_or(0) & mask;
            if let (true, PeerComparison::Measured { beyond, .. }) = (push, &comparison) {
                bits = ((bits << 1) | u64::from(*beyond)) & mask;
            }
            if bits != 0 {
                kept.insert(pod.uid.clone(), bits);
            }
            judgements.push(judgement(rule, bits.count_ones(), comparison));
        }
        self.bad = kept;
        judgements
    }
}

/// The judgement of a comparison, with `count` bad evaluations in the window.
fn judgement(rule: Consecutive, count: u32, comparison: PeerComparison) -> Judgement {
    match comparison {
        PeerComparison::Measured { severity, numbers, .. } if count >= rule.bad => {
            let note = format!("{count} of the last {} looks were bad", rule.of);
            Judgement::Bad { severity, evidence: Box::new(numbers.evidence(note)) }
        }
        PeerComparison::Measured { .. } => Judgement::Good,
        PeerComparison::None(cause) => Judgement::None(cause),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decide::{
        detect::{LifeStatus, outlier::PeerNumbers},
        verdict::NoVerdict,
    };

    const RULE: Consecutive = Consecutive { of: 5, bad: 3 };

    fn pod(uid: &str) -> Observation {
        Observation {
            uid: uid.into(),
            id: uid.into(),
            age: Duration::ZERO,
            status: LifeStatus::Live,
            heard: true,
            withheld: false,
            name_age: None,
            payload: Arc::default(),
        }
    }

    fn comparison(beyond: bool) -> PeerComparison {
        PeerComparison::Measured { beyond, severity: 0.5, numbers: PeerNumbers::default() }
    }

    /// The judgements of one pod over these comparisons: `x` beyond, `.` within, `?` no data, `-` beyond, between two
    /// evaluations.
    fn run(comparisons: &str) -> String {
        let (mut windows, pod) = (BreakerWindows::default(), pod("a"));
        let step = |c| {
            let (comparison, push) = match c {
                'x' => (comparison(true), true),
                '.' => (comparison(false), true),
                '-' => (comparison(true), false),
                _ => (PeerComparison::None(NoVerdict::NoPeers), true),
            };
            match windows.judge(RULE, &[&pod], vec![comparison], push).remove(0) {
                Judgement::Good => 'g',
                Judgement::Bad { .. } => 'B',
                _ => '?',
            }
        };
        comparisons.chars().map(step).collect()
    }

    #[test]
    fn three_bad_evaluations_of_the_last_five_are_bad_and_fewer_are_not() {
        assert_eq!(run("xx.x"), "gggB");
        assert_eq!(run("x.x..x.x.."), "gggggggggg");
        assert_eq!(run("xxx...x"), "ggBBBgg", "three good ones of five end it");
    }

    #[test]
    fn a_comparison_without_data_moves_no_window() {
        assert_eq!(run("xx?????x"), "gg?????B");
        assert_eq!(run("xxx???."), "ggB???B");
    }

    #[test]
    fn a_run_between_two_evaluations_does_not_age_a_fault() {
        assert_eq!(run("x----x-x"), "ggggggg".to_owned() + "B");
    }

    #[test]
    fn a_healthy_fleet_has_an_empty_state() {
        let mut windows = BreakerWindows::default();
        let pods: Vec<_> = (0..1000).map(|n| pod(&format!("uid-{n}"))).collect();
        let pods: Vec<_> = pods.iter().collect();
        for bad_one in [3, 1001] {
            let compared = (0..1000).map(|n| comparison(n == bad_one));
            let _ = windows.judge(RULE, &pods, compared, true);
        }
        assert_eq!(serde_json::to_string(&windows).unwrap(), r#"{"bad":{"uid-3":2}}"#);
        let _ = windows.judge(RULE, &pods[5..], (5..1000).map(|_| comparison(false)), true);
        assert_eq!(serde_json::to_string(&windows).unwrap(), "{}", "entries of absent pods are removed");
    }

    #[test]
    fn due_times_keep_their_period_and_a_clock_set_back_delays_none() {
        let (at, every) = (Timestamp::from_unix_millis, Duration::from_secs(5));
        let mut windows = BreakerWindows::default();
        assert!(windows.is_due(at(1_000_000), every), "new breakers are due");
        windows.next_due(at(1_000_000), every);
        assert_eq!(windows.due(), Some(at(1_005_000)));
        assert!(!windows.is_due(at(1_004_999), every));
        assert!(windows.is_due(at(1_005_020), every));
        windows.next_due(at(1_005_020), every);
        assert_eq!(windows.due(), Some(at(1_010_000)), "a delay of 20 ms does not accumulate");
        windows.next_due(at(1_100_000), every);
        assert_eq!(windows.due(), Some(at(1_105_000)), "missed evaluations are not repeated");
        assert!(windows.is_due(at(500_000), every), "an hour back");
    }

    #[test]
    fn the_widest_window_is_sixty_four_evaluations() {
        let rule = Consecutive { of: 64, bad: 64 };
        let (mut windows, pod) = (BreakerWindows::default(), pod("a"));
        let bad_after = (1..=70).find(|_| {
            !matches!(windows.judge(rule, &[&pod], vec![comparison(true)], true)[0], Judgement::Good)
        });
        assert_eq!(bad_after, Some(64));
    }
}
