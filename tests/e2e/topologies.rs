//! The three topologies of the seed text: separate tiers, a tier that manages itself, and masters of masters.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    etcd::Etcd,
    stage::{Node, Stage, TTL, until},
};

#[tokio::test]
async fn separate_tiers_with_a_dead_master_among_them() {
    let stage = Stage::new();
    // Two independent masters, and one that hangs: it takes connections and never answers.
    let (first, second) = (stage.master(1).start().await, stage.master(2).start().await);
    let hangs = tokio::net::TcpListener::bind((stage.ip(3), 0)).await.unwrap();
    let gone = stage.master(4);
    let names =
        [first.address.to_string(), hangs.local_addr().unwrap().to_string(), gone.address.to_string()];
    // The last one in the older dialect.
    let names = format!("{},http://{}", names.join(","), second.address);
    let agent = |host| {
        let annotations = json!({"kontrol.unity3d.com/master": names});
        stage.agent(host, &[]).env("KONTROL_ANNOTATIONS", annotations)
    };
    let begun = Instant::now();
    let (mut one, mut two) = (agent(10).start().await, agent(11).start().await);
    for master in [&first, &second] {
        until("both agents are known", async || master.pods().await.len() == 2).await;
    }
    println!("two agents known to two masters after {:.1} s", begun.elapsed().as_secs_f64());
    let nonces = |by: &str| {
        let runs = stage.runs().into_iter().filter(|run| run.by() == by);
        runs.map(|run| run.pod("web-10")["nonce"].clone()).rfind(|nonce| nonce.is_string())
    };
    until("both have run for it", async || nonces("master-1").is_some() && nonces("master-2").is_some())
        .await;
    assert_eq!(nonces("master-1"), nonces("master-2"), "one nonce for a process");
    // Nobody expires although two masters of four never answer.
    tokio::time::sleep(Duration::from_secs_f64(TTL * 1.5)).await;
    for master in [&first, &second] {
        assert_eq!(master.metric("kubervisor_pods_expired_total").await.unwrap_or_default(), 0.0);
    }
    let told = Instant::now();
    one.signal(Signal::SIGTERM);
    two.signal(Signal::SIGTERM);
    for master in [&first, &second] {
        until("both said goodbye", async || master.pods().await.is_empty()).await;
    }
    assert!(told.elapsed().as_secs_f64() < TTL, "a dead master does not hold up a goodbye to the others");
    assert!(one.ended().await.success() && two.ended().await.success());
}

/// Every process is agent and master of the same ensemble.
fn mixed(stage: &Stage, etcd: &Etcd, host: u8) -> Node {
    stage
        .master(host)
        .env("KONTROL_MODE", "slave,master")
        .env("KUBERVISOR_STORE", format!("etcd:{}", etcd.endpoint()))
}

#[tokio::test]
async fn an_ensemble_that_manages_itself() {
    let stage = Stage::new();
    let etcd = Etcd::start().await;
    let nodes: Vec<_> = (1..=3).map(|host| mixed(&stage, &etcd, host)).collect();
    let names: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    // Each names all of them, as one service's name would.
    let annotations = json!({"kontrol.unity3d.com/master": names.join(",")});
    let mut running = Vec::new();
    for node in nodes {
        running.push(node.env("KONTROL_ANNOTATIONS", &annotations).start().await);
    }
    let leader = async |nodes: &[Node]| {
        for (index, node) in nodes.iter().enumerate() {
            if node.leads().await {
                return Some(index);
            }
        }
        None
    };
    let first = until("one of them leads", async || leader(&running).await).await;
    until("it knows all three, itself included", async || running[first].pods().await.len() == 3).await;
    let seqs = running[first].seqs().await;
    let mut old = running.remove(first);
    old.kill();
    let gone = old.id.clone();
    let next = until("another one leads", async || leader(&running).await).await;
    until("the dead one has expired, and nobody else", async || {
        let pods = running[next].pods().await;
        pods.len() == 2 && !pods.contains(&gone)
    })
    .await;
    let now = running[next].seqs().await;
    assert!(now.iter().all(|(id, seq)| seqs[id] == *seq), "{seqs:?} {now:?}");
    old.launch().await;
    until("it is back", async || running[next].pods().await.len() == 3).await;
    assert_eq!(running[next].seqs().await[&gone], 3, "a new number: it had expired");
}

#[tokio::test]
async fn a_chain_of_masters_monitors_the_monitor() {
    let stage = Stage::new();
    let top = stage.master(1).start().await;
    // The middle tier is master of the web tier and reports to the top.
    let mut middle = stage.master(2).env("KONTROL_MODE", "slave,master").masters(&[&top]).start().await;
    let _web = stage.agent(10, &[&middle]).start().await;
    until("the middle knows the web tier", async || middle.pods().await == ["web-10"]).await;
    until("the top knows the middle, and only it", async || top.pods().await == ["master-2"]).await;
    stage
        .run_where("the top's callback is told", |run| run.by() == "master-1" && run.ids() == ["master-2"])
        .await;
    stage.run_where("so is the middle's", |run| run.by() == "master-2" && run.ids() == ["web-10"]).await;
    middle.kill();
    stage
        .run_where("the top is told that the monitor is dead", |run| {
            run.by() == "master-1" && run.pods() == "[]" && run.state().is_some()
        })
        .await;
    middle.launch().await;
    until("it is back", async || top.pods().await == ["master-2"]).await;
    until("and still knows its tier", async || middle.pods().await == ["web-10"]).await;
}
