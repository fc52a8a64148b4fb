//! What an operator sees of refused keepalives: a count, a line in the log once a minute for each reason and peer, and an
//! alarm until none has been refused for some time.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    adapters::wire::{Refusal, RefusalKind},
    alarms::Alarms,
    clock::Clock,
    decide::{alarm_reason::AlarmReason, ensemble::Rejection, keepalive::Keepalive, time::Moment},
    roles::master::metrics::IngestMetrics,
};

/// Between two lines about the same reason and peer.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Peers that are remembered for that, at most.
const REMEMBERED: usize = 1024;

/// Keepalives that this master did not take.
pub(super) struct Refusals {
    clock: Clock,
    alarms: Alarms,
    metrics: IngestMetrics,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The last refusal for each alarm.
    last: HashMap<AlarmReason, Moment>,
    /// When a reason and peer was last logged.
    logged: HashMap<(&'static str, IpAddr), Moment>,
}

impl Refusals {
    pub(super) fn new(clock: Clock, alarms: Alarms, metrics: IngestMetrics) -> Self {
        Self { clock, alarms, metrics, seen: Mutex::default() }
    }

    /// The answer to the keepalive `raw` of `peer`.
    pub(super) fn refuse(&self, rejection: &Rejection, peer: SocketAddr, raw: &[u8]) -> Refusal {
        let category = rejection.category();
        self.metrics.refused.of(category).inc();
        let kind = match rejection {
            Rejection::KeyTaken { .. } | Rejection::IdMoved { .. } => {
                self.tell(AlarmReason::KeyCollision, category, peer, rejection.to_string());
                RefusalKind::Conflict
            }
            // The late keepalive of a process that has ended is no mistake.
            Rejection::Stale { .. } | Rejection::SaidDown { .. } => RefusalKind::Conflict,
            _ => {
                let id = Keepalive::parse(raw).ok().map(|keepalive| format!("{:?}, ", keepalive.id()));
                let (pod, sender) = (id.unwrap_or_default(), peer.ip());
                let why = format!("a keepalive ({pod}sent by {sender}) is refused: {category}: {rejection}");
                self.tell(AlarmReason::KeepaliveRefused, category, peer, why);
                match rejection {
                    Rejection::ForgedAddress { .. } => RefusalKind::Forbidden,
                    Rejection::Full { .. } => RefusalKind::TooMuch,
                    _ => RefusalKind::Malformed,
                }
            }
        };
        Refusal { kind, message: rejection.to_string() }
    }

    fn tell(&self, alarm: AlarmReason, category: &'static str, peer: SocketAddr, why: String) {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        seen.last.insert(alarm, now);
        let place = (category, peer.ip());
        if seen.logged.get(&place).is_none_or(|at| now.since(*at) >= LOG_INTERVAL) {
            if seen.logged.len() >= REMEMBERED {
                seen.logged.clear();
            }
            seen.logged.insert(place, now);
            tracing::warn!("{why}");
        }
        self.alarms.raise(alarm, why);
    }

    /// Clears the alarms after `quiet` without another such refusal.
    pub(super) fn clear_old(&self, quiet: Duration) {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        seen.last.retain(|alarm, at| {
            let stays = now.since(*at) <= quiet;
            if !stays {
                self.alarms.clear(*alarm);
            }
            stays
        });
    }
}
