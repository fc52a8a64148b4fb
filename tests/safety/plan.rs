//! The plan of a run: which action comes when, and what is drawn for it, from the seed alone.

use std::time::Duration;

use fastrand::Rng;

/// One action.
pub(super) struct Step {
    /// Which one, below 100.
    pub(super) roll: u32,
    /// Until the next one.
    pub(super) pace: Duration,
    /// For what the action draws, such as a pod among those that are there: however much that is, the next step is the same.
    pub(super) rng: Rng,
}

/// The steps of a seed, without end.
pub(super) struct Plan(Rng);

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    pub(super) fn next(&mut self) -> Step {
        let mut rng = self.0.fork();
        Step { roll: rng.u32(..100), pace: Duration::from_millis(rng.u64(20..500)), rng }
    }
}

#[test]
fn a_seed_repeats_its_actions_whatever_the_machine_makes_of_them() {
    let rolls = |draws: usize| {
        let mut plan = Plan::of(7);
        let mut of_one = || {
            let mut step = plan.next();
            let first = step.rng.u64(..);
            step.rng.fill(&mut vec![0; draws]);
            (step.roll, step.pace, first)
        };
        std::iter::repeat_with(&mut of_one).take(200).collect::<Vec<_>>()
    };
    assert_eq!(rolls(0), rolls(9));
}
