//! The memory of ten thousand cached pods.

use serde_json::json;

use super::{PodRecord, State};

/// A pod of realistic size, without the fields that are not kept.
fn synthetic(n: usize) -> PodRecord {
    let hash = format!("{:010x}", n / 50);
    let text = json!({
        "metadata": {
            "name": format!("checkout-{hash}-{n:05}"), "namespace": format!("team-{}", n % 20),
            "uid": format!("00000000-0000-4000-8000-{n:012}"), "resourceVersion": n.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app.kubernetes.io/name": format!("checkout-{hash}"), "app.kubernetes.io/part-of": "shop",
                "app.kubernetes.io/version": "1.2.3", "pod-template-hash": hash, "kubervisor/traffic": "yes",
                "kubervisor/name": format!("checkout-{hash}"),
            },
            "annotations": {"kubervisor/fence": "00000000000000aa.12345", "breaker/retryCount": "1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": format!("checkout-{hash}"), "uid": format!("owner-{hash}-0000-4000-8000-000000000000")}],
        },
        "status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    serde_json::from_slice::<PodRecord>(text.to_string().as_bytes()).unwrap()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Run alone (`--ignored`): the memory is that of the whole process.
#[test]
#[ignore = "a figure, and only true while nothing else runs in this process"]
fn ten_thousand_pods_fit_into_half_of_the_budget() {
    let mut state = State::default();
    // The allocator's leftovers from making the JSON are not the cache's.
    (0..10_000).for_each(|n| drop(synthetic(n)));
    let before = resident_kib();
    for n in 0..10_000 {
        state.watched(synthetic(n));
        state.pending_changes.clear();
    }
    let took = resident_kib() - before;
    println!("a record: {} bytes", size_of::<PodRecord>());
    println!("10 000 pods: {:.1} MiB, {} bytes each", took as f64 / 1024.0, took * 1024 / 10_000);
    assert!(took < 20 * 1024, "{took} KiB");
}
