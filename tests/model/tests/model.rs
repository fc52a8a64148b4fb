//! Worlds in which the gate must keep all promises, and mutants that must violate one.
//!
//! `MODEL_FACTOR=5` explores five times more states of the unbounded worlds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::{collections::BTreeSet, time::Instant};

use kubervisor_model::{
    bridge::{ALL_GOOD, Floor, Verdict},
    mutant::Mutant,
    protocol::{DARK, FLOOR, LANDS, Setup},
    world::Faults,
};
use stateright::{Checker, HasDiscoveries, Model};

const NONE: Faults = Faults {
    duplicates: 0,
    unready: 0,
    replaced: 0,
    recreated: 0,
    fences_removed: 0,
    switch_edits: 0,
    scale_downs: 0,
    claims_refused: 0,
};

/// Every state up to `most` transitions keeps all promises; at least `least` unique states are explored.
fn holds(world: &str, setup: Setup, most: usize, least: usize) {
    let factor = std::env::var("MODEL_FACTOR").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    let (begun, most) = (Instant::now(), most.saturating_mul(factor));
    let failed = HasDiscoveries::AnyFailures;
    let checker = setup.checker().target_state_count(most).finish_when(failed).spawn_bfs().join();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    let end = if all < most { "complete" } else { "up to the limit" };
    println!(
        "{world}: {unique} states, {all} transitions, depth {}, {end}, {:.1?}",
        checker.max_depth(),
        begun.elapsed()
    );
    let found = checker.discoveries();
    for (promise, path) in &found {
        let steps = path.clone().into_actions();
        assert_eq!(*promise, LANDS, "{world}: {promise}: violated by {steps:?}\n{:#?}", path.last_state());
    }
    assert!(found.contains_key(LANDS), "{world}: no withdrawal landed");
    assert!(unique >= least, "{world}: only {unique} states");
}

/// The real gate keeps all promises in this world, and the mutant violates `promise`.
fn caught(mutant: Mutant, promise: &'static str, setup: Setup) {
    let found = HasDiscoveries::AllOf(BTreeSet::from([promise]));
    let broken = Setup { mutant: Some(mutant), ..setup.clone() };
    let checker = broken.checker().target_state_count(4_000_000).finish_when(found).spawn_bfs().join();
    let path = checker.discovery(promise).unwrap_or_else(|| panic!("{mutant:?} violated no promise"));
    let steps = path.into_actions();
    println!("{mutant:?}: {} steps: {steps:?}", steps.len());
    let enough = checker.state_count().max(20_000);
    let failed = HasDiscoveries::AnyFailures;
    let real = setup.checker().target_state_count(enough).finish_when(failed).spawn_bfs().join();
    assert!(
        real.discoveries().keys().all(|promise| *promise == LANDS),
        "the real gate violates a promise in the same world"
    );
}

fn three() -> Setup {
    Setup::without_faults(3, 2, 4)
}

mod worlds {
    use super::*;

    #[test]
    fn two_controllers_and_patches_that_land_late_or_never() {
        holds("late", Setup::without_faults(3, 2, 7), 6_000_000, 300_000);
    }

    #[test]
    fn answers_that_are_written_down_and_patches_that_land_twice() {
        let faults = Faults { duplicates: 2, ..NONE };
        holds("told", Setup { record_outcomes: true, faults, ..three() }, 6_000_000, 100_000);
    }

    #[test]
    fn two_pods_at_once_of_four() {
        let faults = Faults { duplicates: 1, ..NONE };
        holds("four", Setup { faults, ..Setup::without_faults(4, 2, 4) }, 6_000_000, 2_200_000);
    }

    #[test]
    fn pods_that_fail_and_recover() {
        let faults = Faults { unready: 2, ..NONE };
        holds("unready", Setup { faults, ..three() }, 6_000_000, 700_000);
    }

    #[test]
    fn pods_that_are_replaced_and_lists_older_than_the_ledger() {
        let faults = Faults { replaced: 1, unready: 1, ..NONE };
        holds("churn", Setup { stale: true, faults, ..three() }, 6_000_000, 1_200_000);
    }

    #[test]
    fn a_resource_that_is_deleted_and_made_anew() {
        let faults = Faults { recreated: 1, ..NONE };
        holds("recreated", Setup { faults, ..three() }, 8_000_000, 2_600_000);
    }

    #[test]
    fn fences_that_a_person_removes() {
        let faults = Faults { fences_removed: 2, duplicates: 1, ..NONE };
        holds("unfenced", Setup { faults, ..three() }, 6_000_000, 2_300_000);
    }

    #[test]
    fn people_who_set_switches() {
        let faults = Faults { switch_edits: 2, unready: 1, ..NONE };
        holds("hands", Setup { faults, ..three() }, 6_000_000, 1_300_000);
    }

    #[test]
    fn a_fleet_that_is_one_pod_too_large_and_loses_it() {
        let faults = Faults { scale_downs: 1, ..NONE };
        holds("surge", Setup { desired: 3, faults, ..Setup::without_faults(4, 2, 4) }, 6_000_000, 90_000);
    }

