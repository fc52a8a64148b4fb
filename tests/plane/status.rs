//! The status is stored unchanged by a real API server, and `kubectl wait` can wait for its conditions.

use std::collections::BTreeMap;

use axum::http::{Request, header::CONTENT_TYPE};
use kube::Client;
use kubervisor::{
    adapters::sink::{Hindrance, ListingFinding, ListingFindings},
    decide::{
        alarm_reason::AlarmReason,
        fleet::{Epoch, Fence, Fleet, PodView, Traffic},
        gate::{self, fleet_alarms::FleetAlarm, ledger::Ledger},
        policy::Policy,
        time::Timestamp,
        verdict::Verdicts,
    },
    roles::{
        controller::conditions::{Facts, ResourceProblem, ServiceState, changed, status},
        gate::snapshot::GateSnapshot,
    },
};
use serde_json::Value;

use crate::{
    definition::install,
    plane::{self, Plane, User},
};

const RESOURCE: &str = "apiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata: {name: web}\n\
    spec: {service: web, breakers: [{name: silent, keepalive: {silentAfter: 9}}]}\n";

const IN_STEP: ListingFindings = ListingFindings { not_listed: None, not_leaving: None };

/// A fleet of which one pod is withheld by another client.
fn snapshot() -> GateSnapshot {
    let (epoch, serial) = (Epoch(1), 1);
    let mut pods: Vec<_> = (1..=3)
        .map(|pod| PodView::serving(format!("uid-{pod}"), format!("web-{pod}"), Fence { epoch, serial }))
        .collect();
    pods[0].traffic = Traffic::No;
    let now = Timestamp::from_unix_millis(1_700_000_000_789);
    let (ledger, verdicts) = (Ledger::begin("uid", epoch), Verdicts { evaluation: 0, sources: Vec::new() });
    let policy = Policy::without_manifest("web");
    let plan = gate::plan(now, &policy, &Fleet::new(3, pods), &ledger, &verdicts);
    let mut snapshot = GateSnapshot { panic: true, ..GateSnapshot::default() };
    snapshot.floor.budget = plan.budget;
    snapshot.plan = Some(plan);
    snapshot
}

fn facts<'a>(snapshot: &'a GateSnapshot, none: &'a BTreeMap<String, String>) -> Facts<'a> {
    Facts {
        service_name: "web",
        generation: 1,
        previous: None,
        now: Timestamp::from_unix_millis(1_700_000_000_789),
        started: Timestamp::from_unix_millis(1_700_000_000_123),
        problem: None,
        service: ServiceState::Gated,
        snapshot: Some(snapshot),
        dry_run: false,
        paused: false,
        panic_threshold: None,
        overlap: None,
        ledger: None,
        template_unlabelled: false,
        failures: none,
        listing: &IN_STEP,
        rbac: None,
        selector: none,
        notified: none,
    }
}

/// Replaces the status with the controller's rights; returns the stored one.
async fn replaced(plane: &Plane, client: &Client, namespace: &str, status: &Value) -> Value {
    let got = plane.kubectl(User::Admin, &["get", "kvs", "web", "-n", namespace, "-o", "json"], "");
    let mut resource: Value = serde_json::from_slice(&got.stdout).unwrap();
    resource["status"] = status.clone();
    let path =
        format!("/apis/kubervisor.k8s.io/v1alpha1/namespaces/{namespace}/kubervisorservices/web/status");
    let request = Request::put(path).header(CONTENT_TYPE, "application/json");
    let request = request.body(serde_json::to_vec(&resource).unwrap()).unwrap();
    client.request::<Value>(request).await.unwrap()["status"].take()
}

#[tokio::test]
async fn a_status_is_stored_as_it_was_made_and_can_be_waited_for() {
    let plane = plane::shared().await;
    install(&plane);
    let admin = plane.client(User::Admin).await;
    let client = plane.client(User::Kubervisor).await;
    let namespace = plane.namespace(&admin, "status").await;
    let applied = plane.kubectl(User::Admin, &["apply", "-n", &namespace, "-f", "-"], RESOURCE);
    assert!(applied.status.success(), "{applied:?}");
    let (snapshot, none) = (snapshot(), BTreeMap::new());
    let well = status(&facts(&snapshot, &none));
    let stored = replaced(&plane, &client, &namespace, &well).await;
    assert_eq!(stored, well);
    let wait = ["wait", "--for=condition=Ready", "kvs/web", "--timeout=10s", "-n", &namespace];
    let waited = plane.kubectl(User::Admin, &wait, "");
    assert!(waited.status.success(), "{waited:?}");
    // Every condition at its worst.
    let (failures, selector) = (
        BTreeMap::from([("errors".to_owned(), "no answer".repeat(1000))]),
        BTreeMap::from([("app".to_owned(), "web".to_owned())]),
    );
    let finding = ListingFinding { reason: "SlicesStandStill", message: "web-2".to_owned() };
    let listing = ListingFindings { not_listed: Some(finding.clone()), not_leaving: Some(finding) };
    let mut degraded = snapshot.clone();
    let alarms =
        [AlarmReason::LedgerFull, AlarmReason::NotListed, AlarmReason::OddSwitch, AlarmReason::BelowFloor];
    let alarms = alarms.map(|reason| FleetAlarm { reason, message: "web-1".repeat(2000) });
    degraded.plan.as_mut().unwrap().alarms.extend(alarms);
    let ill = Facts {
        previous: Some(&stored),
        problem: Some(ResourceProblem::InvalidSpec("breakers: none".to_owned())),
        service: ServiceState::Gated,
        dry_run: true,
        overlap: Some("KubervisorService other".to_owned()),
        ledger: Some(&Hindrance::LedgerNotStored),
        template_unlabelled: true,
        failures: &failures,
        listing: &listing,
        rbac: Some("patch pods".to_owned()),
        selector: &selector,
        ..facts(&degraded, &none)
    };
    let ill = status(&ill);
    assert!(changed(&stored, &ill));
    assert_eq!(ill["conditions"].as_array().unwrap().len(), 20, "every condition");
    assert_eq!(replaced(&plane, &client, &namespace, &ill).await, ill);
}
