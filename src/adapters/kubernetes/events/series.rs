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
/// Series that are remembered; the oldest is forgotten for a new one.
const MOST: usize = 4096;

/// What two Events of one series have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    about: String,
    related: String,
    reason: &'static str,
    rule: String,
}

impl Identity {
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
pub(super) struct Bump {
    pub(super) identity: Identity,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) count: i32,
    pub(super) last: Timestamp,
}

/// What an Event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The first of its kind: to be created.
    New,
    /// One more of a series, to be told later.
    Counted,
    /// One more of a series, to be told now.
    Bump(Bump),
}

struct Series {
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
pub(super) struct Book {
    series: BTreeMap<Identity, Series>,
    /// In order of their creation.
    order: VecDeque<Identity>,
}

impl Book {
    /// One more; [`Book::created`] follows when it was [`Heard::New`] and is stored.
    pub(super) fn hear(&mut self, identity: &Identity, now: Moment, wall: Timestamp) -> Heard {
        let Some(series) = self.series.get_mut(identity) else { return Heard::New };
        if now.since(series.heard_at) > GAP {
            self.forget(identity);
            return Heard::New;
        }
        series.count = series.count.saturating_add(1);
        (series.last, series.heard_at, series.untold) = (wall, now, true);
        if now.since(series.told_at) < PACE {
            return Heard::Counted;
        }
        Heard::Bump(series.tell(identity, now))
    }

    /// The first of a series is stored under that name.
    pub(super) fn created(
        &mut self,
        identity: Identity,
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
            Series { namespace, name, count: 1, last: wall, heard_at: now, told_at: now, untold: false };
        self.series.insert(identity, series);
    }

    /// The next one begins anew.
    pub(super) fn forget(&mut self, identity: &Identity) {
        if self.series.remove(identity).is_some() {
            self.order.retain(|known| known != identity);
        }
    }

    /// When the next count is to be told.
    pub(super) fn due(&self) -> Option<Moment> {
        self.series.values().filter(|series| series.untold).map(|series| series.told_at + PACE).min()
    }

    /// The counts that are to be told by now.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<Bump> {
        let due = |series: &Series| series.untold && now.since(series.told_at) >= PACE;
        let due = self.series.iter_mut().filter(|(_, series)| due(series));
        due.map(|(identity, series)| series.tell(identity, now)).collect()
    }

    /// Every count that is not told yet, for the end.
    pub(super) fn take_all(&mut self) -> Vec<Bump> {
        let untold = self.series.iter_mut().filter(|(_, series)| series.untold);
        untold.map(|(identity, series)| series.tell(identity, series.heard_at)).collect()
    }
}

impl Series {
    fn tell(&mut self, identity: &Identity, now: Moment) -> Bump {
        (self.told_at, self.untold) = (now, false);
        Bump {
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

    fn identity(pod: &str, rule: &str, note: &str) -> Identity {
        let about = ObjectRef { name: pod.into(), ..ObjectRef::default() };
        let (rule, note) = (rule.to_owned(), note.to_owned());
        let (kind, reason, action) = (EventKind::Normal, "Withheld", "Withhold");
        Identity::of(&Event { about, related: None, kind, reason, action, rule, note })
    }

    fn at(seconds: u64) -> (Moment, Timestamp) {
        let wall = Timestamp::from_unix_millis(1000 * i64::try_from(seconds).unwrap());
        (Moment::after_origin(Duration::from_secs(seconds)), wall)
    }

    fn hear(book: &mut Book, identity: &Identity, second: u64) -> Heard {
        let (now, wall) = at(second);
        let heard = book.hear(identity, now, wall);
        if heard == Heard::New {
            book.created(identity.clone(), "shop".into(), "web.1".into(), now, wall);
        }
        heard
    }

    #[test]
    fn equal_events_are_counted_and_told_every_half_minute() {
        let (mut book, web) = (Book::default(), identity("web", "errors", "3 of 4"));
        assert_eq!(hear(&mut book, &web, 0), Heard::New);
        assert_eq!(book.due(), None);
        for second in 1..30 {
            assert_eq!(hear(&mut book, &web, second), Heard::Counted);
        }
        assert_eq!(book.due(), Some(at(30).0));
        assert!(book.take_due(at(29).0).is_empty());
        let [bump] = &book.take_due(at(30).0)[..] else { panic!("one series") };
        assert_eq!((bump.count, bump.last, bump.name.as_str()), (30, at(29).1, "web.1"));
        assert_eq!(book.due(), None, "told");
        let Heard::Bump(bump) = hear(&mut book, &web, 70) else { panic!("told at once") };
        assert_eq!(bump.count, 31);
        assert!(book.take_all().is_empty());
    }

    #[test]
    fn after_ten_quiet_minutes_a_series_begins_anew() {
        let (mut book, web) = (Book::default(), identity("web", "errors", ""));
        assert_eq!(hear(&mut book, &web, 0), Heard::New);
        assert!(matches!(hear(&mut book, &web, 600), Heard::Bump(_)));
        assert_eq!(hear(&mut book, &web, 1201), Heard::New);
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
        let mut book = Book::default();
        for pod in 0..=MOST {
            assert_eq!(hear(&mut book, &identity(&pod.to_string(), "errors", ""), 0), Heard::New);
        }
        assert_eq!((book.series.len(), book.order.len()), (MOST, MOST));
        assert_eq!(hear(&mut book, &identity("0", "errors", ""), 0), Heard::New);
        let last = identity(&MOST.to_string(), "errors", "");
        assert_eq!(hear(&mut book, &last, 0), Heard::Counted);
        book.forget(&last);
        assert_eq!(hear(&mut book, &last, 0), Heard::New);
    }

    #[test]
    fn at_the_end_every_count_is_told() {
        let (mut book, web) = (Book::default(), identity("web", "errors", ""));
        hear(&mut book, &web, 0);
        hear(&mut book, &web, 1);
        assert_eq!(book.take_all().iter().map(|bump| bump.count).collect::<Vec<_>>(), [2]);
        assert!(book.take_all().is_empty());
    }
}
