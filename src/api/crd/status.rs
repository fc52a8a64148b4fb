//! The schema of `status`: the original's fields, which its clients still read back into their types,
//! and ours beside them. Nothing in it is required, so that `status: {}` of an old client passes.

use serde_json::{Value, json};

/// What the controller reports.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "What the controller found: not written by hand.",
        "properties": {
            "conditions": conditions(),
            "startTime": time("Since when the resource is looked after."),
            "podCount": {
                "type": "object",
                "description": "The fleet in numbers.",
                "properties": {
                    "nbPodsManaged": count("Pods that serve."),
                    "nbPodsBreaked": count("Pods that are withheld."),
                    "nbPodsPaused": count("Pods that wait for a human."),
                    "nbPodsUnknown": count("Pods of which it is not known."),
                    "lastProbeTime": time("When it was counted."),
                },
            },
            "observedGeneration": generation(),
            "floor": count("So many pods serve at least; nothing is withheld below it."),
            "selector": {
                "type": "object",
                "description": "The Service's selector without the traffic key: the labels of the fleet.",
                "additionalProperties": {"type": "string", "maxLength": 63},
                "maxProperties": 64,
            },
            "ledger": ledger(),
            "explanations": explanations(),
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
                "type": text("Which: Ready, Gating, ... or one of the original's.", 316),
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": generation(),
                "lastProbeTime": time("When it was last looked at; written only with another change."),
                "lastTransitionTime": time("Since when the status is what it is."),
                "reason": text("One word.", 1024),
                "message": text("What, where, what to do.", 32_768),
            },
        },
    })
}

/// Members that this version does not know are kept: an older definition would otherwise take them out
/// of a newer controller's ledger without a word. It is written as a whole and never merged: so nobody has to keep
/// account of who owns which of its fields.
fn ledger() -> Value {
    json!({
        "type": "object",
        "description": "Every pod that is, or may be about to be, withheld. The gate's own: an edit here makes it start over.",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "schema": count("The layout."),
            "uid": text("Of which resource.", 63),
            "epoch": text("New with each ledger that begins.", 63),
            "serial": {"type": "integer", "format": "int64", "description": "Rises with every write.", "minimum": 0},
        },
    })
}

fn explanations() -> Value {
    json!({
        "type": "array",
        "maxItems": 100,
        "x-kubernetes-list-type": "atomic",
        "description": "The newest decisions, with their numbers.",
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "uid": text("Which pod.", 63),
                "name": text("Its name.", 253),
                "standing": text("Where it stands.", 63),
                "breaker": text("Who objects to it.", 63),
                "why": text("CrdRule, value and threshold.", 4096),
                "decision": text("Why this and not that.", 4096),
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

fn generation() -> Value {
    json!({
        "type": "integer",
        "format": "int64",
        "description": "The metadata.generation that this was found for.",
        "minimum": 0,
    })
}
