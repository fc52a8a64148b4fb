//! Decoding of the API's objects into records.

use kube::api::WatchEvent;
use serde_json::{Value, json};

use super::{
    AutoscalerRecord, Kind, Page, Phase, PodRecord, ResourceRecord, ServiceRecord, SliceRecord,
    WorkloadRecord,
};
use crate::decide::{fleet::Traffic, time::Timestamp};

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u-1", "resourceVersion": "71",
            "creationTimestamp": "1970-01-01T00:01:00Z",
            "labels": {"app": "web", "kubervisor/traffic": "yes", "kubervisor/name": "shop.web"},
            "annotations": {
                "kubervisor/fence": "00000000000000aa.7", "breaker/retryCount": "2", "of/others": "\"\u{e9}\"",
                "controller.kubernetes.io/pod-deletion-cost": "5",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u-n"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-rs", "controller": true},
            ],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}],
        },
        "spec": {"containers": [{"name": "app", "image": "app"}], "nodeName": "n"},
        "status": {
            "phase": "Running", "podIP": "fd00::1", "podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.7"}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        },
    })
}

#[test]
fn a_pod_is_decoded_with_its_marks_as_they_stand() {
    let pod = serde_json::from_slice::<PodRecord>(pod().to_string().as_bytes()).unwrap();
    assert_eq!((&*pod.namespace, &*pod.name, pod.uid.as_str(), pod.version), ("shop", "web-1", "u-1", 71));
    assert_eq!(pod.fence_text.as_deref(), Some("00000000000000aa.7"));
    assert_eq!((pod.retry_count.as_deref(), pod.break_at.as_deref()), (Some("2"), None));
    assert_eq!((pod.deletion_cost.as_deref(), pod.admitted_at.as_deref()), (Some("5"), None));
    assert!(pod.has_annotations && pod.serving() && !pod.finished() && !pod.terminating);
    assert_eq!(pod.ip, Some("10.0.0.7".parse().unwrap()), "the first IPv4 address");
    assert_eq!(pod.created, Some(Timestamp::from_unix_millis(60_000)));
    let controller = pod.controller.unwrap();
    assert!(controller.is_apps("ReplicaSet"), "an owner that is no controller is passed over");
    assert_eq!((&*controller.name, &*controller.uid), ("web", "u-rs"));
}

#[test]
fn a_pod_that_has_next_to_nothing_is_decoded_too() {
    let bare = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1",
        "labels": null, "annotations": null, "ownerReferences": null}});
    let pod = serde_json::from_value::<PodRecord>(bare).unwrap();
    assert_eq!((pod.traffic(), pod.phase, pod.has_annotations), (Traffic::Unlabelled, Phase::Pending, false));
    assert!(pod.controller.is_none() && !pod.ready && pod.ip.is_none());
}

#[test]
fn a_pod_serves_only_while_it_runs_ready_stays_and_says_yes() {
    let serves = |path: &str, value: Value| {
        let mut pod = pod();
        *pod.pointer_mut(path).unwrap() = value;
        serde_json::from_value::<PodRecord>(pod).unwrap().serving()
    };
    assert!(!serves("/status/conditions/1/status", json!("False")));
    assert!(!serves("/status/phase", json!("Failed")));
    for (word, traffic) in [("no", Traffic::No), ("pause", Traffic::Pause), ("YES", Traffic::Other)] {
        let mut pod = pod();
        pod["metadata"]["labels"]["kubervisor/traffic"] = json!(word);
        let pod = serde_json::from_value::<PodRecord>(pod).unwrap();
        assert_eq!((pod.serving(), pod.able(), pod.traffic()), (false, true, traffic));
    }
    let mut leaving = pod();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let leaving = serde_json::from_value::<PodRecord>(leaving).unwrap();
    assert!(leaving.terminating && !leaving.serving());
}

#[test]
fn a_resource_version_that_is_no_number_is_refused() {
    let mut pod = pod();
    pod["metadata"]["resourceVersion"] = json!("7a");
    let error = serde_json::from_value::<PodRecord>(pod).unwrap_err();
    assert!(error.to_string().contains("a resourceVersion that is a number"), "{error}");
}

#[test]
fn an_event_of_a_watch_is_decoded_straight_into_a_record() {
    let line = json!({"type": "MODIFIED", "object": pod()}).to_string();
    let WatchEvent::Modified(pod) = serde_json::from_str::<WatchEvent<PodRecord>>(&line).unwrap() else {
        panic!("another event");
    };
    assert_eq!(pod.version, 71);
}

