//! `kubervisor cluster` and the leader's hand-over.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{cluster::Cluster, controller::Controller, plane::until, ports};

fn run(replica: &Controller, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubervisor"))
        .arg("cluster")
        .args(["--admin-addr", &replica.admin_address().to_string()])
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_member_gets_no_work_until_it_is_uncordoned() {
    let cluster = Cluster::start(14).await;
    let [first, second] = cluster.replicas(["one", "two"]).await;
    let shown = run(&first, &[]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("one-") && text.contains("two-"), "{text}");
    // Any replica may be asked.
    let drained = run(&second, &["drain", "one"]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    assert!(cluster.work(&[&first]).await[0].is_empty());
    cluster.until_shared_by(&[&second]).await;
    let page = second.page("cluster").await;
    let row =
        page["members"].as_array().unwrap().iter().find(|row| row["pod"] == "uid-of-one").unwrap().clone();
    assert_eq!((&row["cordoned"], &row["load"]), (&true.into(), &0.into()), "{row}");
    // Whatever becomes of the others.
    assert_eq!(second.stop(), Some(0));
    second.launch();
    second.ready().await;
    cluster.until_shared_by(&[&second]).await;
    assert!(run(&second, &["uncordon", "one"]).status.success());
    until("it has work again", || async { (!cluster.work(&[&first]).await[0].is_empty()).then_some(()) })
        .await;
    cluster.until_shared_by(&[&first, &second]).await;
    let unknown = run(&first, &["cordon", "nobody"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(said.contains("nobody") && said.contains("one-"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_over_at_once_and_stays_a_member() {
    let cluster = Cluster::start(1).await;
    let replicas = cluster.replicas(["one", "two"]).await;
    let leads =
        async |replica: &Controller| replica.page("cluster").await["leadership"]["posture"] == "leading";
    let one_leads = || async {
        let (first, second) = (leads(&replicas[0]).await, leads(&replicas[1]).await);
        (first != second).then_some(first)
    };
    let (first_leads, _) = until("one of them leads", one_leads).await;
    let (leader, other) = if first_leads { (0, 1) } else { (1, 0) };
    let refused = run(&replicas[other], &["hand-over"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not lead"));
    assert!(run(&replicas[leader], &["hand-over"]).status.success());
    until("the other one leads", || async { leads(&replicas[other]).await.then_some(()) }).await;
    assert_eq!(cluster.members(&replicas[other]).await.len(), 2);
}

/// `make cluster REPLICAS=3`, with a command instead of a person.
#[test]
fn three_controllers_on_a_control_plane_of_their_own_share_it() {
    // Two for each.
    let ports: Vec<String> = (0..6).map(|_| ports::free(Ipv4Addr::LOCALHOST).port().to_string()).collect();
    let asked = format!("kubervisor cluster --admin-addr 127.0.0.1:{} -o json", ports[1]);
    let ran = Command::new("scripts/replicas")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "1",
            "3",
            "sh",
            "-c",
            &format!("{asked} && kubectl get leases -n kubervisor -o name && exit 7"),
        ])
        .env("PROGRAMS", Path::new(env!("CARGO_BIN_EXE_kubervisor")).parent().unwrap())
        .env("REPLICAS_PORTS", ports.join(" "))
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(7), "{text}{errors}");
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let page = values.next().unwrap().unwrap();
    let pods: BTreeSet<&str> =
        page["members"].as_array().unwrap().iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(pods.len(), 3, "{page}");
    assert!(pods.iter().all(|pod| pod.starts_with("replica-")), "{page}");
    assert_eq!(text.matches("lease.coordination.k8s.io/").count(), 4, "three members and the leader: {text}");
}
