//! The recipe of CONTRIBUTING.md for a detector, followed under `cfg(test)`: it compiles, so the recipe names every file.
//! `cargo test --test architecture recipes` holds that no other file has a part of it.

use serde_json::Value;

use super::Observation;
use crate::decide::verdict::{Evidence, Judgement, NoVerdict};

/// `payloadFlag`.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadFlag {
    /// JSON pointer (RFC 6901) into the payload: `false` there is bad, `true` is good.
    pub(crate) pointer: String,
}

pub(super) fn judge(rule: &PayloadFlag, pod: &Observation) -> Judgement {
    match pod.payload.pointer(&rule.pointer) {
        Some(Value::Bool(true)) => Judgement::Good,
        Some(Value::Bool(false)) => Judgement::Bad {
            severity: 1.0,
            evidence: Box::new(Evidence {
                rule: format!("payloadFlag of {:?}", rule.pointer),
                ..Evidence::default()
            }),
        },
        _ => Judgement::None(NoVerdict::NoValue),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        api::{self, Context, Detectors, Manifest, Problems},
        decide::{
            detect::{BreakerSelection, Detector, Windows, evaluate, series::tests::pod},
            time::Timestamp,
            verdict::Opinion,
        },
    };

    fn manifest(breaker: &Value) -> Result<Manifest, Problems> {
        let resource = json!({
            "apiVersion": api::API_VERSION,
            "kind": api::KIND,
            "metadata": {"name": "web"},
            "spec": {"service": "web", "breakers": [breaker]},
        });
        api::from_value("web", resource, Context { detectors: Detectors::All, timing: None, sources: &[] })
    }

    fn message(breaker: &Value) -> String {
        manifest(breaker).unwrap_err().to_string()
    }

    #[test]
    fn a_detector_that_follows_the_recipe_judges_by_its_manifest() {
        let rules = manifest(&json!({"name": "unwell", "payloadFlag": "/ok"})).unwrap().rules;
        assert_eq!(rules[0].detector, Detector::Flag(PayloadFlag { pointer: "/ok".to_owned() }));
        let payloads = [json!({"ok": true}), json!({"ok": false}), json!({})];
        let pods: Vec<_> = ["good", "bad", "none"]
            .into_iter()
            .zip(payloads)
            .map(|(name, payload)| Observation { payload: Arc::new(payload), ..pod(name) })
            .collect();
        let mut windows = Windows::default();
        let found =
            evaluate(&rules, Timestamp::from_unix_millis(0), &pods, &mut windows, BreakerSelection::Due);
        let [source] = &found.sources[..] else { panic!("{found:?}") };
        let judged = source.opinions().iter().map(|(uid, opinion)| match opinion {
            Opinion::Judged(Judgement::Good) => format!("{uid} good"),
            Opinion::Judged(Judgement::Bad { evidence, .. }) => format!("{uid} bad: {}", evidence.rule),
            other => format!("{uid} {other:?}"),
        });
        assert_eq!(
            judged.collect::<Vec<_>>(),
            ["uid-bad bad: payloadFlag of \"/ok\"", "uid-good good", "uid-none Judged(None(NoValue))"]
        );
    }

    #[test]
    fn a_detector_that_follows_the_recipe_has_its_messages() {
        let none = message(&json!({"name": "unwell"}));
        assert!(none.contains("customService, payloadFlag"), "{none}");
        let two = message(&json!({"name": "unwell", "payloadFlag": "/ok", "customService": "x:1"}));
        assert!(two.contains("payloadFlag: is a second detector beside customService"), "{two}");
        let long = message(&json!({"name": "unwell", "payloadFlag": format!("/{}", "x".repeat(4096))}));
        assert!(long.contains("payloadFlag: is longer than 4096 characters"), "{long}");
        let misspelt = message(&json!({"name": "unwell", "payloadFlagg": "/ok"}));
        assert!(misspelt.contains("instead write payloadFlag"), "{misspelt}");
    }
}
