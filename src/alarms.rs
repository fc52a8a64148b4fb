//! Alarms: conditions that need an operator. Each is a gauge, a log event and an entry in a bounded history.
//!
//! Raising an alarm that is up replaces its text; only a change between up and down is logged and recorded.
//! The history keeps the newest [`HISTORY`] changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    decide::{alarm_reason::AlarmReason, time::Timestamp},
};

/// Changes that are kept.
pub const HISTORY: usize = 100;

/// One change of one alarm.
#[derive(Clone, Debug, Serialize)]
pub struct AlarmChange {
    /// When, wall clock.
    pub at: Timestamp,
    /// Which alarm.
    pub reason: AlarmReason,
    /// The service (`namespace/name`); empty for the process or its only fleet.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub of: Arc<str>,
    /// Up, or cleared.
    pub up: bool,
    /// What is wrong, where, and what to do.
    pub message: String,
}

#[derive(Debug, Default)]
struct AlarmTable {
    up: BTreeMap<(AlarmReason, Arc<str>), AlarmChange>,
    history: VecDeque<AlarmChange>,
}

/// The process's alarms; clones share one table.
#[derive(Clone, Debug)]
pub struct Alarms {
    clock: Clock,
    of: Arc<str>,
    table: Arc<Mutex<AlarmTable>>,
    fatal: watch::Sender<Option<String>>,
}

impl Alarms {
    /// An empty table.
    pub fn new(clock: Clock) -> Self {
        Self { clock, of: "".into(), table: Arc::default(), fatal: watch::Sender::new(None) }
    }

    /// The clock of this process.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The alarms of one service (`namespace/name`), in the same table.
    pub fn of(&self, what: &str) -> Self {
        Self { of: what.into(), ..self.clone() }
    }

    /// Raises the alarm, or replaces its text.
    pub fn raise(&self, reason: AlarmReason, message: impl Into<String>) {
        let of = Arc::clone(&self.of);
        let change = AlarmChange { at: self.clock.wall(), reason, of, up: true, message: message.into() };
        if reason == AlarmReason::TaskEnded && self.of.is_empty() {
            self.fatal.send_replace(Some(change.message.clone()));
        }
        let mut table = self.table.lock();
        if table.up.insert((reason, Arc::clone(&self.of)), change.clone()).is_none() {
            tracing::warn!(alarm = reason.as_str(), of = &*self.of, "{}", change.message);
            table.record(change);
        }
    }

    /// Clears the alarm, if it is up.
    pub fn clear(&self, reason: AlarmReason) {
        let mut table = self.table.lock();
        if let Some(was) = table.up.remove(&(reason, Arc::clone(&self.of))) {
            tracing::info!(alarm = reason.as_str(), of = &*self.of, "over: {}", was.message);
            table.record(AlarmChange { at: self.clock.wall(), up: false, ..was });
        }
    }

    /// Raises or clears by condition.
    pub fn set(&self, reason: AlarmReason, up: bool, message: impl FnOnce() -> String) {
        if up { self.raise(reason, message()) } else { self.clear(reason) }
    }

    /// Waits for an alarm that ends the process: [`AlarmReason::TaskEnded`] of the process itself. Returns its text.
    pub async fn fatal(&self) -> String {
        let mut raised = self.fatal.subscribe();
        match raised.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender is this handle's.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// # Errors
    /// The text of the first [`AlarmReason::TaskEnded`]: the process is not ready.
    pub fn all_tasks_run(&self) -> Result<(), String> {
        let up = self.up();
        let ended = up.iter().find(|alarm| alarm.reason == AlarmReason::TaskEnded);
        ended.map_or(Ok(()), |alarm| Err(alarm.message.clone()))
    }

    /// The alarms that are up.
    pub fn up(&self) -> Vec<AlarmChange> {
        self.table.lock().up.values().cloned().collect()
    }

    /// The newest changes, oldest first.
    pub fn history(&self) -> Vec<AlarmChange> {
        self.table.lock().history.iter().cloned().collect()
    }
}

impl AlarmTable {
    fn record(&mut self, change: AlarmChange) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_alarm_of_two_services_is_two_alarms() {
        let alarms = Alarms::new(Clock::start());
        let (web, shop) = (alarms.of("default/web"), alarms.of("default/shop"));
        web.raise(AlarmReason::Panic, "web");
        shop.raise(AlarmReason::Panic, "shop");
        web.clear(AlarmReason::Panic);
        assert_eq!(alarms.up().iter().map(|change| &*change.of).collect::<Vec<_>>(), ["default/shop"]);
        assert_eq!(alarms.history().len(), 3);
    }

    #[test]
    fn an_alarm_is_recorded_when_it_changes_and_the_history_is_bounded() {
        let alarms = Alarms::new(Clock::start());
        alarms.raise(AlarmReason::StoreAway, "away");
        alarms.raise(AlarmReason::StoreAway, "still away");
        assert_eq!(alarms.up().len(), 1);
        assert_eq!(alarms.up()[0].message, "still away");
        assert_eq!(alarms.history().len(), 1);
        alarms.clear(AlarmReason::StoreAway);
        alarms.clear(AlarmReason::StoreAway);
        assert!(alarms.up().is_empty());
        for _ in 0..HISTORY {
            alarms.raise(AlarmReason::KeyCollision, "x");
            alarms.clear(AlarmReason::KeyCollision);
        }
        assert_eq!(alarms.history().len(), HISTORY);
    }
}
