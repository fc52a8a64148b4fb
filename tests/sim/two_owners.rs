//! Two replicas that both work on the same Services: whatever the API server does, no withdrawal of ours leaves fewer
//! pods than the floor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kubervisor::{
    adapters::kubernetes::cluster::{Cluster, WatchScope},
    roles::gate::metrics::GateMetrics,
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api_server::{ApiServer, Faults},
    client,
    objects::Change,
    seeds, worker,
    world::{self, FLOOR, NAMESPACE, PODS},
};

const TEST: &str = "two_owners::whatever_the_api_server_does_two_owners_withhold_no_more_than_one_may";

/// Simulated time of one run.
const DURATION: Duration = Duration::from_secs(60);
/// When the faults end: what is left over must settle after this.
const FAULTS_END: Duration = Duration::from_secs(45);
const SERVICES: usize = 2;

/// What one run has shown of one Service: the fewest pods that served, and how often a pod was withheld.
#[derive(Debug)]
pub struct Outcome {
    pub fewest: usize,
    pub withdrawals: usize,
}

#[test]
fn whatever_the_api_server_does_two_owners_withhold_no_more_than_one_may() {
    let Some(seed) = seeds::given() else { return seeds::sweep(TEST, seeds::count(16)) };
    let mut withdrawals = 0;
    for (service, outcome) in run(seed) {
        let Outcome { fewest, withdrawals: here } = outcome;
        assert!(fewest >= FLOOR, "{service} had {fewest} pods, floor {FLOOR}");
        withdrawals += here;
    }
    assert!(withdrawals > 0, "nothing was ever withheld: the simulation shows nothing");
    println!("seed {seed}: {withdrawals} withdrawals");
}

/// Two replicas in different states of the network, for [`DURATION`].
fn run(seed: u64) -> BTreeMap<String, Outcome> {
    fastrand::seed(seed);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(5))
        .simulation_duration(DURATION * 2)
        .build();
    let server = ApiServer::new(seed);
    world::fill(&server, SERVICES);
    let (host, endpoints) = (server.clone(), server.clone());
    sim.host("api", move || {
        tokio::spawn(world::endpoints(endpoints.clone(), SERVICES));
        host.clone().serve()
    });
    for replica in ["a", "b"] {
        let server = server.clone();
        sim.client(replica, async move {
            let _time_is_over = tokio::time::timeout(DURATION, replicate(server)).await;
            Ok(())
        });
    }
    let misbehaves = Faults {
        late: Duration::from_millis(dice.u64(0..1500)),
        twice: dice.f64() * 0.3,
        unanswered: dice.f64() * 0.1,
        busy: dice.f64() * 0.2,
    };
    server.set_faults(misbehaves);
    let cut = dice.u64(5..30);
    let mut over = false;
    while !sim.step().unwrap() {
        let now = sim.elapsed();
        if now >= FAULTS_END && !over {
            over = true;
            server.set_faults(Faults::default());
            sim.repair("a", "api");
        } else if now.as_secs() == cut && now.subsec_millis() < 5 {
            // In one direction only: requests arrive, answers do not, or the other way round.
            if dice.bool() { sim.partition_oneway("api", "a") } else { sim.partition_oneway("a", "api") }
        } else if now.as_secs() == cut + 10 && now.subsec_millis() < 5 {
            sim.repair_oneway("api", "a");
            sim.repair_oneway("a", "api");
        }
    }
    outcomes(&server)
}

/// One replica that works on every Service.
async fn replicate(server: ApiServer) {
    let runtime = Runtime::start();
    let client = client::client("api", None);
    let scope = WatchScope::Namespaces(vec![NAMESPACE.into()]);
    let stop = CancellationToken::new();
    let replica = Arc::new(worker::Replica {
        cluster: Cluster::start(client.clone(), &scope, &runtime.alarms, &stop),
        metrics: runtime.metrics.with_registry(GateMetrics::register),
        limiter: Arc::default(),
        client,
        runtime,
    });
    replica.cluster.until_resources_known().await;
    let work = (0..SERVICES).map(|number| {
        let name = world::service(number);
        let resource = server.object(&world::path("kubervisorservices", &name)).unwrap();
        let uid = resource["metadata"]["uid"].as_str().unwrap().to_owned();
        worker::work(Arc::clone(&replica), name, uid, None, stop.clone())
    });
    futures::future::join_all(work).await;
}

/// Replays the stored changes of the pods.
pub fn outcomes(server: &ApiServer) -> BTreeMap<String, Outcome> {
    let mut serving: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    for Change { path, object, .. } in server.history() {
        let Some(pod) = path.strip_prefix(&world::path("pods", "")) else { continue };
        let service = pod.rsplit_once('-').unwrap().0;
        let pods = serving.entry(service.to_owned()).or_default();
        let before = pods.insert(pod.to_owned(), world::serves(&object));
        if pods.len() < PODS {
            continue;
        }
        let now = pods.values().filter(|serves| **serves).count();
        let outcome = outcomes.entry(service.to_owned()).or_insert(Outcome { fewest: now, withdrawals: 0 });
        outcome.fewest = outcome.fewest.min(now);
        outcome.withdrawals += usize::from(before == Some(true) && !world::serves(&object));
    }
    outcomes
}
