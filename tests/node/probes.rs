//! The probes of the controller's pods, as the kubelet sees them.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::{client, plane, processes, until},
    release,
};

/// A replica of the controller.
struct Replica {
    name: String,
    uid: String,
    address: String,
    restarts: i32,
    ready: bool,
}

async fn replicas(client: &Client) -> Vec<Replica> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), release::NAMESPACE);
    let of = ListParams::default().labels("app.kubernetes.io/component=controller");
    let pods = pods.list(&of).await.unwrap().into_iter();
    pods.filter_map(|pod| {
        let status = pod.status?;
        let container = status.container_statuses?.into_iter().next()?;
        Some(Replica {
            name: pod.metadata.name?,
            uid: pod.metadata.uid?,
            address: status.pod_ip?,
            restarts: container.restart_count,
            ready: container.ready,
        })
    })
    .collect()
}

impl Replica {
    async fn find(client: &Client, name: &str) -> Option<Self> {
        replicas(client).await.into_iter().find(|replica| replica.name == name)
    }

    /// The answer's status, or nothing when nobody listens.
    async fn probe(&self, path: &str) -> Option<u16> {
        let url = format!("http://{}:8086{path}", self.address);
        let asked = reqwest::Client::new().get(url).timeout(Duration::from_secs(5)).send().await;
        asked.ok().map(|answer| answer.status().as_u16())
    }

    fn process(&self) -> Option<Pid> {
        processes(&self.uid, "kubervisor").first().map(|pid| Pid::from_raw(i32::try_from(*pid).unwrap()))
    }
}

pub(crate) async fn a_controller_is_alive_and_not_ready_while_the_api_server_is_away() {
    release::installed();
    let client = client().await;
    let replica = replicas(&client).await.remove(0);
    plane("kill kube-apiserver");
    until("the API server is gone", || async { client.apiserver_version().await.is_err().then_some(()) })
        .await;
    // Longer than it takes until the liveness probe fails for good, were it wrong: 3 times in 30 s.
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(8) {
        assert_eq!(replica.probe("/live").await, Some(200), "alive without an API server");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // One that begins now has no caches: the kubelet starts it again without the API server.
    let old = replica.process().unwrap();
    kill(old, Signal::SIGKILL).unwrap();
    until("it has been started again and serves", || async {
        let begun = replica.process().is_some_and(|pid| pid != old);
        (begun && replica.probe("/live").await == Some(200)).then_some(())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(replica.probe("/ready").await, Some(503), "not ready before its caches are in sync");
        assert_eq!(replica.probe("/live").await, Some(200), "alive all the time");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    plane("start kube-apiserver");
    until("it is ready", || async { (replica.probe("/ready").await == Some(200)).then_some(()) }).await;
    until("the kubelet says so", || async {
        let now = Replica::find(&client, &replica.name).await?;
        (now.ready && now.restarts == replica.restarts + 1).then_some(())
    })
    .await;
}

/// SIGSTOP blocks the whole runtime at once, as a deadlock of all its threads would.
pub(crate) async fn a_controller_that_is_stuck_is_restarted() {
    release::installed();
    // Sooner than the chart's 30 s of failures and 30 s of grace.
    let soon = [
        "livenessProbe.periodSeconds=1",
        "livenessProbe.timeoutSeconds=1",
        "terminationGracePeriodSeconds=2",
    ];
    release::deploy("upgrade", &soon);
    let client = client().await;
    let replica = replicas(&client).await.into_iter().find(|replica| replica.ready).unwrap();
    kill(replica.process().unwrap(), Signal::SIGSTOP).unwrap();
    until("the kubelet has restarted it", || async {
        let now = Replica::find(&client, &replica.name).await?;
        (now.ready && now.restarts == replica.restarts + 1).then_some(())
    })
    .await;
    release::deploy("upgrade", &[]);
}
