//! When an alarm is raised within a reconcile.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use kubervisor::{
    adapters::sink::{ListingFindings, Observed, Reservation, SinkError, TrafficSink},
    alarms::Alarms,
    api::requests::PersonRequests,
    clock::Clock,
    decide::{
        alarm_reason::AlarmReason,
        fleet::Traffic,
        gate::{Plan, action::Action, ledger::ActionOutcome},
        policy::Policy,
        time::Timestamp,
    },
    roles::gate::{
        metrics::GateMetrics,
        reconciler::{GateReconciler, GateReconcilerDeps},
        reporter::NoReporter,
    },
};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::{Sink, World, ratio};

/// Stops the reconciler when it stores its first plan, and keeps the alarms that are up by then.
struct FirstReservation {
    world: World,
    alarms: Alarms,
    stop: CancellationToken,
    up: Option<Vec<AlarmReason>>,
}

#[async_trait]
impl TrafficSink for FirstReservation {
    async fn observe(&mut self, now: Timestamp, _: &Policy) -> Result<Observed, SinkError> {
        self.world.now = now;
        Ok(Observed {
            fleet: self.world.fleet(),
            ledger: self.world.ledger.clone(),
            details: BTreeMap::new(),
            look_again: None,
            stand_aside: None,
            hindrance: None,
            listing: ListingFindings::default(),
            requests: PersonRequests::default(),
        })
    }

    async fn reserve(&mut self, _: Option<&Plan>, _: &Value) -> Result<Reservation, SinkError> {
        self.up.get_or_insert_with(|| self.alarms.up().into_iter().map(|alarm| alarm.reason).collect());
        self.stop.cancel();
        Ok(Reservation::Stored)
    }

    async fn send(&mut self, actions: &[Action]) -> Vec<ActionOutcome> {
        vec![ActionOutcome::Landed; actions.len()]
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_up_before_the_report_of_its_plan_is_stored() {
    let clock = Clock::start();
    let alarms = Alarms::new(clock);
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.settle();
    world.pod("p0").traffic = Traffic::No;
    let (_policies, policy) = watch::channel(Arc::new(ratio(50)));
    let reconciler = GateReconciler::new(GateReconcilerDeps {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        policy,
        dry_run: false,
        clock,
        alarms: alarms.clone(),
        metrics: GateMetrics::register(&mut Registry::default()),
        reporter: Box::new(NoReporter),
    });
    let stop = CancellationToken::new();
    let (_changes, changed) = watch::channel(0);
    let mut sink = FirstReservation { world, alarms, stop: stop.clone(), up: None };
    reconciler.run(&mut sink, changed, &stop).await;
    assert_eq!(sink.up, Some(vec![AlarmReason::ForeignNo]));
}
