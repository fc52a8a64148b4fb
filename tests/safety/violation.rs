//! What the checker finds, and how it is printed.

use std::{fmt, time::Duration};

/// What is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Violation {
    /// A withdrawal left fewer than the floor.
    BelowFloor { revision: i64, resource: String, pod: String, serving: u64, floor: u64 },
    /// Pods that could serve stayed withheld below the floor for so long.
    NotRestored { resource: String, since: Duration, took: Duration },
    /// Pods stayed withheld for so long although the Service selects them no more, or the resource is a dry run.
    NotGivenBack { resource: String, since: Duration, took: Duration },
    /// We withdrew a pod that belongs to no resource.
    ForNobody { revision: i64, pod: String },
    /// We withdrew a pod that the stored ledger has no entry of.
    Unreserved { revision: i64, pod: String },
    /// A withdrawal was reserved by a write that rests on a resource which was paused or a dry run.
    ReservedWhileOff { revision: i64, resource: String, pod: String, why: &'static str },
    /// Our withdrawal without `breakAt`: nobody could adopt it after a crash.
    Unmarked { revision: i64, pod: String },
    /// A fence that this pod had before.
    RepeatedFence { revision: i64, pod: String, fence: String },
    /// It does not say `yes` in the end.
    Stuck { pod: String, traffic: Option<String> },
    /// It serves and carries what only withheld pods carry, or it carries our name and is nobody's.
    Leaked { pod: String, key: &'static str },
    /// All is well and the ledger holds entries.
    LedgerNotEmpty { resource: String, entries: Vec<String> },
}

/// The judgement.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) violations: Vec<Violation>,
    pub(super) revisions: usize,
    pub(super) withdrawals: usize,
    pub(super) admissions: usize,
    /// The least that was serving above the floor after a withdrawal.
    pub(super) narrowest: Option<u64>,
    /// The longest time that pods which could serve were withheld below the floor.
    pub(super) longest_below: Duration,
    /// The longest time until what must not be withheld any more was given back.
    pub(super) longest_dark: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revisions, withdrawals, admissions, narrowest, longest_below, longest_dark, violations } =
            self;
        write!(f, "{revisions} revisions, {withdrawals} withdrawals, {admissions} admissions, ")?;
        write!(
            f,
            "narrowest {narrowest:?} above the floor, longest {:.1} s below, {:.1} s until given back",
            longest_below.as_secs_f64(),
            longest_dark.as_secs_f64()
        )?;
        violations.iter().try_for_each(|violation| write!(f, "\n  {violation:?}"))
    }
}
