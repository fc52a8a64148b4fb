//! The schema of `status`: the original's fields, which its clients decode into their types, and ours. No member is
//! required, so that the API server accepts `status: {}` of an old client.

use serde_json::{Value, json};

const GENERATION: &str = "The metadata.generation that this refers to.";

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "What the controller found. Written by the controller only.",
        "properties": {
            "conditions": conditions(),
            "startTime": time("When the controller began to manage the resource."),
            "podCount": {
                "type": "object",
                "description": "Numbers of ready pods; one that is not ready is in none of them.",
                "properties": {
                    "nbPodsManaged": count("All ready pods of the fleet, withheld and paused ones too."),
                    "nbPodsBreaked": count("Pods that are withheld from traffic."),
                    "nbPodsPaused": count("Pods that stay withheld until a person lets them go, because their retries are used up."),
                    "nbPodsUnknown": count("Pods whose traffic state is unknown."),
                    "lastProbeTime": time("When the pods were counted."),
                },
            },
            "observedGeneration": count(GENERATION),
            "serving": count("Pods that serve: ready, with traffic=yes, and in ready endpoints."),
            "floor": count("Floor: the number of pods that go on serving, however many are bad."),
            "selector": {
                "type": "object",
                "description": "Labels of the fleet's pods: the Service's selector without the key kubervisor/traffic.",
                "additionalProperties": {"type": "string", "maxLength": 63},
                "maxProperties": 64,
            },
            "owner": {
                "type": "object",
                "description": "The replica that works on the resource, where several share the work.",
                "properties": {
                    "member": text("Id of the replica, as in kubervisor cluster.", 316),
                    "generation": {"type": "integer", "format": "int64", "description": "Rises with each owner: a write of an earlier one is refused.", "minimum": 0},
                },
            },
            "ledger": ledger(),
            "explanations": explanations(),
            "episodes": episodes(),
        },
    })
}

fn conditions() -> Value {
    json!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status"],
            "properties": {
                "type": text("Type of the condition, such as Ready, Gating, DataAvailable or Panic.", 316),
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": count(GENERATION),
                "lastProbeTime": time("When the condition was last evaluated. Written only together with another change."),
                "lastTransitionTime": time("When the status last changed."),
                "reason": text("Reason of the status, in one word.", 1024),
                "message": text("What happened, where, and what to do about it.", 32_768),
            },
        },
    })
}

/// Unknown members are preserved: an older definition would otherwise prune them from a newer controller's ledger. The
/// map is atomic, because the ledger is written as a whole and field ownership would only cost size.
fn ledger() -> Value {
    json!({
        "type": "object",
        "description": "Record of every pod that is withheld or about to be. Written by the gate only: after an edit it begins anew.",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "schema": count("Version of the ledger's layout."),
            "uid": text("UID of the resource.", 63),
            "epoch": text("Random name of this ledger; a ledger that begins anew has another one.", 63),
            "serial": {"type": "integer", "format": "int64", "description": "Number of the write: each one raises it.", "minimum": 0},
        },
    })
}

fn explanations() -> Value {
    json!({
        "type": "array",
        "maxItems": 100,
        "x-kubernetes-list-type": "atomic",
        "description": "The newest decisions about pods, with the values behind them.",
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "uid": text("UID of the pod.", 63),
                "name": text("Name of the pod.", 253),
                "standing": text("State of the pod, such as withheld or serving.", 63),
                "breaker": text("Breaker that finds the pod bad.", 63),
                "why": text("Rule, value and threshold of that breaker.", 4096),
                "decision": text("Decision of the gate, and its reason.", 4096),
            },
        },
    })
}

fn episodes() -> Value {
    json!({
        "type": "array",
        "maxItems": 50,
        "x-kubernetes-list-type": "atomic",
        "description": "When pods were withheld, and when a dry run would have withheld them: the newest first.",
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "kind": text("real, or dryRun for what was not done.", 63),
                "pod": text("Name of the pod.", 253),
                "uid": text("UID of the pod.", 63),
                "breaker": text("Breaker that found the pod bad.", 63),
                "reason": text("Rule, value and threshold of that breaker.", 4096),
                "retryCount": count("Withdrawals of the pod, this one included."),
                "from": time("When the pod was withheld."),
                "to": time("When it was withheld no more; missing while it is."),
            },
        },
    })
}

fn text(description: &str, longest: u32) -> Value {
    json!({"type": "string", "description": description, "maxLength": longest})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn count(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "description": description, "minimum": 0})
}