    #[test]
    fn slices_that_follow_the_pods_late_or_never() {
        let faults = Faults { replaced: 1, unready: 1, ..NONE };
        holds("unlisted", Setup { slices_lag: true, faults, ..three() }, 6_000_000, 1_500_000);
    }

    #[test]
    fn claims_that_admission_refuses() {
        let faults = Faults { claims_refused: 2, unready: 1, ..NONE };
        holds("refused", Setup { without_fences: true, faults, ..three() }, 1_500_000, 100_000);
    }

    #[test]
    fn claims_that_admission_refuses_after_the_ledger_was_lost() {
        let faults = Faults { claims_refused: 1, recreated: 1, ..NONE };
        holds("refused anew", Setup { faults, ..three() }, 1_500_000, 100_000);
    }

    #[test]
    fn all_of_it_at_once() {
        let faults = Faults {
            duplicates: 1,
            unready: 1,
            replaced: 1,
            recreated: 1,
            fences_removed: 1,
            switch_edits: 1,
            ..NONE
        };
        holds("all", Setup { stale: true, record_outcomes: true, faults, ..three() }, 9_000_000, 2_300_000);
    }
}

mod mutants {
    use super::*;

    #[test]
    fn no_fence() {
        caught(Mutant::NoFence, FLOOR, three());
    }

    #[test]
    fn another_fence_is_a_newer_one() {
        caught(Mutant::UnequalIsNewer, DARK, Setup { stale: true, ..three() });
    }

    #[test]
    fn a_replay_after_a_conflict() {
        caught(Mutant::ReplayAfterConflict, FLOOR, three());
    }

    #[test]
    fn no_compare_and_swap() {
        caught(Mutant::NoCompareAndSwap, FLOOR, three());
    }

    #[test]
    fn no_sweep_after_the_ledger_was_lost() {
        caught(Mutant::NoSweep, FLOOR, Setup { faults: Faults { recreated: 1, ..NONE }, ..three() });
    }

    #[test]
    fn a_budget_per_breaker() {
        let verdict = |bad, breaker| Verdict { bad, last: false, breaker };
        let verdicts = vec![ALL_GOOD, verdict(1, 0), verdict(2, 1)];
        caught(Mutant::BudgetPerBreaker, FLOOR, Setup { verdicts, ..three() });
    }

    #[test]
    fn a_floor_over_the_serving_pods() {
        caught(
            Mutant::FloorOverServing,
            FLOOR,
            Setup { floor: Floor { count: 1, ratio: 60 }, ..Setup::without_faults(4, 1, 4) },
        );
    }

    #[test]
    fn an_absent_fence_that_may_be_reserved() {
        let faults = Faults { fences_removed: 1, ..NONE };
        caught(Mutant::AbsentFenceReservable, FLOOR, Setup { without_fences: true, faults, ..three() });
    }

    #[test]
    fn absence_in_a_list_older_than_the_ledger() {
        let faults = Faults { replaced: 1, ..NONE };
        caught(Mutant::AbsenceFromStaleRead, FLOOR, Setup { stale: true, faults, ..three() });
    }

    #[test]
    fn a_fence_that_begins_anew_with_the_resource() {
        let verdict = |bad| Verdict { bad, last: false, breaker: 0 };
        let (verdicts, faults) = (vec![verdict(1), verdict(4)], Faults { recreated: 1, ..NONE });
        caught(Mutant::FenceRestarts, FLOOR, Setup { serial: 1, serials: 2, verdicts, faults, ..three() });
    }

    #[test]
    fn a_reserved_pod_that_counts_as_serving() {
        caught(Mutant::ReservedCountsAsServing, FLOOR, three());
    }

    #[test]
    fn a_recovery_that_repeats_the_withdrawal() {
        caught(Mutant::RecoveryRepeats, FLOOR, Setup { faults: Faults { unready: 1, ..NONE }, ..three() });
    }

    #[test]
    fn a_release_without_traffic() {
        caught(Mutant::ReleaseWithoutYes, DARK, three());
    }

    #[test]
    fn a_pod_in_no_slice_that_counts_as_serving() {
        let faults = Faults { replaced: 1, ..NONE };
        caught(Mutant::UnlistedCounts, FLOOR, Setup { slices_lag: true, faults, ..three() });
    }

    #[test]
    fn a_refused_claim_that_counts_with_another_ledgers_fence() {
        let faults = Faults { claims_refused: 1, recreated: 1, ..NONE };
        caught(Mutant::RefusedClaimCounts, FLOOR, Setup { faults, ..three() });
    }

    #[test]
    fn entries_that_are_left_out_of_the_budget() {
        let faults = Faults { scale_downs: 1, ..NONE };
        caught(Mutant::EntriesLeftOut, FLOOR, Setup { desired: 3, faults, ..Setup::without_faults(4, 2, 4) });
    }
}
