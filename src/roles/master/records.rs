//! A copy of all the ensemble's records, made in one go: keepalives wait for nothing but the copying, and
//! whoever wants to know what is in them reads it afterwards.

use std::time::Duration;

use super::desk::Desk;
use crate::decide::ensemble::{Status, Unread};

/// The records as they were at one moment.
pub(super) struct Records {
    texts: Vec<u8>,
    /// Where each text ends, and what is known of its pod.
    rows: Vec<Row>,
}

struct Row {
    end: usize,
    status: Status,
    age: Duration,
    heard: bool,
}

impl Records {
    /// Those of the desk's ensemble, if we lead.
    pub(super) fn copy(desk: &Desk) -> Option<Self> {
        desk.with_ensemble(|ensemble, now| {
            let mut texts = Vec::new();
            let copy = |Unread { text, status, age, heard }: Unread<'_>| {
                texts.extend_from_slice(text);
                Row { end: texts.len(), status, age, heard }
            };
            let rows = ensemble.records(now).map(copy).collect();
            Self { texts, rows }
        })
    }

    /// All of them, unread.
    pub(super) fn iter(&self) -> impl Iterator<Item = Unread<'_>> {
        let mut start = 0;
        self.rows.iter().map(move |row| {
            let text = self.texts.get(start..row.end).unwrap_or_default();
            start = row.end;
            Unread { text, status: row.status, age: row.age, heard: row.heard }
        })
    }
}
