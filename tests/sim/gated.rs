//! All of it together: replicas that share Services, each with the product's own gate on those that are its own.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kubervisor::{
    adapters::kubernetes::cluster::{Cluster, WatchScope},
    roles::gate::metrics::GateMetrics,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api_server::ApiServer,
    coordination::{self, Scenario},
    replica::{Process, Work},
    seeds, two_owners,
    worker::{self, Replica},
    world::{self, FLOOR, NAMESPACE},
};

const TEST: &str = "gated::whatever_fails_replicas_that_share_services_keep_each_above_its_floor";

const SCENARIO: Scenario = Scenario {
    services: 2,
    tick: Duration::from_millis(10),
    duration: Duration::from_secs(40),
    calm_from: Duration::from_secs(30),
    prepare: world::fill,
    beside: |server, services| drop(tokio::spawn(world::endpoints(server, services))),
    work: |process, server| -> Arc<dyn Work> { Arc::new(Gates::start(process, server)) },
    check: |server, recorder| {
        for (service, outcome) in two_owners::outcomes(server) {
            recorder.tell(&format!("{service} had {} withdrawals", outcome.withdrawals));
            if outcome.fewest < FLOOR {
                recorder.violate(format!("{service} had {} pods, floor {FLOOR}", outcome.fewest));
            }
        }
    },
};

/// The gates of one process.
struct Gates {
    replica: Arc<Replica>,
    server: ApiServer,
    member: String,
}

impl Gates {
    fn start(process: &Process, server: &ApiServer) -> Self {
        let (runtime, client) = (process.runtime.clone(), process.client());
        let scope = WatchScope::Namespaces(vec![NAMESPACE.into()]);
        let replica = Replica {
            cluster: Cluster::start(client.clone(), &scope, &runtime.alarms, &process.stop),
            metrics: runtime.metrics.with_registry(GateMetrics::register),
            limiter: Arc::default(),
            client,
            runtime,
        };
        Self { replica: Arc::new(replica), server: server.clone(), member: process.member.clone() }
    }
}

#[async_trait]
impl Work for Gates {
    async fn run(&self, service: &str, stop: &CancellationToken) {
        if stop.run_until_cancelled(self.replica.cluster.until_resources_known()).await.is_none() {
            return;
        }
        let Some(resource) = self.server.object(&world::path("kubervisorservices", service)) else { return };
        let uid = resource["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let owner = Some(self.member.clone());
        worker::work(Arc::clone(&self.replica), service.to_owned(), uid, owner, stop.clone()).await;
    }
}

#[test]
fn whatever_fails_replicas_that_share_services_keep_each_above_its_floor() {
    let Some(seed) = seeds::given() else { return seeds::sweep(TEST, seeds::count(8)) };
    coordination::report(seed, &coordination::run(seed, &SCENARIO, None));
}
