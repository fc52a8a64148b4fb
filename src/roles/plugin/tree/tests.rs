//! Trees of objects as an API server has them, without one.

use super::*;

fn resource() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "service": "front", "defaultActivator": { "period": 30 },
            "breakers": [
                { "name": "codes", "evaluationPeriod": 2, "discreteValueOutOfList": { "promQL": "x" } },
                { "name": "slow", "outlier": {}, "activator": { "mode": "retryAndKill" }, "dryRun": true },
            ],
        },
        "status": {
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Panic", "status": "True", "message": "most look bad" }],
            "floor": 2, "serving": 2, "podCount": { "nbPodsManaged": 3 }, "selector": { "app": "web" },
            "explanations": [{
                "uid": "u1", "name": "web-1", "standing": "withheld", "breaker": "codes", "why": "codes, value 80, threshold 50",
                "decision": "withheld until its time is over", "since": "1970-01-01T00:00:00Z", "retryCount": 2,
                "next": "admitted again at 1970-01-01T00:00:40Z",
            }],
        },
    })
}

fn pods() -> Vec<Value> {
    let pod = |number: u32, traffic: &str| {
        json!({
            "metadata": { "name": format!("web-{number}"), "uid": format!("u{number}"), "labels": { "app": "web", keys::TRAFFIC: traffic } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    vec![pod(1, "no"), pod(2, "yes"), pod(3, "yes")]
}

fn tree() -> ServiceTree {
    let service = json!({ "spec": { "selector": { "app": "web", keys::TRAFFIC: "yes" } } });
    ServiceTree::of(&resource(), Some(&service), &pods(), Timestamp::from_unix_millis(10_000))
}

#[test]
fn pods_hang_below_the_breaker_that_withholds_them_with_value_and_next_step() {
    assert_eq!(
        tree().text(Style::default(), false),
        "service/front             gated\n\
         └─ kubervisorservice/web  Ready     2 of 3 serve, floor 2: 0 more may be withheld\n   \
            ├─ breaker/codes       1 bad     discreteValueOutOfList every 2 s, periodic 30 s\n   \
            │  └─ pod/web-1        withheld  codes, value 80, threshold 50; admitted again in 30s\n   \
            ├─ breaker/slow        dry run   outlier every 5 s, retryAndKill 30 s\n   \
            └─ other pods                    2, no breaker objects to them or withholds them\n      \
               ├─ pod/web-2        serving\n      \
               └─ pod/web-3        serving\n\
         note: Panic is True: most look bad\n"
    );
    let wide = tree().text(Style { ascii: true, ..Style::default() }, true);
    assert!(wide.contains("|  `- pod/web-1"), "{wide}");
    assert!(wide.contains("admitted again in 30s; for 10s; withdrawals 2"), "{wide}");
}

#[test]
fn the_other_formats_have_the_same_facts() {
    let tree = tree();
    let value = tree.value();
    assert_eq!(value["breakers"][0]["pods"][0]["next"]["at"], "1970-01-01T00:00:40.000Z");
    assert_eq!((&value["service"]["gated"], &value["floor"]), (&json!(true), &json!(2)));
    let names =
        ["service/front", "kubervisorservice.kubervisor.k8s.io/web", "pod/web-1", "pod/web-2", "pod/web-3"];
    assert_eq!(tree.names(), names);
}

#[test]
fn before_the_first_status_the_services_selector_finds_the_pods() {
    let mut resource = resource();
    resource.as_object_mut().unwrap().remove("status");
    let service = json!({ "spec": { "selector": { "app": "web", keys::TRAFFIC: "yes", "b": "c" } } });
    assert_eq!(selector(&resource, Some(&service)).as_deref(), Some("app=web,b=c"));
    let only_switch = json!({ "spec": { "selector": { keys::TRAFFIC: "yes" } } });
    assert_eq!(selector(&resource, Some(&only_switch)), None);
}

#[test]
fn of_many_plain_pods_the_narrow_form_shows_some_and_counts_the_rest() {
    let mut tree = tree();
    let pod = || PodNode::from(PodExplanation::of(Some(&pods()[1]), &[], &[], ["shop", "web-2"]));
    tree.pods = (0..30).map(|_| pod()).collect();
    assert!(tree.text(Style::default(), false).contains("└─ 10 more"));
    assert_eq!(tree.text(Style::default(), true).matches("pod/web-2").count(), 30);
}
