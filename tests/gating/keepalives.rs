//! Breakers on keepalives: the controller receives them and joins them with the pods of the API server.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use kubervisor::decide::key::Key;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    controller::Recipe as ControllerRecipe,
    plane::{self, User, until},
    shop::{self, Recipe},
};

/// The agents that report bad payloads, and those that send nothing.
#[derive(Default)]
struct Behaviour {
    bad: BTreeSet<String>,
    silent: BTreeSet<String>,
}

/// The keepalive of an agent in that pod.
fn keepalive(pod: &str, address: Ipv4Addr, errors: u32) -> String {
    json!({
        "app": "web", "role": "web", "id": pod, "ip": address, "key": Key::of(address).to_string(),
        "payload": {"errors": errors},
    })
    .to_string()
}

/// Sends the keepalives of all pods each 0.3 s in the older dialect.
async fn report(to: String, pods: Vec<(String, Ipv4Addr)>, behaviour: Arc<Mutex<Behaviour>>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    loop {
        for (pod, address) in &pods {
            let errors = {
                let behaviour = behaviour.lock().unwrap();
                if behaviour.silent.contains(pod) {
                    continue;
                }
                if behaviour.bad.contains(pod) { 99 } else { 0 }
            };
            let ping = client.put(format!("http://{to}/ping")).body(keepalive(pod, *address, errors));
            // The controller may not listen yet.
            let _answer = ping.send().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn pods_are_withheld_for_bad_payloads_and_for_silence() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "keepalives").await;
    let breaker = |name: &str, detector: serde_json::Value| {
        json!({
            "name": name, "keepalive": detector, "evaluationPeriod": 0.3, "minPodsAvailableRatio": 25,
            "activator": {"mode": "periodic", "period": 1, "jitter": 0},
        })
    };
    let recipe = Recipe::of("web", 5)
        .raw_breaker(breaker("errors", json!({"pointer": "/errors", "max": 10})))
        .raw_breaker(breaker("silent", json!({"silentAfter": 3})));
    let shop = recipe.apply(&plane, &client, &namespace).await;
    let pods: Vec<(String, Ipv4Addr)> = shop
        .pods()
        .await
        .unwrap()
        .into_iter()
        .map(|pod| (pod.metadata.name.unwrap(), pod.status.unwrap().pod_ip.unwrap().parse().unwrap()))
        .collect();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let store = tempfile::tempdir().unwrap();
    let controller = ControllerRecipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor))
        .namespace(&namespace)
        .argument("--keepalives")
        .argument(&port)
        .variable("KUBERVISOR_KEEPALIVE_TRUSTED", "127.0.0.0/8")
        .variable("KUBERVISOR_STORE", &format!("embedded:{}", store.path().join("keepalives").display()))
        .variable("KONTROL_TTL", "6")
        .variable("KONTROL_PING", "1")
        .start();
    let behaviour = Arc::new(Mutex::new(Behaviour::default()));
    tokio::spawn(report(port, pods.clone(), Arc::clone(&behaviour)));
    let ready = async || Some(shop.endpoints().await.ok()?.into_iter().collect::<BTreeSet<_>>());
    let all: BTreeSet<String> = pods.iter().map(|(pod, _)| pod.clone()).collect();
    let without = |pod: &str| all.iter().filter(|name| *name != pod).cloned().collect::<BTreeSet<_>>();
    until("there is data", async || {
        let resource = shop.resource().await.ok()?;
        let all = resource["status"]["conditions"].as_array()?.clone();
        all.iter().any(|c| c["type"] == "DataAvailable" && c["status"] == "True").then_some(())
    })
    .await;

    let (bad, silent) = (&pods[0].0, &pods[1].0);
    behaviour.lock().unwrap().bad.insert(bad.clone());
    until("the one that reports errors is withheld", async || (ready().await? == without(bad)).then_some(()))
        .await;
    behaviour.lock().unwrap().bad.clear();
    until("it is admitted", async || (ready().await? == all).then_some(())).await;

    behaviour.lock().unwrap().silent.insert(silent.clone());
    until("the silent one is withheld", async || (ready().await? == without(silent)).then_some(())).await;
    behaviour.lock().unwrap().silent.clear();
    until("it sends keepalives again and is admitted", async || (ready().await? == all).then_some(())).await;

    // Longer than `silentAfter`: a pause of the controller itself is no pod's silence.
    let cuts = async || {
        let (_, text) = controller.get("/metrics").await.unwrap();
        let rows = text.lines().filter(|row| row.starts_with("kubervisor_breaker_count{"));
        let cuts = rows.filter(|row| row.contains("type=\"break\""));
        cuts.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let before = cuts().await;
    controller.freeze();
    tokio::time::sleep(Duration::from_secs(5)).await;
    controller.thaw();
    until("the pause is noticed", async || {
        (controller.metric("kubervisor_pauses_total").await >= 1.0).then_some(())
    })
    .await;
    behaviour.lock().unwrap().bad.insert(bad.clone());
    until("the breakers judge again", async || (ready().await? == without(bad)).then_some(())).await;
    let after = cuts().await;
    assert!(after <= before + 1.0, "only the bad one was withheld: {before} before, {after} after");
    assert_eq!(controller.stop_by(Signal::SIGHUP), Some(0), "a hang-up stops it in order");
}

#[tokio::test]
async fn a_breaker_on_keepalives_has_no_data_in_a_controller_without_them() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "no-keepalives").await;
    let breaker = json!({"name": "silent", "keepalive": {"silentAfter": 9}});
    let shop = Recipe::of("web", 2).raw_breaker(breaker).apply(&plane, &client, &namespace).await;
    let _controller =
        ControllerRecipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor)).namespace(&namespace).start();
    until("the condition names the missing option", async || {
        let resource = shop.resource().await.ok()?;
        let all = resource["status"]["conditions"].as_array()?.clone();
        let data = all.into_iter().find(|condition| condition["type"] == "DataAvailable")?;
        let named = data["message"].as_str()?.contains("start the controller with --keepalives");
        (data["status"] == "False" && named).then_some(())
    })
    .await;
    // The slices may still follow the claims.
    until("no pod is withheld for it", async || (shop.endpoints().await.ok()?.len() == 2).then_some(()))
        .await;
}
