//! Combines repeated Events into series, and paces the updates of their counts.
//!
//! Without series, a pod that flaps would create an object and a line of `kubectl describe` for each Event. Time is an
//! argument; nothing is sent here.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::Event;
use crate::decide::time::{Moment, Timestamp};

/// Longest time between two Events of one series.
pub(super) const MAX_GAP: Duration = Duration::from_secs(10 * 60);
/// Shortest time between two updates of a series' count.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// Series that are kept; a further one replaces the oldest.
const MAX_SERIES: usize = 4096;

/// What all Events of a series share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesKey {
    about: String,
    related: String,
    reason: &'static str,
    rule: String,
}

impl SeriesKey {
    pub(super) fn of(event: &Event) -> Self {
        let named = |object: &super::ObjectRef| {
            format!("{}/{}/{}/{}", object.kind, object.namespace, object.name, object.uid)
        };
        let rule = if event.rule.is_empty() { &event.note } else { &event.rule };
        Self {
            about: named(&event.about),
            related: event.related.as_ref().map(named).unwrap_or_default(),
            reason: event.reason,
            rule: rule.clone(),
        }
    }
}

/// A new count of a series, to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeriesUpdate {
    pub(super) key: SeriesKey,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) count: i32,
    pub(super) last: Timestamp,
}

/// How an Event is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SeriesEntry {
    /// The first of a series: to be created.
    New,
    /// Counted; the update is not due yet.
    Counted,
    /// Counted; the update is due now.
    Due(SeriesUpdate),
}

struct EventSeries {
    namespace: String,
    name: String,
    count: i32,
    last: Timestamp,
    seen_at: Moment,
    sent_at: Moment,
    unsent: bool,
}

/// The series that may continue.
#[derive(Default)]
pub(super) struct SeriesTable {
    series: BTreeMap<SeriesKey, EventSeries>,
    /// In order of their creation.
    order: VecDeque<SeriesKey>,
}

impl SeriesTable {
    /// Counts an Event; after [`SeriesEntry::New`] the caller creates it and calls [`SeriesTable::created`].
    pub(super) fn count(&mut self, key: &SeriesKey, now: Moment, wall: Timestamp) -> SeriesEntry {
        let Some(series) = self.series.get_mut(key) else { return SeriesEntry::New };
        if now.since(series.seen_at) > MAX_GAP {
            self.forget(key);
            return SeriesEntry::New;
        }
        series.count = series.count.saturating_add(1);
        (series.last, series.seen_at, series.unsent) = (wall, now, true);
        if now.since(series.sent_at) < MIN_INTERVAL {
            return SeriesEntry::Counted;
        }
        SeriesEntry::Due(series.take(key, now))
    }

    /// Starts a series with an Event that was created as `name`.
    pub(super) fn created(
        &mut self,
        key: SeriesKey,
        namespace: String,
        name: String,
        now: Moment,
        wall: Timestamp,
    ) {
        if self.order.len() >= MAX_SERIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.series.remove(&oldest);
        }
        self.order.push_back(key.clone());
        let series =
            EventSeries { namespace, name, count: 1, last: wall, seen_at: now, sent_at: now, unsent: false };
        self.series.insert(key, series);
    }

    /// Ends a series; the next Event starts a new one.
    pub(super) fn forget(&mut self, key: &SeriesKey) {
        if self.series.remove(key).is_some() {
            self.order.retain(|known| known != key);
        }
    }

    /// When the next update is due.
    pub(super) fn due(&self) -> Option<Moment> {
        self.series.values().filter(|series| series.unsent).map(|series| series.sent_at + MIN_INTERVAL).min()
    }

    /// Takes the updates that are due.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<SeriesUpdate> {
        let due = |series: &EventSeries| series.unsent && now.since(series.sent_at) >= MIN_INTERVAL;
        let due = self.series.iter_mut().filter(|(_, series)| due(series));
        due.map(|(key, series)| series.take(key, now)).collect()
    }

    /// Takes all counts that were not sent yet.
    pub(super) fn take_all(&mut self) -> Vec<SeriesUpdate> {
        let unsent = self.series.iter_mut().filter(|(_, series)| series.unsent);
        unsent.map(|(key, series)| series.take(key, series.seen_at)).collect()
    }
}

