//! A plan that stands is the one that would be made later, too.

use std::time::Duration;

use kubervisor::decide::{
    alarm_reason::AlarmReason,
    fleet::{Epoch, Fence, Fleet, PodView, Uid},
    gate::{
        self, Plan,
        ledger::{Ledger, Panic, Returned},
    },
    policy::Policy,
    time::Timestamp,
    verdict::{Judgement, NoVerdict, Opinion, Source, SourceKind, Verdicts},
};
use proptest::prelude::*;

use crate::world::{bad_with, breaker, ratio};

const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

/// A fleet with what the breakers `rate` and `other` find about each pod.
#[derive(Clone, Debug)]
struct Case {
    pods: Vec<(bool, bool, [u8; 2])>,
    desired: u32,
    panic_threshold: Option<u8>,
    /// Seconds since a pod was admitted, and how often it was set back.
    returned: Option<(u64, u8)>,
    panics: bool,
    reverted: bool,
    later: u64,
}

fn case() -> impl Strategy<Value = Case> {
    // Most pods are well, as in most fleets at most times.
    let found = || prop_oneof![40 => Just(0_u8), 3 => Just(1), 3 => Just(2), 1 => Just(3)];
    let seldom = || prop::bool::weighted(0.02);
    let pod = (seldom(), seldom(), [found(), found()]);
    let pods = prop::collection::vec(pod, 0..9);
    let threshold = prop::option::of(0..100_u8);
    let returned = prop::option::of((0..20_000_u64, prop_oneof![4 => Just(0_u8), 1 => Just(3)]));
    (pods, 0..9_u32, threshold, returned, seldom(), seldom(), 0..30_000_u64).prop_map(
        |(pods, desired, panic_threshold, returned, panics, reverted, later)| Case {
            pods,
            desired,
            panic_threshold,
            returned,
            panics,
            reverted,
            later,
        },
    )
}

fn judgement(found: u8) -> Judgement {
    match found {
        0 => Judgement::Good,
        1 => Judgement::None(NoVerdict::NoSeries),
        2 => Judgement::None(NoVerdict::FewEvents),
        _ => bad_with(0.5),
    }
}

impl Case {
    fn policy(&self) -> Policy {
        let mut policy = ratio(60);
        policy.breakers.push(breaker("other"));
        policy.panic_threshold = self.panic_threshold;
        policy
    }

    fn uid(index: usize) -> Uid {
        format!("u{index:03}").into()
    }

    fn fleet(&self) -> Fleet {
        let fence = Fence { epoch: Epoch(7), serial: 0 };
        let view = |(index, (unready, unlisted, _)): (usize, &(bool, bool, [u8; 2]))| PodView {
            ready: !unready,
            unlisted_since: unlisted.then_some(NOW),
            ..PodView::serving(Self::uid(index), format!("p{index}"), fence)
        };
        Fleet::new(self.desired, self.pods.iter().enumerate().map(view).collect())
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::begin("web", Epoch(7));
        if let Some((seconds, set_backs)) = self.returned {
            let admitted_at = NOW - Duration::from_secs(seconds);
            let spare_until = (set_backs > 0).then_some(NOW + Duration::from_secs(60));
            let breaker = "rate".to_owned();
            let returned = Returned { breaker, retry_count: 2, admitted_at, spare_until, set_backs };
            ledger.returned.insert(Self::uid(0), returned);
        }
        if self.panics {
            ledger.panic = Some(Panic { since: NOW, evaluation: 2, looked_at: NOW, calm: 0 });
        }
        ledger.reverted_until = self.reverted.then_some(NOW + Duration::from_secs(60));
        ledger
    }

    fn source(&self, breaker: usize, at: Timestamp) -> Source {
        let opinion = |(index, pod): (usize, &(bool, bool, [u8; 2]))| {
            (Self::uid(index), Opinion::Judged(judgement(pod.2[breaker])))
        };
        let opinions = self.pods.iter().enumerate().map(opinion).collect();
        Source::new(["rate", "other"][breaker], SourceKind::Breaker, at, opinions)
    }

    /// The plan, its ledger, and the verdicts that it was made with.
    fn plan(&self) -> (Plan, Ledger, Verdicts) {
        let (mut verdicts, ledger) = (Verdicts::default(), self.ledger());
        verdicts.replace(self.source(0, NOW));
        verdicts.replace(self.source(1, NOW));
        (gate::plan(NOW, &self.policy(), &self.fleet(), &ledger, &verdicts), ledger, verdicts)
    }
}

proptest! {
    // A third of the plans do not stand, and the bound is for all cases together, however many are asked for.
    #![proptest_config(ProptestConfig { max_global_rejects: 1 << 20, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_that_stands_is_the_same_at_any_later_time_in_whichever_order_the_breakers_ran(case in case()) {
        let (plan, ledger, mut verdicts) = case.plan();
        prop_assume!(plan.stands(&ledger));
        let later = NOW + Duration::from_secs(case.later);
        // One of them has run once more, so that it is the last one.
        let source = case.source(0, later);
        prop_assume!(verdicts.are_as_calm_as(&source));
        verdicts.replace(source);
        let again = gate::plan(later, &case.policy(), &case.fleet(), &ledger, &verdicts);
        prop_assert_eq!(Plan { at: later, ..plan }, again);
    }
}

#[test]
fn a_fleet_that_is_well_has_a_standing_plan_and_whatever_happens_to_it_ends_it() {
    let well = Case {
        pods: vec![(false, false, [0, 0]); 6],
        desired: 6,
        panic_threshold: Some(50),
        returned: None,
        panics: false,
        reverted: false,
        later: 0,
    };
    let stands = |case: Case| {
        let (plan, ledger, _) = case.plan();
        plan.stands(&ledger)
    };
    let with = |change: &dyn Fn(&mut Case)| {
        let mut case = well.clone();
        change(&mut case);
        stands(case)
    };
    assert!(stands(well.clone()));
    assert!(with(&|case| case.pods[0].2 = [1, 2]), "a pod without a verdict, within the coverage");
    assert!(with(&|case| case.returned = Some((60, 0))), "a pod that is back");
    assert!(!with(&|case| case.pods[0].2[0] = 3), "an objection");
    assert!(!with(&|case| case.pods[0].0 = true), "a pod that is not ready is explained");
    assert!(!with(&|case| case.pods[0].1 = true), "one that is not listed counts for a time");
    assert!(!with(&|case| case.returned = Some((60, 3))), "a fight");
    assert!(!with(&|case| case.panics = true) && !with(&|case| case.reverted = true));
    let blind = |case: &mut Case| case.pods.iter_mut().for_each(|pod| pod.2[0] = 1);
    assert!(!with(&blind), "too few verdicts");
    let mut blind_case = well.clone();
    blind(&mut blind_case);
    assert!(blind_case.plan().0.alarms.iter().any(|alarm| alarm.reason == AlarmReason::NoData));

    let (_, _, verdicts) = well.plan();
    let mut worse = well.clone();
    assert!(verdicts.are_as_calm_as(&worse.source(0, NOW + Duration::from_secs(5))));
    for found in [1, 3] {
        worse.pods[2].2[0] = found;
        assert!(!verdicts.are_as_calm_as(&worse.source(0, NOW)), "{found}");
    }
    worse.pods.pop();
    worse.pods[2].2[0] = 0;
    assert!(!verdicts.are_as_calm_as(&worse.source(0, NOW)), "a pod is gone");
}
