//! What the node gives to a pod.

use std::{path::Path, process::Command};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

use crate::{
    ROOT,
    application::Application,
    cluster::{Space, client, processes, shell},
};

pub(crate) async fn a_machine_that_cannot_run_a_node_is_told_what_it_lacks() {
    let script = Path::new(ROOT).join("scripts/node");
    // Without root, namespaces and control groups.
    let mut refused = Command::new("setpriv");
    refused.args(["--reuid=65534", "--clear-groups"]).arg(script).arg("true").env_remove("NODE_NAME");
    let refused = refused.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    for expected in
        ["a real node cannot run on this machine:", "must run as root", "namespaces", "control group"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

pub(crate) async fn a_pod_has_a_token_that_the_api_server_takes_and_the_restrictions_that_it_asked_for() {
    let client = client().await;
    let space = Space::create(&client, "pods").await;
    Application::start(&client, space.name, 1).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), space.name);
    let pod = pods.list(&ListParams::default()).await.unwrap().items.remove(0);
    // The image has one program and no shell: the container is looked at from the node.
    let pid = processes(&pod.metadata.uid.unwrap(), "pod")
        .into_iter()
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("serve"));
    let pid = pid.unwrap();
    let status = shell(&format!("cat /proc/{pid}/status"));
    for expected in ["Uid:\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(expected), "{expected}: {status}");
    }
    let account = format!("/proc/{pid}/root/var/run/secrets/kubernetes.io/serviceaccount");
    // As the pod sees it: the Service `kubernetes`, its certificate by the pod's own CA, the pod's own token.
    let who = shell(&format!(
        "curl --fail --silent --show-error --cacert {account}/ca.crt -H \"Authorization: Bearer $(cat {account}/token)\" \
            -H 'Content-Type: application/json' https://10.96.0.1/apis/authentication.k8s.io/v1/selfsubjectreviews \
            -d '{{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}}'"
    ));
    assert!(who.contains("system:serviceaccount:pods:default"), "{who}");
    space.delete(&client).await;
}
