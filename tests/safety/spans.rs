//! Clocks without the time for which nobody is to blame.

use std::{ops::Range, time::Duration};

/// The same time in ranges that neither overlap nor touch.
pub(super) fn merged<'a>(ranges: impl Iterator<Item = &'a Range<Duration>>) -> Vec<Range<Duration>> {
    let mut ranges: Vec<_> = ranges.cloned().collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged = Vec::<Range<Duration>>::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

/// The clock without the time in which there was no API server.
pub(super) fn served_time(at: Duration, away: &[Range<Duration>]) -> Duration {
    at - away.iter().map(|away| at.min(away.end).saturating_sub(away.start)).sum::<Duration>()
}

/// The longest stretch of `since..until` in which somebody could have acted.
pub(super) fn unexcused(since: Duration, until: Duration, excused: &[Range<Duration>]) -> Duration {
    let mut excused: Vec<_> = excused.iter().filter(|e| e.start < until && e.end > since).collect();
    excused.sort_by_key(|excuse| excuse.start);
    let (mut free_since, mut longest) = (since, Duration::ZERO);
    for excuse in excused {
        longest = longest.max(excuse.start.saturating_sub(free_since));
        free_since = free_since.max(excuse.end);
    }
    longest.max(until.saturating_sub(free_since))
}
