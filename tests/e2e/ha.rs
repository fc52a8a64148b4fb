//! Several masters on one real etcd: one leads, nothing is lost when it stops, dies, or freezes.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    etcd::{Etcd, Options, PASSWORD, USER},
    stage::{Node, Puppet, Stage, keeping_alive, throughout, until},
};

/// Between a leader's death and the next leader's callback, at a lease of 3 s.
const TAKEOVER_CAP: Duration = Duration::from_secs(8);

/// A store operation that is somebody's work, and not the election's.
const WORK: [&str; 4] = ["commit", "load", "follow", "campaign"];

/// One etcd with masters at hosts 1, 2, ...
struct Tier {
    etcd: Etcd,
    nodes: Vec<Node>,
}

impl Tier {
    async fn start(stage: &Stage, masters: u8, adjust: impl Fn(Node) -> Node) -> Self {
        let etcd = Etcd::start().await;
        let mut tier = Self { nodes: Vec::new(), etcd };
        for host in 1..=masters {
            let store = format!("etcd:{}", tier.etcd.endpoint());
            // Nobody expires while masters come and go, unless a test wants it.
            let node = stage
                .master(host)
                .env("KUBERVISOR_STORE", store)
                .env("KONTROL_TTL", 10)
                .env("KONTROL_DAMPER", 0);
            tier.nodes.push(adjust(node).start().await);
        }
        tier.leader(&[]).await;
        tier
    }

