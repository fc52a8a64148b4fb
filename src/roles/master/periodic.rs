//! What a master does every second without its store: forwards what is pending, and raises and clears the alarms about
//! pods.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use super::context::Shared;
use crate::decide::{
    alarm_reason::AlarmReason,
    ensemble::{Ensemble, OddPod, SlowPods},
};

/// Interval of the periodic work, and of reading the members again after an error.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

/// Periodic work that needs no store.
pub(super) async fn run_periodic_work(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        shared.ingest.forward_pending();
        shared.ingest.clear_old_refusals(shared.settings.ttl);
        let slow = shared.ingest.with_ensemble(Ensemble::slow_pods).flatten();
        let slow = slow.map(|slow| slow_pods(&slow, shared.settings.ttl));
        shared.alarms.set(AlarmReason::SlowKeepalives, slow.is_some(), || slow.unwrap_or_default());
        let odd = shared.ingest.with_ensemble(|ensemble, _| {
            ensemble.odd_pods().map(|(pod, count)| odd_payload(pod, count.saturating_sub(1)))
        });
        let odd = odd.flatten();
        shared.alarms.set(AlarmReason::OddPayload, odd.is_some(), || odd.unwrap_or_default());
    }
}

fn odd_payload(pod: &OddPod, others: usize) -> String {
    let others = if others > 0 { format!(" ({others} more pods have such values)") } else { String::new() };
    format!(
        "the keepalive of pod {:?} has {:?} at {:?}, which is no JSON value that every reader takes: \
         its payload counts as no data; write a finite number or null{others}",
        pod.id, pod.odd.text, pod.odd.place,
    )
}

fn slow_pods(slow: &SlowPods, ttl: Duration) -> String {
    let others = match slow.others {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    format!(
        "pod {}{others} keeps expiring and coming back: it pings every ~{:.0} s, the TTL is {} s: \
         raise KONTROL_TTL here or lower it there",
        slow.id,
        slow.interval.as_secs_f64(),
        ttl.as_secs_f64(),
    )
}