#[test]
fn a_page_says_where_the_next_one_is() {
    let page: Page<PodRecord> = serde_json::from_value(json!({
        "metadata": {"resourceVersion": "90", "continue": "more"}, "items": [pod()],
    }))
    .unwrap();
    assert_eq!((page.metadata.resource_version, page.metadata.more.as_deref()), (90, Some("more")));
    assert_eq!(page.items.unwrap().len(), 1);
    let none: Page<PodRecord> =
        serde_json::from_value(json!({"metadata": {"resourceVersion": "90"}, "items": null})).unwrap();
    assert!(none.items.is_none());
}

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "shop", "uid": format!("u-{name}"), "resourceVersion": "5"})
}

#[test]
fn a_service_has_a_selector_or_none() {
    let service = |spec: Value| {
        serde_json::from_value::<ServiceRecord>(json!({"metadata": meta("web"), "spec": spec})).unwrap()
    };
    let web = service(json!({"selector": {"app": "web", "kubervisor/traffic": "yes"}, "type": "ClusterIP"}));
    assert!(web.selector.unwrap().traffic_word().is_some() && !web.external_name);
    assert!(service(json!({})).selector.is_none());
    assert!(service(json!({"selector": {}})).selector.is_none());
    assert!(service(json!({"type": "ExternalName", "externalName": "elsewhere"})).external_name);
}

#[test]
fn a_slice_shows_ready_what_is_not_said_to_be_unready() {
    let endpoint = |uid: &str, ready: Value| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "uid": uid}});
    let mut metadata = meta("web-abc");
    metadata["labels"] = json!({"kubernetes.io/service-name": "web"});
    let slice: SliceRecord = serde_json::from_value(json!({
        "metadata": metadata,
        "endpoints": [
            endpoint("u-3", json!(true)), endpoint("u-2", json!(false)), endpoint("u-1", Value::Null),
            {"addresses": ["10.0.0.9"], "targetRef": {"kind": "Node", "uid": "u-4"}}, {"addresses": ["10.0.0.8"]},
        ],
    }))
    .unwrap();
    assert_eq!(&*slice.service, "web");
    assert_eq!(slice.ready.iter().map(|uid| uid.as_str()).collect::<Vec<_>>(), ["u-1", "u-3"]);
    let addresses: Vec<String> = slice.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.8", "10.0.0.9"], "those that no pod's UID goes with");
    assert!(!slice.has_ports && !slice.is_kubernetes_own());
}

#[test]
fn absent_numbers_are_what_kubernetes_takes_them_for() {
    let workload = |spec: Value| {
        serde_json::from_value::<WorkloadRecord>(json!({"metadata": meta("web"), "spec": spec}))
            .unwrap()
            .replicas
    };
    assert_eq!((workload(json!({"replicas": 0})), workload(json!({}))), (0, 1));
    let scaler: AutoscalerRecord = serde_json::from_value(json!({
        "metadata": meta("web"),
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 9},
    }))
    .unwrap();
    assert_eq!((scaler.min_replicas, &*scaler.target_name), (1, "web"));
}

#[test]
fn a_resource_is_kept_whole_without_its_managed_fields() {
    let mut metadata = meta("web");
    metadata["generation"] = json!(3);
    metadata["finalizers"] = json!(["a/b"]);
    metadata["managedFields"] = json!([{}]);
    let resource =
        serde_json::from_value::<ResourceRecord>(json!({"metadata": metadata, "spec": {"service": "web"}}))
            .unwrap();
    assert_eq!((resource.generation, resource.version, resource.deleting), (3, 5, false));
    assert_eq!(&*resource.finalizers, [Box::from("a/b")]);
    assert_eq!(resource.object["spec"]["service"], "web");
    assert!(resource.object["metadata"].get("managedFields").is_none());
    assert!(serde_json::from_slice::<ResourceRecord>(b"{}").is_err());
}

#[test]
fn a_collection_is_of_one_namespace_or_of_all() {
    assert_eq!(Kind::Pods.path(Some("shop")), "/api/v1/namespaces/shop/pods");
    assert_eq!(Kind::Autoscalers.path(None), "/apis/autoscaling/v2/horizontalpodautoscalers");
}
