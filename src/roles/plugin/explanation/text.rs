//! An explanation for a terminal: one fact a line, missing ones left out.

use std::fmt;

use super::{NextChange, PodExplanation, ShownEvent};

/// Where the facts begin.
pub(super) const COLUMN: usize = 10;

impl fmt::Display for PodExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pod = format!("{}/{}", self.namespace, self.pod);
        let service = self.kubervisor_service.as_ref().map(|name| match &self.status {
            Some(status) => format!("{name} ({status})"),
            None => name.clone(),
        });
        let next = self.next.as_ref().map(ToString::to_string);
        let facts = [
            ("pod", Some(&pod)),
            ("service", service.as_ref()),
            ("traffic", self.traffic.as_ref()),
            ("standing", Some(&self.standing)),
            ("decision", self.decision.as_ref()),
            ("breaker", self.breaker.as_ref()),
            ("why", self.why.as_ref()),
            ("since", self.since.as_ref()),
            ("admitted", self.admitted_at.as_ref()),
            ("retries", self.retry_count.as_ref()),
            ("floor", self.floor.as_ref()),
            ("notified", self.notified.as_ref()),
            ("next", next.as_ref()),
        ];
        for (name, fact) in facts {
            if let Some(fact) = fact {
                writeln!(f, "{name:<COLUMN$}{fact}")?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{:<COLUMN$}{note}", "note"))?;
        if !self.events.is_empty() {
            writeln!(f, "events")?;
        }
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

impl fmt::Display for NextChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        self.at.iter().try_for_each(|at| write!(f, " at {at}"))
    }
}

impl fmt::Display for ShownEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, reason, message, count } = self;
        write!(f, "{}  {reason}  {message}", at.as_deref().unwrap_or("some time"))?;
        if *count > 1 { write!(f, " (x{count})") } else { Ok(()) }
    }
}
