//! The work on one Service: the product's own gate loop over labels, with verdicts that the simulation gives.

use std::sync::Arc;

use kubervisor::{
    adapters::{
        kubernetes::cluster::Cluster,
        sink::labels::{LabelSettings, LabelSink, TeardownMode, WriteLimiter},
    },
    api::{self, Context, Detectors},
    decide::{
        policy::Policy,
        verdict::{Judgement, Opinion, Source, SourceKind},
    },
    roles::gate::{
        metrics::GateMetrics,
        reconciler::{GateReconciler, GateReconcilerDeps},
        reporter::NoReporter,
    },
    runtime::Runtime,
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::world::{NAMESPACE, PODS, spec};

/// What the workers of one replica share.
pub struct Replica {
    pub runtime: Runtime,
    pub client: kube::Client,
    pub cluster: Cluster,
    pub limiter: Arc<WriteLimiter>,
    pub metrics: GateMetrics,
}

/// Works on the Service `name`, whose resource has this UID, until `stop`, or until another replica has claimed it.
///
/// `owner`: this replica, where several share the Services.
pub async fn work(
    replica: Arc<Replica>,
    name: String,
    uid: String,
    owner: Option<String>,
    stop: CancellationToken,
) {
    let manifest = json!({"apiVersion": api::API_VERSION, "kind": api::KIND, "spec": spec(&name),
        "metadata": {"name": name, "namespace": NAMESPACE}});
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    let policy: Policy = api::from_value(&name, manifest, context).unwrap().policy;
    let settings = LabelSettings {
        namespace: NAMESPACE.to_owned(),
        name: name.clone(),
        uid,
        owner,
        requests_checked: false,
    };
    let policy = watch::Sender::new(Arc::new(policy));
    let reconciler = GateReconciler::new(GateReconcilerDeps {
        namespace: NAMESPACE.to_owned(),
        name: name.clone(),
        policy: policy.subscribe(),
        dry_run: false,
        clock: replica.runtime.clock,
        alarms: replica.runtime.alarms.of(&name),
        metrics: replica.metrics.clone(),
        reporter: Box::new(NoReporter),
    });
    let mode = watch::Sender::new(TeardownMode::default());
    let (client, limiter) = (replica.client.clone(), Arc::clone(&replica.limiter));
    let mut sink = LabelSink::new(client, limiter, replica.cluster.clone(), settings, mode.subscribe());
    let changes = watch::Sender::new(0);
    let wake = async {
        let mut seen = replica.cluster.changes();
        while seen.recv().await.is_ok() {
            changes.send_modify(|count| *count += 1);
        }
    };
    let judge = async {
        loop {
            reconciler.set_breaker_verdicts(verdicts(&replica, &name));
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = reconciler.run(&mut sink, changes.subscribe(), &stop) => {}
        () = judge => {}
        () = wake => {}
    }
    reconciler.stop_leading();
}

/// The verdicts of this moment, the same for every replica: four of six pods are bad for 20 s, then another four.
fn verdicts(replica: &Replica, name: &str) -> Source {
    let turn = turmoil::sim_elapsed().unwrap_or_default().as_secs() as usize / 20;
    let is_bad = |pod: &str| (0..4).any(|at| pod == format!("{name}-{}", (turn + at) % PODS));
    let pods = replica.cluster.pods_named(NAMESPACE, name);
    let opinions = pods.iter().map(|pod| {
        let bad = Judgement::Bad { severity: 1.0, evidence: Box::default() };
        (pod.uid.clone(), Opinion::Judged(if is_bad(&pod.name) { bad } else { Judgement::Good }))
    });
    Source::new("errors", SourceKind::Breaker, replica.runtime.clock.wall(), opinions.collect())
}
