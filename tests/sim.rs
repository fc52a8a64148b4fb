//! Several replicas on a simulated network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test binary")]

#[path = "sim/api_server.rs"]
mod api_server;
#[path = "sim/client.rs"]
mod client;
#[path = "sim/worker.rs"]
mod worker;
#[path = "sim/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use kubervisor::{
    adapters::kubernetes::cluster::{Cluster, WatchScope},
    roles::gate::metrics::GateMetrics,
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

#[test]
fn one_replica_withholds() {
    let mut sim = turmoil::Builder::new()
        .rng_seed(1)
        .tick_duration(Duration::from_millis(5))
        .simulation_duration(Duration::from_secs(120))
        .build();
    let server = api_server::ApiServer::new(1);
    world::fill(&server, 1);
    let (host, endpoints) = (server.clone(), server.clone());
    sim.host("api", move || {
        tokio::spawn(world::endpoints(endpoints.clone(), 1));
        host.clone().serve()
    });
    let seen = server.clone();
    sim.client("a", async move {
        let runtime = Runtime::start();
        let client = client::client("api");
        let scope = WatchScope::Namespaces(vec![world::NAMESPACE.into()]);
        let stop = CancellationToken::new();
        let replica = Arc::new(worker::Replica {
            cluster: Cluster::start(client.clone(), &scope, &runtime.alarms, &stop),
            metrics: runtime.metrics.with_registry(GateMetrics::register),
            limiter: Arc::default(),
            client,
            runtime,
        });
        replica.cluster.until_resources_known().await;
        let uid = seen.object(&world::path("kubervisorservices", "web-0")).unwrap()["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned();
        let _ =
            tokio::time::timeout(Duration::from_secs(100), worker::work(replica, "web-0".into(), uid, stop))
                .await;
        Ok(())
    });
    let begun = std::time::Instant::now();
    sim.run().unwrap();
    println!("took {:?}", begun.elapsed());
    for (at, path, object) in server.history() {
        if path.contains("/pods/") {
            println!("{at:?} {path} {}", object["metadata"]["labels"]["kubervisor/traffic"]);
        }
    }
}
