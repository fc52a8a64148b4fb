//! Which Events are one series, and when its count is told.
//!
//! Without it a pod that flaps for an hour would fill `kubectl describe` with the same line, and the API server with
//! one object for each. Time is an argument; nothing is sent from here.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::Event;
use crate::decide::time::{Moment, Timestamp};

/// Equal Events are one series while they are no further apart.
pub(super) const GAP: Duration = Duration::from_secs(10 * 60);
/// A series' count is told no more often.
pub(super) const PACE: Duration = Duration::from_secs(30);
/// EventSeries that are remembered; the oldest is forgotten for a new one.
const MOST: usize = 4096;

/// What two Events of one series have in common.
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

/// What is to be told of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeriesUpdate {
    pub(super) identity: SeriesKey,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) count: i32,
    pub(super) last: Timestamp,
}

/// What an Event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SeriesEntry {
    /// The first of its kind: to be created.
    New,
    /// One more of a series, to be told later.
    Counted,
    /// One more of a series, to be told now.
    SeriesUpdate(SeriesUpdate),
}

struct EventSeries {
    namespace: String,
    name: String,
    count: i32,
    last: Timestamp,
    heard_at: Moment,
    told_at: Moment,
    untold: bool,
}

/// Every series that may go on.
#[derive(Default)]
pub(super) struct SeriesTable {
    series: BTreeMap<SeriesKey, EventSeries>,
    /// In order of their creation.
    order: VecDeque<SeriesKey>,
}

impl SeriesTable {
    /// One more; [`SeriesTable::created`] follows when it was [`SeriesEntry::New`] and is stored.
    pub(super) fn hear(&mut self, identity: &SeriesKey, now: Moment, wall: Timestamp) -> SeriesEntry {
        let Some(series) = self.series.get_mut(identity) else { return SeriesEntry::New };
        if now.since(series.heard_at) > GAP {
            self.forget(identity);
            return SeriesEntry::New;
        }
        series.count = series.count.saturating_add(1);
        (series.last, series.heard_at, series.untold) = (wall, now, true);
        if now.since(series.told_at) < PACE {
            return SeriesEntry::Counted;
        }
        SeriesEntry::SeriesUpdate(series.tell(identity, now))
    }

    /// The first of a series is stored under that name.
    pub(super) fn created(
        &mut self,
        identity: SeriesKey,
        namespace: String,
        name: String,
        now: Moment,
        wall: Timestamp,
    ) {
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.series.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        let series =
            EventSeries { namespace, name, count: 1, last: wall, heard_at: now, told_at: now, untold: false };
        self.series.insert(identity, series);
    }

    /// The next one begins anew.
    pub(super) fn forget(&mut self, identity: &SeriesKey) {
        if self.series.remove(identity).is_some() {
            self.order.retain(|known| known != identity);
        }
    }

    /// When the next count is to be told.
    pub(super) fn due(&self) -> Option<Moment> {
        self.series.values().filter(|series| series.untold).map(|series| series.told_at + PACE).min()
    }

    /// The counts that are to be told by now.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<SeriesUpdate> {
        let due = |series: &EventSeries| series.untold && now.since(series.told_at) >= PACE;
        let due = self.series.iter_mut().filter(|(_, series)| due(series));
        due.map(|(identity, series)| series.tell(identity, now)).collect()
    }

    /// Every count that is not told yet, for the end.
    pub(super) fn take_all(&mut self) -> Vec<SeriesUpdate> {
        let untold = self.series.iter_mut().filter(|(_, series)| series.untold);
        untold.map(|(identity, series)| series.tell(identity, series.heard_at)).collect()
    }
}

