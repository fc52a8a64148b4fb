//! Breakers on PromQL: each pod has its own scrape target with counters that the test controls.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, routing::get};
use serde_json::json;

use crate::{
    controller::Recipe as ControllerRecipe,
    plane::{self, User, until},
    scraper::Prometheus,
    shop::{self, Recipe},
};

/// bcrypt of "open sesame", at the lowest cost.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";

/// The counters of one target.
#[derive(Default)]
struct Counts {
    good: u64,
    bad: u64,
    fails: bool,
}

type Shared = Arc<Mutex<Counts>>;

/// Ten requests more at each scrape, all good or all bad.
async fn metrics(State(counts): State<Shared>) -> String {
    let mut counts = counts.lock().unwrap();
    *(if counts.fails { &mut counts.bad } else { &mut counts.good }) += 10;
    format!("requests_total{{code=\"200\"}} {}\nrequests_total{{code=\"500\"}} {}\n", counts.good, counts.bad)
}

async fn target() -> (SocketAddrV4, Shared) {
    let counts = Shared::default();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
    let router = Router::new().route("/metrics", get(metrics)).with_state(Arc::clone(&counts));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, counts)
}

#[tokio::test]
async fn a_pod_with_too_many_errors_is_withheld_then_admitted_and_without_prometheus_there_is_no_data() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "promql").await;
    let secret = ["create", "secret", "generic", "prometheus", "--from-literal=login=ali:open sesame", "-n"];
    let made = plane.kubectl(User::Admin, &[&secret[..], &[&namespace]].concat(), "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Prometheus needs the names of the pods, so the fleet is created first, with a breaker that never runs.
    let sleeping = json!({"name": "errors", "customService": "127.0.0.1:1/", "evaluationPeriod": 3600});
    let shop = Recipe::of("web", 4).raw_breaker(sleeping).apply(&plane, &client, &namespace).await;
    let mut targets = Vec::new();
    let mut counts = Vec::new();
    for pod in shop.names().await.unwrap() {
        let (address, shared) = target().await;
        targets.push((pod, address));
        counts.push(shared);
    }
    let directory = tempfile::tempdir().unwrap();
    let web = json!({"basic_auth_users": {"ali": HASH}}).to_string();
    let prometheus = Prometheus::start(directory.path(), Ipv4Addr::LOCALHOST, &targets, Some(&web)).await;
    let breaker = json!({
        "name": "errors", "evaluationPeriod": 0.5, "minPodsAvailableRatio": 50, "timeout": 2,
        "auth": {"basicSecret": {"name": "prometheus", "key": "login"}},
        "discreteValueOutOfList": {
            "prometheusService": prometheus.address.to_string(), "podNamekey": "pod", "key": "code",
            "promQL": "sum by (pod, code) (increase(requests_total[3s]))", "goodValues": ["200"], "tolerance": 50,
        },
    });
    let recipe = Recipe::of("web", 4).raw_breaker(breaker);
    let applied =
        plane.kubectl(User::Admin, &["apply", "-n", &namespace, "-f", "-"], &recipe.resource().to_string());
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let controller =
        ControllerRecipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor)).namespace(&namespace).start();
    let condition = async |kind: &str| {
        let resource = shop.resource().await.ok()?;
        let all = resource["status"]["conditions"].as_array()?.clone();
        all.into_iter().find(|condition| condition["type"] == kind)?["status"].as_str().map(str::to_owned)
    };
    until("there is data", async || (condition("DataAvailable").await? == "True").then_some(())).await;

    let (bad, counts_of_bad) = (&targets[1].0, &counts[1]);
    counts_of_bad.lock().unwrap().fails = true;
    until("it is withheld", async || (shop.traffic(bad).await? == "no").then_some(())).await;
    until("its Service does not send to it", async || {
        let ready = shop.endpoints().await.ok()?;
        (ready.len() == 3 && !ready.contains(bad)).then_some(())
    })
    .await;
    let page = format!("/explain/{namespace}/{bad}");
    let (code, page) = controller.admin(&page).await.unwrap();
    assert!(code == 200 && page.contains("discreteValueOutOfList"), "{page}");

    counts_of_bad.lock().unwrap().fails = false;
    until("it is admitted", async || (shop.endpoints().await.ok()?.len() == 4).then_some(())).await;

    counts.iter().for_each(|counts| counts.lock().unwrap().fails = true);
    drop(prometheus);
    until("the condition reports no data", async || {
        (condition("DataAvailable").await? == "False").then_some(())
    })
    .await;
    let resource = shop.resource().await.unwrap();
    assert!(resource.to_string().contains("errors: Prometheus at"), "{resource}");
    let withheld = shop.names().await.unwrap().len() - shop.endpoints().await.unwrap().len();
    assert!(withheld <= 2, "{withheld} of 4: the floor is 2");
}
