//! A master that was stopped for longer than the TTL: nobody died meanwhile.

use std::time::Duration;

use crate::stage::{Stage, TTL, until};

#[tokio::test]
async fn a_master_that_was_stopped_for_longer_than_the_ttl_expires_nobody_and_keeps_all_numbers() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    let mut agents = Vec::new();
    for host in 2..5 {
        agents.push(stage.agent(host, &[&master]).start().await);
        until("it is known", async || master.pods().await.len() == agents.len()).await;
    }
    let before = master.seqs().await;
    for _ in 0..2 {
        let heartbeats = master.metric("kubervisor_heartbeats_total").await.unwrap();
        master.freeze();
        // The length of the pause, not a wait for something.
        tokio::time::sleep(Duration::from_secs_f64(TTL * 1.5)).await;
        master.wake();
        until("all agents ping again", async || {
            master.metric("kubervisor_heartbeats_total").await.is_some_and(|now| now >= heartbeats + 9.0)
        })
        .await;
        assert_eq!(master.seqs().await, before);
    }
    assert_eq!(master.metric("kubervisor_pods_expired_total").await, Some(0.0));
    assert!(master.metric("kubervisor_pauses_total").await.unwrap() >= 1.0);
    assert!(!stage.runs().iter().skip_while(|run| run.ids().len() < 3).any(|run| run.ids().len() < 3));
    agents.remove(0).kill();
    until("a dead one leaves", async || master.pods().await.len() == 2).await;
}
