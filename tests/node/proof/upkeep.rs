//! Whatever is done to controllers and pods by an administrator, under a steady load with one pod withheld.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{EvictParams, ListParams},
};
use serde_json::json;

use crate::{
    application::Application,
    cluster::{Space, client, shell, until},
    figures,
    gate::{Detector, gate},
    load::Load,
    release,
};

/// What is done, in this order; each ends when the controllers, or the application's pods, are all there again.
const STEPS: [(&str, &str); 4] = [
    ("rolling restart", "kubectl -n kubervisor rollout restart deployment/kubervisor"),
    ("helm upgrade", "upgrade"),
    ("helm rollback", "rollback"),
    ("evictions", "evictions"),
];

async fn step(what: &str, client: &Client, application: &Application) {
    match what {
        "upgrade" => drop(release::deploy("upgrade", &["debug=true"])),
        "rollback" => {
            release::helm(&[
                "rollback",
                "kubervisor",
                "--namespace",
                release::NAMESPACE,
                "--wait",
                "--timeout",
                "60s",
            ]);
        }
        "evictions" => {
            evict(client, release::NAMESPACE, "app.kubernetes.io/component=controller").await;
            evict(client, application.namespace, "set=shop").await;
        }
        command => drop(shell(command)),
    }
    shell("kubectl -n kubervisor rollout status deployment/kubervisor --timeout=60s");
}

/// Evicts each of these pods, as a drain does: at the pace that the budgets allow. A drained node of a cluster of one
/// would leave no room for the pods.
async fn evict(client: &Client, namespace: &str, selector: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let listed = pods.list(&ListParams::default().labels(selector)).await.unwrap();
    for pod in listed.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.unwrap();
        until(&format!("{name} may be evicted"), || async {
            match pods.evict(&name, &EvictParams::default()).await {
                Ok(_) => Some(()),
                Err(kube::Error::Api(refused)) if refused.code == 429 => None,
                Err(error) => panic!("{name}: {error}"),
            }
        })
        .await;
        until(&format!("{name} is gone"), || async {
            pods.get_opt(&name).await.unwrap().is_none().then_some(())
        })
        .await;
    }
}

pub(crate) async fn restart_eviction_upgrade_rollback_and_uninstall_fail_no_request() {
    release::installed();
    let client = client().await;
    let space = Space::create(&client, "upkeep").await;
    let application = Application::start(&client, space.name, 6).await;
    shell("kubectl -n upkeep create poddisruptionbudget shop --selector=set=shop --min-available=4");
    let load = Load::start(application.address, 200);
    let detector = Detector::start(load.answers.clone()).await;
    let never = json!({"defaultActivator": {"mode": "periodic", "period": 3600}});
    gate(space.name, &detector.breaker(), &never);
    let bad = application.pods().await.into_keys().next().unwrap();
    detector.name(&[&bad]);
    application.has_traffic(&bad, "no").await;
    let withheld = load.leaves(&bad, Instant::now()).await;
    for (name, what) in STEPS {
        if what == "evictions" {
            assert_eq!(load.so_far().since(&bad, withheld), 0, "the withheld pod got traffic");
        }
        let (began, before) = (Instant::now(), load.so_far().0.len());
        step(what, &client, &application).await;
        let asked = load.so_far().0.len() - before;
        println!(
            "{name}: {:.1} s, {asked} requests, {} failed so far",
            began.elapsed().as_secs_f64(),
            load.so_far().failed().len()
        );
    }
    // One is withheld again, so that the uninstall has something to give back.
    let bad = application.pods().await.into_keys().next().unwrap();
    detector.name(&[&bad]);
    application.has_traffic(&bad, "no").await;
    release::helm(&[
        "uninstall",
        "kubervisor",
        "--namespace",
        release::NAMESPACE,
        "--wait",
        "--timeout",
        "60s",
    ]);
    let traffic = application.traffic(&bad).await;
    assert!(traffic.is_none() || traffic.as_deref() == Some("yes"), "{traffic:?}");
    load.returns(&bad, Instant::now()).await;
    let answers = load.end().await;
    println!("{} requests by pod: {:?}", answers.0.len(), answers.by_pod());
    let failed = answers.failed();
    let what = "requests failed by our hand: restart, upgrade, rollback, evictions, uninstall";
    figures::number(what, failed.len() as f64, &format!("of {}", answers.0.len()), "0");
    assert!(failed.is_empty(), "{failed:?}");
    space.delete(&client).await;
}