    /// The index of the leader, which is none of `but`.
    async fn leader(&self, but: &[usize]) -> usize {
        until("somebody leads", async || {
            for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| !but.contains(index)) {
                if node.leads().await {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    fn followers(&self, leader: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| *index != leader).collect()
    }
}

fn pods(stage: &Stage, count: u8) -> Vec<Puppet> {
    (0..count).map(|number| Puppet::new(stage, 100 + number)).collect()
}

fn ids(pods: &[Puppet]) -> Vec<String> {
    pods.iter().map(|pod| pod.id.clone()).collect()
}

#[tokio::test]
async fn one_leads_and_the_others_pass_on_what_they_are_told() {
    let stage = Stage::new();
    let tier = Tier::start(&stage, 3, |node| node).await;
    let leader = tier.leader(&[]).await;
    let followers = tier.followers(leader);
    for follower in &followers {
        assert!(!tier.nodes[*follower].leads().await);
    }
    // An agent that knows the followers only.
    let masters: Vec<_> = followers.iter().map(|index| &tier.nodes[*index]).collect();
    let agent = stage.agent(50, &masters).env("KONTROL_TTL", 10).start().await;
    until("the leader knows it", async || tier.nodes[leader].pods().await == ["web-50"]).await;
    // The answer is the leader's: it knows that the key is taken, the follower cannot.
    let mut thief = Puppet::new(&stage, 50);
    let _answered = thief.say(masters[0], &thief.keepalive().to_string()).await;
    let alarm = until("the leader alarms", async || tier.nodes[leader].alarm_is_up("key_collision").await);
    alarm.await;
    let url = format!("http://{}/ping", masters[1].address);
    let (status, body) = crate::details::curl(&["-X", "PUT", "-d", &thief.keepalive().to_string(), &url]);
    assert_eq!(status, "409", "the original's dialect cannot say so, HTTP can: {body}");
    assert!(body.contains("web-50"), "it names the holder: {body}");
    let runs = stage.run_where("the leader's callback is told", |run| run.ids() == ["web-50"]).await;
    assert_eq!(runs.by(), tier.nodes[leader].id, "nobody else runs it");
    drop(agent);
}

#[tokio::test]
async fn a_stranger_may_not_pass_anything_on() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    let keepalive = Puppet::new(&stage, 2).keepalive().to_string();
    let connection = kubervisor::adapters::wire::client::Connection::connect(
        &master.target(),
        Some(stage.ip(9)),
        Duration::from_secs(5),
    )
    .await
    .unwrap();
    let refused = connection.forward(&keepalive, Duration::from_secs(5)).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(master.pods().await.is_empty());
}

#[tokio::test]
async fn a_graceful_stop_hands_over_at_once() {
    let stage = Stage::new();
    // The damper is longer than what is asserted: after a fail-over nothing waits for it.
    let mut tier = Tier::start(&stage, 2, |node| node.env("KONTROL_DAMPER", 3)).await;
    let old = tier.leader(&[]).await;
    let other = tier.followers(old)[0];
    for pod in &mut pods(&stage, 3) {
        pod.ping(&tier.nodes[other]).await;
    }
    // The first ones may be passed on a moment later than the next: the leader's order counts.
    until("the leader knows them", async || tier.nodes[old].pods().await.len() == 3).await;
    let expected = tier.nodes[old].pods().await;
    stage.run_where("its callback too", |run| run.ids() == expected).await;
    let url = format!("http://{}/state", tier.nodes[other].address);
    until("its state is stored", async || crate::stage::get(&url).await.unwrap().1.contains("runs")).await;
    let old_id = tier.nodes[old].id.clone();
    let told = Instant::now();
    tier.nodes[old].signal(nix::sys::signal::Signal::SIGTERM);
    let run = stage.run_where("the other one runs the callback", |run| run.by() != old_id).await;
    let took = told.elapsed();
    println!("SIGTERM of the leader to the next leader's callback: {:.0} ms", took.as_secs_f64() * 1e3);
    assert!(took < Duration::from_secs(3), "{took:?} (1 s is promised; this machine may be busy)");
    assert_eq!(run.ids(), expected);
    assert!(run.state().is_some(), "it has its predecessor's state");
    assert!(tier.nodes[old].ended().await.success());
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    let stage = Stage::new();
    let mut tier = Tier::start(&stage, 3, |node| node).await;
    let old = tier.leader(&[]).await;
    let mut pods = pods(&stage, 4);
    for pod in &mut pods {
        pod.ping(&tier.nodes[old]).await;
    }
    let expected = ids(&pods);
    stage.run_where("the callback is told", |run| run.ids() == expected).await;
    let witness = tier.followers(old)[0];
    let state =
        async |node: &Node| crate::stage::get(&format!("http://{}/state", node.address)).await.unwrap().1;
    let counted = stage.runs().len();
    until("the followers see its state", async || {
        state(&tier.nodes[witness]).await == format!("{{\"runs\": {counted}}}")
    })
    .await;
    let seqs = tier.nodes[old].seqs().await;
    let killed = Instant::now();
    tier.nodes[old].kill();
    let run =
        stage.run_where("the next leader runs the callback", |run| run.by() != tier.nodes[old].id).await;
    let took = killed.elapsed();
    println!("SIGKILL of the leader to the next leader's callback, lease 3 s: {:.2} s", took.as_secs_f64());
    assert!(took < TAKEOVER_CAP, "{took:?}");
    assert_eq!(run.ids(), expected, "everybody has a TTL to report");
    assert_eq!(run.state(), Some(json!({"runs": counted})));
    let new = tier.leader(&[old]).await;
    assert_eq!(tier.nodes[new].seqs().await, seqs);
    Puppet::new(&stage, 90).ping(&tier.nodes[new]).await;
    until("a newcomer is known", async || tier.nodes[new].seqs().await.get("pod-90") == Some(&4)).await;
}

#[tokio::test]
async fn a_frozen_leader_wakes_up_and_writes_nothing() {
    let stage = Stage::new();
    let tier = Tier::start(&stage, 2, |node| node).await;
    let old = tier.leader(&[]).await;
    let other = tier.followers(old)[0];
    let (old, other) = (&tier.nodes[old], &tier.nodes[other]);
    let mut pods = pods(&stage, 2);
    pods[0].ping(old).await;
    stage.run_where("the first pod is shown", |run| run.ids() == ["pod-100"]).await;
    // Frozen with a change that waits for the damper, and a callback that would be due long ago when it wakes up.
    stage.write("answer", r#"{"again": 0.2, "by": "before"}"#);
    pods[1].ping(old).await;
    stage.run_where("the second is", |run| run.ids() == ["pod-100", "pod-101"]).await;
    let frozen = Instant::now();
    old.freeze();
    until("the other one leads", async || other.leads().await).await;
    println!("SIGSTOP of the leader to the next leader, lease 3 s: {:.2} s", frozen.elapsed().as_secs_f64());
    assert!(frozen.elapsed() < TAKEOVER_CAP);
    stage.write("answer", r#"{"again": 0.2, "by": "after"}"#);
    let state = async |node: &Node| {
        crate::stage::get(&format!("http://{}/state", node.address)).await.map(|(_, text)| text)
    };
    until("its state is stored", async || state(other).await.is_some_and(|text| text.contains("after")))
        .await;
    let runs_of_old = || stage.runs().iter().filter(|run| run.by() == old.id).count();
    let before = runs_of_old();
    old.wake();
    until("the woken one follows", async || {
        old.page("ensemble").await["leadership"]["posture"] == "following"
    })
    .await;
    throughout(
        Duration::from_secs(1),
        "the state stays the new leader's, and so does the lead",
        async || other.leads().await && state(other).await.is_some_and(|text| text.contains("after")),
    )
    .await;
    assert_eq!(runs_of_old(), before, "it ran no callback in its sleep");
    // And it is of use again: what it is told reaches the leader.
    Puppet::new(&stage, 110).ping(old).await;
    until("a newcomer at the follower is known to the leader", async || {
        other.pods().await.contains(&"pod-110".to_owned())
    })
    .await;
    assert_eq!(state(old).await, state(other).await, "both show the same state");
}

#[tokio::test]
async fn whom_the_old_leader_withheld_the_new_one_withholds() {
    let stage = Stage::new();
    stage.write("answer", r#"{"traffic": {"pod-100": "withhold"}}"#);
    let file = |host: u8| format!("endpoints-{host}");
    // Each master has a file of its own; the followers' follow what the leader has committed.
    let policy = stage.write(
        "policy.yaml",
        &json!({
            "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
            "spec": {"service": "shop", "defaultActivator": {"mode": "periodic", "period": 60, "jitter": 0},
                "breakers": [{"name": "none", "keepalive": {"pointer": "/nothing", "max": 1}}]},
        })
        .to_string(),
    );
    let mut tier = Tier::start(&stage, 2, |node| {
        let path = stage.file(&file(node.address.ip().octets()[3]));
        node.env("KUBERVISOR_ENDPOINTS", path.display())
            .env("KUBERVISOR_TARGET_PORT", 80)
            .env("KUBERVISOR_POLICY", policy.display())
            .env("KUBERVISOR_KEEPALIVE_TRUSTED", stage.network())
            .env("KONTROL_TTL", 4)
    })
    .await;
    let old = tier.leader(&[]).await;
    let other = tier.followers(old)[0];
    let lines = |index: usize| stage.lines(&file(u8::try_from(index + 1).unwrap()));
    let out = format!("{}:80", stage.ip(100));
    let mut pods = pods(&stage, 4);
    keeping_alive(&tier.nodes[other], &mut pods, async {
        until("it is withheld, and both files show that", async || {
            let told = tier.nodes[old].page("explain/test/pod-100").await;
            let shown = |index| lines(index).len() == 3 && !lines(index).contains(&out);
            told["pod"]["traffic"] == "no" && shown(old) && shown(other)
        })
        .await;
    })
    .await;
    let before = lines(other);
    tier.nodes[old].kill();
    keeping_alive(&tier.nodes[other], &mut pods, async {
        let leads = async { tier.leader(&[old]).await };
        let unchanged =
            throughout(Duration::from_secs(10), "its file is as it was", async || lines(other) == before);
        tokio::join!(leads, unchanged);
        assert_eq!(tier.nodes[other].page("explain/test/pod-100").await["pod"]["traffic"], "no");
    })
    .await;
}

#[tokio::test]
async fn an_etcd_that_is_away_for_a_while_costs_nobody_anything() {
    let stage = Stage::new();
    let mut tier = Tier::start(&stage, 2, |node| node.env("KONTROL_TTL", 2)).await;
    let leader = tier.leader(&[]).await;
    let mut pods = pods(&stage, 3);
    for pod in &mut pods {
        pod.ping(&tier.nodes[leader]).await;
    }
    let expected = ids(&pods);
    stage.run_where("all are shown", |run| run.ids() == expected).await;
    let seqs = tier.nodes[leader].seqs().await;
    tier.etcd.kill();
    // One of them never pings again until etcd is back: nobody can know that it is dead.
    let mut newcomer = Puppet::new(&stage, 90);
    let mut silent = pods.remove(2);
    let mut leaver = pods.remove(1);
    let master = &tier.nodes[leader];
    let outage = async {
        leaver.down(master).await;
        until("the outage is noticed", async || master.alarm_is_up("store_away").await).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        newcomer.ping(master).await;
    };
    keeping_alive(master, &mut pods, outage).await;
    let (known, before) = (stage.runs().len(), stage.runs().last().unwrap().clone());
    println!("runs before and during the outage: {known}, the last saw {:?}", before.ids());
    tier.etcd.launch().await;
    let leader = tier.leader(&[]).await;
    let master = &tier.nodes[leader];
    let back = async {
        until("the newcomer is known, nobody is forgotten, and who said down is gone", async || {
            let _pinged = newcomer.say(master, &newcomer.keepalive().to_string()).await;
            let _pinged = silent.say(master, &silent.keepalive().to_string()).await;
            master.pods().await == ["pod-100", "pod-102", "pod-90"]
        })
        .await;
    };
    keeping_alive(master, &mut pods, back).await;
    let after = master.seqs().await;
    assert_eq!((after["pod-100"], after["pod-102"]), (seqs["pod-100"], seqs["pod-102"]));
    assert_eq!(after["pod-90"], 3);
    for run in stage.runs().iter().skip(known) {
        assert!(run.ids().contains(&"pod-100".to_owned()), "nobody was ever lost: {:?}", run.ids());
    }
}

#[tokio::test]
async fn etcd_with_certificates_and_a_password() {
    let stage = Stage::new();
    let mut etcd = Etcd::start_with(Options { tls: true, ..Options::default() }).await;
    etcd.enable_login().await;
    let config = etcd.etcd_config();
    let (certificate, key) = config.client.unwrap();
    let password = stage.write("password", &format!("{PASSWORD}\n"));
    let node = stage
        .master(1)
        .without("KUBERVISOR_STORE")
        // A quarter of it is a request's deadline, and checking a password takes etcd a while on a busy machine.
        .env("KONTROL_FOVER", 20)
        .env("KONTROL_ETCD", etcd.endpoint())
        .env("KUBERVISOR_ETCD_CA_FILE", config.ca.unwrap().display())
        .env("KUBERVISOR_ETCD_CERT_FILE", certificate.display())
        .env("KUBERVISOR_ETCD_KEY_FILE", key.display())
        .env("KUBERVISOR_ETCD_USER", USER)
        .env("KUBERVISOR_ETCD_PASSWORD_FILE", password.display());
    let mut node = node.start().await;
    until("it leads", async || node.leads().await).await;
    let mut pod = Puppet::new(&stage, 2);
    pod.ping(&node).await;
    until("it works", async || node.pods().await == ["pod-2"]).await;
    node.stop().await;
    // The wrong password is a wrong configuration.
    fs::write(&password, "no idea").unwrap();
    let output = node.output();
    assert_eq!(output.status.code(), Some(2));
    let text = crate::stage::said(&output);
    assert!(text.contains("KUBERVISOR_ETCD_PASSWORD_FILE"), "{text}");
}

#[tokio::test]
async fn heartbeats_cost_the_store_nothing() {
    let stage = Stage::new();
    let tier = Tier::start(&stage, 2, |node| node.env("KONTROL_TTL", 60)).await;
    let leader = tier.leader(&[]).await;
    let follower = &tier.nodes[tier.followers(leader)[0]];
    let leader = &tier.nodes[leader];
    let mut pods = pods(&stage, 5);
    for pod in &mut pods {
        pod.ping(leader).await;
    }
    let expected = ids(&pods);
    stage.run_where("all are shown", |run| run.ids() == expected).await;
    let state = format!("{{\"runs\": {}}}", stage.runs().len());
    let url = format!("http://{}/state", follower.address);
    until("the last run's state is stored", async || crate::stage::get(&url).await.unwrap().1 == state).await;
    let operations = async || {
        let mut sum = 0.0;
        for node in [leader, follower] {
            for operation in WORK {
                let sample = format!("kubervisor_store_operations_total{{op=\"{operation}\"}}");
                sum += node.metric(&sample).await.unwrap_or_default();
            }
        }
        sum
    };
    let heartbeats = async || leader.metric("kubervisor_heartbeats_total").await.unwrap_or_default();
    let before = (operations().await, heartbeats().await);
    for round in 0..400 {
        let master = if round % 2 == 0 { leader } else { follower };
        for pod in &mut pods {
            pod.ping(master).await;
        }
    }
    let after = (operations().await, heartbeats().await);
    let (cost, beats) = (after.0 - before.0, after.1 - before.1);
    println!("{beats} heartbeats, half of them forwarded: {cost} store operations");
    assert!(before.0 > 0.0 && beats >= 2000.0, "{before:?} {after:?}");
    assert_eq!(cost, 0.0);
}
