//! The second node goes away with the controller that leads and works: its link drops everything, in both directions.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    application::Application,
    cluster::{Space, client, shell, until},
    figures,
    gate::{Detector, gate},
    load::Shared,
    release,
};

/// The chart's `coordination.leaseSeconds`.
const LEASE: u64 = 15;

/// The controllers' pods on this node that are not being deleted.
fn controllers(node: &str) -> Vec<String> {
    let of = "app.kubernetes.io/component=controller";
    let listed = shell(&format!(
        "kubectl -n kubervisor get pods -l {of} --field-selector spec.nodeName={node} -o json |
         jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'"
    ));
    listed.lines().map(str::to_owned).collect()
}

/// Moves the lead to a controller on the second node; its name.
async fn lead_on_the_second_node() -> String {
    release::deploy("upgrade", &[]);
    until("a controller is on each node", || async {
        let one_each = ["node", "node-2"].map(|node| controllers(node).len()) == [1, 1];
        one_each.then_some(())
    })
    .await;
    // The only member leads; one that joins does not take the lead from it.
    shell(&format!("kubectl -n kubervisor delete pod {} --wait", controllers("node")[0]));
    let second = controllers("node-2").remove(0);
    until("it leads", || async { (leader() == second).then_some(()) }).await;
    shell("kubectl -n kubervisor rollout status deployment/kubervisor --timeout=60s");
    assert_eq!(controllers("node").len(), 1, "its successor is on the first node again");
    second
}

/// The pod of this member, whose name is the pod's with a number for each start behind it.
fn pod(member: &str) -> String {
    member.rsplit_once('-').map(|(pod, _)| pod.to_owned()).unwrap_or_default()
}

/// The controller's pod that leads.
fn leader() -> String {
    let holder = "jsonpath={.items[0].spec.holderIdentity}";
    pod(&shell(&format!("kubectl -n kubervisor get leases -l kubervisor.k8s.io/role=leader -o '{holder}'")))
}

/// The controller's pod that works on the resource, once there is one.
fn owner(namespace: &str) -> String {
    pod(&shell(&format!("kubectl -n {namespace} get kvs shop -o 'jsonpath={{.status.owner.member}}'")))
}

/// The owner is computed from the resource's namespace: the first of these that the controller on the second node owns.
async fn owned_by(client: &kube::Client, member: &str) -> (Space, Application, Detector) {
    for name in ["lost-a", "lost-b", "lost-c", "lost-d", "lost-e", "lost-f", "lost-g", "lost-h"] {
        let space = Space::create(client, name).await;
        let application = Application::start(client, name, 6).await;
        let detector = Detector::start(Shared::default()).await;
        let mut breaker = detector.breaker();
        breaker["minPodsAvailableRatio"] = json!(20);
        gate(name, &breaker, &json!({"defaultActivator": {"mode": "periodic", "period": 3600}}));
        let (owner, _) = until("it has an owner", || async {
            let owner = owner(name);
            (!owner.is_empty()).then_some(owner)
        })
        .await;
        if owner == member {
            return (space, application, detector);
        }
        space.delete(client).await;
    }
    panic!("eight resources, and {member} owns none");
}

pub(crate) async fn a_node_that_is_lost_with_the_leader_is_replaced_by_the_other_controller() {
    release::installed();
    let client = client().await;
    let lost = lead_on_the_second_node().await;
    let (space, application, detector) = owned_by(&client, &lost).await;
    let survivor = controllers("node").remove(0);
    let here =
        shell(&format!("kubectl -n {} get pods --field-selector spec.nodeName=node -o name", space.name));
    let here: Vec<String> = here.lines().map(|pod| pod.trim_start_matches("pod/").to_owned()).collect();

    shell(
        "nft 'add table inet lost; add chain inet lost in { type filter hook prerouting priority -400; };
              add chain inet lost out { type filter hook postrouting priority 400; };
              add rule inet lost in iifname node-2 drop; add rule inet lost out oifname node-2 drop'",
    );
    let began = Instant::now();
    detector.name(&[&here[0]]);
    application.has_traffic(&here[0], "no").await;
    let took = began.elapsed();
    figures::number(
        "node lost with the controller -> the other one withholds",
        took.as_secs_f64(),
        "s",
        "<= 25 s",
    );
    assert!(took < Duration::from_secs(LEASE + 10), "{took:?}");
    until("the other controller leads and works", || async {
        (leader() == survivor && owner(space.name) == survivor).then_some(())
    })
    .await;
    until("the node is not ready", || async {
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        (shell(&format!("kubectl get node node-2 -o '{ready}'")) != "True").then_some(())
    })
    .await;

    shell("nft delete table inet lost");
    shell("kubectl wait --for=condition=Ready node/node-2 --timeout=60s");
    shell("kubectl -n kubervisor rollout status deployment/kubervisor --timeout=60s");
    until("its pods serve again", || async { (application.listed().await == 5).then_some(()) }).await;
    assert_eq!(application.traffic(&here[0]).await.as_deref(), Some("no"), "nothing was given back");
    detector.name(&[&here[0], &here[1]]);
    application.has_traffic(&here[1], "no").await;
    space.delete(&client).await;
}
