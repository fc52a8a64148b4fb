//! Names with two addresses, one of a machine that takes connections and never answers.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router};
use serde_json::json;

use crate::{
    etcd::Etcd,
    stage::{Stage, until},
};

/// A custom service on this host that finds nobody bad, and how often it was asked.
async fn service() -> (u16, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let answer = move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        Json(json!({"kind": "PodList", "apiVersion": "v1", "items": []}))
    };
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    (port, asked)
}

#[tokio::test]
async fn an_etcd_and_a_breakers_source_are_reached_past_a_frozen_machine_of_the_same_name() {
    let allowed = std::process::Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return eprintln!("unshare is not allowed: a name of several addresses is not tested here");
    }
    for frozen_first in [true, false] {
        let (stage, etcd, (port, asked)) = (Stage::new(), Etcd::start().await, service().await);
        let etcd_port: u16 = etcd.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
        let frozen = stage.ip(9);
        // The kernel takes connections for them, and nobody answers.
        let _mute = [etcd_port, port].map(|port| TcpListener::bind((frozen, port)).unwrap());
        let mut addresses = [frozen, Ipv4Addr::LOCALHOST];
        if !frozen_first {
            addresses.reverse();
        }
        let hosts: String = addresses.iter().map(|address| format!("{address} neighbours\n")).collect();
        let policy = json!({
            "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
            "spec": {"service": "shop", "breakers": [{"name": "asking", "evaluationPeriod": 0.3, "timeout": 1,
                "customService": format!("neighbours:{port}")}]},
        });
        let master = stage
            .master(1)
            .env("KUBERVISOR_STORE", format!("etcd:neighbours:{etcd_port}"))
            .env("KUBERVISOR_POLICY", stage.write("policy.yaml", &policy.to_string()).display())
            .env("KUBERVISOR_ENDPOINTS", stage.file("endpoints").display())
            .env("KUBERVISOR_TARGET_PORT", 80)
            .env("KUBERVISOR_FLEET_SIZE", 3)
            .with_hosts(stage.write("hosts", &hosts));
        let master = master.start().await;
        until("it leads", async || master.leads().await).await;
        until("the service is asked", async || asked.load(Ordering::Relaxed) > 3).await;
    }
}
