//! `kubectl kubervisor report NAME`: the episodes that a resource keeps.

use serde_json::{Value, json};

use crate::{
    fixture::{conditions, err, install, kubervisor, out, resource},
    plane::{self, User},
};

fn status() -> Value {
    json!({
        "conditions": conditions(&[("Ready", "True", "Serving"), ("FloorReached", "True", "FloorReached")]),
        "startTime": "2026-01-02T00:00:00Z", "floor": 5, "serving": 5, "podCount": {"nbPodsManaged": 7},
        "episodes": [
            {
                "kind": "dryRun", "pod": "web-2", "uid": "u2", "breaker": "slow", "reason": "0.9 s, at most 0.4",
                "retryCount": 1, "from": "2026-01-02T04:00:00Z", "to": "2026-01-02T04:30:00Z",
            },
            {
                "kind": "real", "pod": "web-1", "uid": "u1", "breaker": "codes", "reason": "80 % of its answers are 5xx",
                "retryCount": 2, "from": "2026-01-02T03:00:00Z", "to": "2026-01-02T03:10:00Z",
            },
        ],
    })
}

#[tokio::test]
async fn a_report_of_a_resource_has_real_and_would_be_withdrawals_apart_in_every_format() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "report").await;
    resource(&plane, &namespace, "web", &status()).await;
    let report = |further: &[&str]| {
        kubervisor(&plane, User::Admin, &[&["report", "web", "-n", &namespace], further].concat())
    };
    let text = out(&report(&[]));
    for words in [
        "Recorded from 2026-01-02T00:00:00.000Z",
        &format!("{namespace}/web, as it was\n  Withheld              1 pods, 1 times, 10.0 pod-minutes"),
        "as it would have been (dry run)\n  Would have withheld   1 pods, 1 times, 30.0 pod-minutes",
        "80 % of its answers are 5xx",
        "FloorReached is True now",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let model: Value = serde_json::from_str(&out(&report(&["-o", "json"]))).unwrap();
    let told = |index: usize| {
        let policy = &model["policies"][index];
        (policy["kind"].clone(), policy["episodes"][0]["pod"].clone(), policy["summary"]["panics"].clone())
    };
    assert_eq!(told(0), (json!("real"), json!("web-1"), Value::Null));
    assert_eq!(told(1), (json!("dryRun"), json!("web-2"), Value::Null));
    let found = report(&["-o", "junit", "--fail-on", "withheld"]);
    assert_eq!(found.status.code(), Some(3), "{}", err(&found));
    let xml = String::from_utf8(found.stdout).unwrap();
    assert!(xml.contains("failures=\"1\"") && xml.contains("1 episodes, 10.0 pod-minutes"), "{xml}");
}

#[tokio::test]
async fn what_a_report_cannot_know_or_find_is_said() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "reports").await;
    resource(&plane, &namespace, "web", &status()).await;
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = kubervisor(&plane, User::Admin, &[&["report", "-n", &namespace], arguments].concat());
        assert_eq!(
            (output.status.code(), err(&output).contains(words)),
            (Some(code), true),
            "{}",
            err(&output)
        );
    };
    refused(&[], 2, "--file");
    refused(&["web", "-f", "web.yaml"], 2, "cannot be used with");
    refused(&["web", "--fail-on", "panic"], 2, "need a replay");
    refused(&["web", "-o", "name"], 2, "json, yaml or junit");
    refused(&["../web"], 2, "another kind of resource");
    refused(&["nobody"], 1, "no KubervisorService nobody");
    // Of the manifest, before anything is asked.
    refused(&["-f", "nowhere.yaml", "--prometheus", "127.0.0.1:1"], 2, "nowhere.yaml");
}
