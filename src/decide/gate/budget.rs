//! The floor's arithmetic: how many pods must serve and how many may still be withheld. The only place that computes a ratio.
//!
//! The floor is a share of *desired*, because a share of the serving or existing pods sinks with the
//! fleet (10, 5, 2, 1). One budget for all breakers, because budgets per breaker add up. Rounded up,
//! because rounding down would allow the last pod to be withheld.

use std::fmt;

use serde::Serialize;

use crate::decide::policy::{FloorRule, Policy};

/// The numbers of the budget, all in pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Pods that there should be.
    pub desired: u32,
    /// Pods that exist and are not terminating.
    pub existing: u32,
    /// Pods that must serve.
    pub floor: u32,
    /// Pods that are ready and listed, with traffic=yes and without an entry.
    pub serving: u32,
    /// Pods as those, but listed by none for less than 5 s: they count for a restore, not for a cut.
    pub joining: u32,
    /// Entries of the ledger.
    pub entries: u32,
}

impl Budget {
    /// The largest floor of the policy's rules.
    pub fn floor(policy: &Policy, desired: u32) -> u32 {
        let rules = policy.breakers.iter().map(|breaker| &breaker.floor).chain([&policy.floor]);
        rules.map(|rule| rule.of(desired)).max().unwrap_or(1)
    }

    /// Entries that the ledger may hold in all.
    pub fn room(&self) -> u32 {
        self.desired.min(self.existing).saturating_sub(self.floor)
    }

    /// Serving pods that may still be withheld.
    pub fn may_withhold(&self) -> u32 {
        self.room_for_unserving().min(self.serving.saturating_sub(self.floor))
    }

    /// Pods that do not serve (silent ones) and may still be withheld: they take room, but no capacity.
    pub fn room_for_unserving(&self) -> u32 {
        if self.serving < self.floor { 0 } else { self.room().saturating_sub(self.entries) }
    }

    /// Pods that are missing to the floor.
    pub fn missing(&self) -> u32 {
        self.floor.saturating_sub(self.serving.saturating_add(self.joining))
    }

    /// Entries above the room.
    pub fn excess(&self) -> u32 {
        self.entries.saturating_sub(self.room())
    }
}

impl FloorRule {
    /// Its floor, in pods, of a fleet of `desired` pods: 0 where no pod is wanted.
    pub fn of(&self, desired: u32) -> u32 {
        if desired == 0 {
            return 0;
        }
        let ratio = u64::from(self.min_available_ratio.unwrap_or(0));
        let share = (ratio * u64::from(desired)).div_ceil(100);
        self.min_available_count.max(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { desired, existing, floor, serving, entries, joining: _ } = self;
        write!(
            f,
            "min(min(desired {desired}, existing {existing}) - floor {floor} - entries {entries}, \
             serving {serving} - floor {floor}) = {}",
            self.may_withhold()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(count: u32, ratio: Option<u8>) -> FloorRule {
        FloorRule { min_available_count: count, min_available_ratio: ratio }
    }

    #[test]
    fn mistake_2_the_floor_is_rounded_up() {
        assert_eq!(rule(1, Some(50)).of(3), 2);
        assert_eq!(rule(1, Some(34)).of(10), 4);
        assert_eq!(rule(1, Some(100)).of(7), 7);
        assert_eq!(rule(3, Some(0)).of(10), 3);
        assert_eq!((rule(1, None).of(0), rule(3, Some(50)).of(0)), (0, 0), "nothing wanted, nothing missing");
        assert_eq!(rule(1, None).of(1), 1);
        assert_eq!(rule(0, Some(100)).of(u32::MAX), u32::MAX);
    }

    #[test]
    fn the_smaller_of_room_and_serving_limits() {
        let budget = Budget { desired: 10, existing: 10, floor: 5, serving: 10, joining: 0, entries: 0 };
        assert_eq!(budget.may_withhold(), 5);
        assert_eq!(Budget { serving: 6, ..budget }.may_withhold(), 1);
        assert_eq!(Budget { entries: 4, ..budget }.may_withhold(), 1);
        assert_eq!(Budget { existing: 6, ..budget }.may_withhold(), 1);
        assert_eq!(Budget { desired: 5, ..budget }.may_withhold(), 0);
        assert_eq!(Budget { serving: 4, ..budget }.room_for_unserving(), 0);
    }
}