impl EventSeries {
    fn take(&mut self, key: &SeriesKey, now: Moment) -> SeriesUpdate {
        (self.sent_at, self.unsent) = (now, false);
        SeriesUpdate {
            key: key.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            count: self.count,
            last: self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::kubernetes::events::{EventKind, ObjectRef};

    fn key(pod: &str, rule: &str, note: &str) -> SeriesKey {
        let about = ObjectRef { name: pod.into(), ..ObjectRef::default() };
        let (rule, note) = (rule.to_owned(), note.to_owned());
        let (kind, reason, action) = (EventKind::Normal, "Withheld", "Withhold");
        SeriesKey::of(&Event { about, related: None, kind, reason, action, rule, note })
    }

    fn at(seconds: u64) -> (Moment, Timestamp) {
        let wall = Timestamp::from_unix_millis(1000 * i64::try_from(seconds).unwrap());
        (Moment::after_origin(Duration::from_secs(seconds)), wall)
    }

    fn count(series: &mut SeriesTable, key: &SeriesKey, second: u64) -> SeriesEntry {
        let (now, wall) = at(second);
        let entry = series.count(key, now, wall);
        if entry == SeriesEntry::New {
            series.created(key.clone(), "shop".into(), "web.1".into(), now, wall);
        }
        entry
    }

    #[test]
    fn equal_events_are_counted_and_updated_every_30_s() {
        let (mut series, web) = (SeriesTable::default(), key("web", "errors", "3 of 4"));
        assert_eq!(count(&mut series, &web, 0), SeriesEntry::New);
        assert_eq!(series.due(), None);
        for second in 1..30 {
            assert_eq!(count(&mut series, &web, second), SeriesEntry::Counted);
        }
        assert_eq!(series.due(), Some(at(30).0));
        assert!(series.take_due(at(29).0).is_empty());
        let [update] = &series.take_due(at(30).0)[..] else { panic!("one series") };
        assert_eq!((update.count, update.last, update.name.as_str()), (30, at(29).1, "web.1"));
        assert_eq!(series.due(), None, "sent");
        let SeriesEntry::Due(update) = count(&mut series, &web, 70) else { panic!("due at once") };
        assert_eq!(update.count, 31);
        assert!(series.take_all().is_empty());
    }

    #[test]
    fn after_ten_minutes_without_an_event_a_new_series_begins() {
        let (mut series, web) = (SeriesTable::default(), key("web", "errors", ""));
        assert_eq!(count(&mut series, &web, 0), SeriesEntry::New);
        assert!(matches!(count(&mut series, &web, 600), SeriesEntry::Due(_)));
        assert_eq!(count(&mut series, &web, 1201), SeriesEntry::New);
    }

    #[test]
    fn events_are_equal_by_their_rule_and_without_one_by_their_note() {
        assert_eq!(key("web", "errors", "3 of 4"), key("web", "errors", "4 of 4"));
        assert_ne!(key("web", "errors", ""), key("web", "latency", ""));
        assert_ne!(key("web", "errors", ""), key("api", "errors", ""));
        assert_ne!(key("web", "", "3 of 4"), key("web", "", "4 of 4"));
    }

    #[test]
    fn the_number_of_series_is_bounded_and_a_forgotten_one_begins_anew() {
        let mut series = SeriesTable::default();
        for pod in 0..=MAX_SERIES {
            assert_eq!(count(&mut series, &key(&pod.to_string(), "errors", ""), 0), SeriesEntry::New);
        }
        assert_eq!((series.series.len(), series.order.len()), (MAX_SERIES, MAX_SERIES));
        assert_eq!(count(&mut series, &key("0", "errors", ""), 0), SeriesEntry::New);
        let last = key(&MAX_SERIES.to_string(), "errors", "");
        assert_eq!(count(&mut series, &last, 0), SeriesEntry::Counted);
        series.forget(&last);
        assert_eq!(count(&mut series, &last, 0), SeriesEntry::New);
    }

    #[test]
    fn take_all_returns_every_unsent_count() {
        let (mut series, web) = (SeriesTable::default(), key("web", "errors", ""));
        count(&mut series, &web, 0);
        count(&mut series, &web, 1);
        assert_eq!(series.take_all().iter().map(|update| update.count).collect::<Vec<_>>(), [2]);
        assert!(series.take_all().is_empty());
    }
}