impl EventSeries {
    fn tell(&mut self, identity: &SeriesKey, now: Moment) -> SeriesUpdate {
        (self.told_at, self.untold) = (now, false);
        SeriesUpdate {
            identity: identity.clone(),
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

    fn identity(pod: &str, rule: &str, note: &str) -> SeriesKey {
        let about = ObjectRef { name: pod.into(), ..ObjectRef::default() };
        let (rule, note) = (rule.to_owned(), note.to_owned());
        let (kind, reason, action) = (EventKind::Normal, "Withheld", "Withhold");
        SeriesKey::of(&Event { about, related: None, kind, reason, action, rule, note })
    }

    fn at(seconds: u64) -> (Moment, Timestamp) {
        let wall = Timestamp::from_unix_millis(1000 * i64::try_from(seconds).unwrap());
        (Moment::after_origin(Duration::from_secs(seconds)), wall)
    }

    fn hear(series: &mut SeriesTable, identity: &SeriesKey, second: u64) -> SeriesEntry {
        let (now, wall) = at(second);
        let heard = series.hear(identity, now, wall);
        if heard == SeriesEntry::New {
            series.created(identity.clone(), "shop".into(), "web.1".into(), now, wall);
        }
        heard
    }

    #[test]
    fn equal_events_are_counted_and_told_every_half_minute() {
        let (mut series, web) = (SeriesTable::default(), identity("web", "errors", "3 of 4"));
        assert_eq!(hear(&mut series, &web, 0), SeriesEntry::New);
        assert_eq!(series.due(), None);
        for second in 1..30 {
            assert_eq!(hear(&mut series, &web, second), SeriesEntry::Counted);
        }
        assert_eq!(series.due(), Some(at(30).0));
        assert!(series.take_due(at(29).0).is_empty());
        let [bump] = &series.take_due(at(30).0)[..] else { panic!("one series") };
        assert_eq!((bump.count, bump.last, bump.name.as_str()), (30, at(29).1, "web.1"));
        assert_eq!(series.due(), None, "told");
        let SeriesEntry::SeriesUpdate(bump) = hear(&mut series, &web, 70) else { panic!("told at once") };
        assert_eq!(bump.count, 31);
        assert!(series.take_all().is_empty());
    }

    #[test]
    fn after_ten_quiet_minutes_a_series_begins_anew() {
        let (mut series, web) = (SeriesTable::default(), identity("web", "errors", ""));
        assert_eq!(hear(&mut series, &web, 0), SeriesEntry::New);
        assert!(matches!(hear(&mut series, &web, 600), SeriesEntry::SeriesUpdate(_)));
        assert_eq!(hear(&mut series, &web, 1201), SeriesEntry::New);
    }

    #[test]
    fn the_rule_makes_them_equal_and_without_one_the_note() {
        assert_eq!(identity("web", "errors", "3 of 4"), identity("web", "errors", "4 of 4"));
        assert_ne!(identity("web", "errors", ""), identity("web", "latency", ""));
        assert_ne!(identity("web", "errors", ""), identity("api", "errors", ""));
        assert_ne!(identity("web", "", "3 of 4"), identity("web", "", "4 of 4"));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_begins_anew() {
        let mut series = SeriesTable::default();
        for pod in 0..=MOST {
            assert_eq!(hear(&mut series, &identity(&pod.to_string(), "errors", ""), 0), SeriesEntry::New);
        }
        assert_eq!((series.series.len(), series.order.len()), (MOST, MOST));
        assert_eq!(hear(&mut series, &identity("0", "errors", ""), 0), SeriesEntry::New);
        let last = identity(&MOST.to_string(), "errors", "");
        assert_eq!(hear(&mut series, &last, 0), SeriesEntry::Counted);
        series.forget(&last);
        assert_eq!(hear(&mut series, &last, 0), SeriesEntry::New);
    }

    #[test]
    fn at_the_end_every_count_is_told() {
        let (mut series, web) = (SeriesTable::default(), identity("web", "errors", ""));
        hear(&mut series, &web, 0);
        hear(&mut series, &web, 1);
        assert_eq!(series.take_all().iter().map(|bump| bump.count).collect::<Vec<_>>(), [2]);
        assert!(series.take_all().is_empty());
    }
}
