//! Explanations of objects as an API server has them, without one.

use super::*;

fn pod(traffic: &str) -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u1",
            "labels": { "app": "web", keys::TRAFFIC: traffic, keys::NAME: "web", keys::STRATEGY: "codes" },
            "annotations": { keys::BREAK_AT: "2026-01-02T03:04:05Z", keys::RETRY_COUNT: "2" },
        },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn service(explanation: &Value) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "service": "web" },
        "status": {
            "conditions": [{ "type": "Ready", "status": "True" }],
            "floor": 5, "serving": 8, "selector": { "app": "web" },
            "explanations": [explanation],
        },
    })
}

fn explain(pod: Option<&Value>, services: &[Value], events: &[Value]) -> PodExplanation {
    PodExplanation::of(pod, services, events, ["shop", "web-1"])
}

#[test]
fn the_controllers_explanation_is_shown_with_the_floor_in_numbers() {
    let explanation = json!({
        "uid": "u1", "name": "web-1", "standing": "withheld", "breaker": "codes", "why": "80 % > 50 %",
        "decision": "bad, and the floor allows it", "since": 0, "retryCount": 1,
        "next": { "what": "serving", "at": 10_000 },
    });
    assert_eq!(
        explain(Some(&pod("no")), &[service(&explanation)], &[]).to_string(),
        "pod       shop/web-1\n\
         service   web (Ready)\n\
         traffic   no\n\
         standing  withheld\n\
         decision  bad, and the floor allows it\n\
         breaker   codes\n\
         why       80 % > 50 %\n\
         since     1970-01-01T00:00:00.000Z\n\
         retries   1\n\
         floor     8 serve - floor 5 = 3 more may be withheld\n\
         next      serving at 1970-01-01T00:00:10.000Z\n"
    );
}

#[test]
fn without_an_explanation_the_pod_itself_is_shown() {
    let found = explain(Some(&pod("no")), &[], &[]);
    assert_eq!((found.standing.as_str(), found.breaker.as_deref()), ("withheld", Some("codes")));
    assert_eq!(found.since.as_deref(), Some("2026-01-02T03:04:05.000Z"));
    assert_eq!(found.retry_count.as_deref(), Some("2"));
    assert_eq!(found.notes, ["its label kubervisor/name is web, but there is no such KubervisorService"]);
    let back = explain(Some(&pod("yes")), &[], &[]);
    assert_eq!((back.standing.as_str(), back.breaker, back.since), ("serving", None, None));
}

#[test]
fn an_explanation_of_an_earlier_pod_of_the_name_is_not_shown() {
    let before = json!({ "uid": "u0", "name": "web-1", "standing": "ending" });
    assert_eq!(explain(Some(&pod("yes")), &[service(&before)], &[]).standing, "serving");
    let gone = explain(None, &[service(&before)], &[]);
    assert_eq!((gone.standing.as_str(), gone.kubervisor_service.as_deref()), ("ending", Some("web")));
    assert_eq!(gone.notes, ["the pod is gone; this is from its KubervisorService and its events"]);
}

#[test]
fn a_pod_that_names_no_service_belongs_to_the_one_whose_fleet_it_is_in() {
    let mut pod = pod("yes");
    pod["metadata"]["labels"].as_object_mut().unwrap().remove(keys::NAME);
    let found = explain(Some(&pod), &[service(&json!({}))], &[]);
    assert_eq!(found.kubervisor_service.as_deref(), Some("web"));
    pod["metadata"]["labels"]["app"] = json!("other");
    let found = explain(Some(&pod), &[service(&json!({}))], &[]);
    assert_eq!(found.kubervisor_service, None);
    assert_eq!(found.notes, ["no KubervisorService of this namespace selects it"]);
}

#[test]
fn below_the_floor_nothing_may_be_withheld() {
    let service = json!({ "status": { "floor": 5, "serving": 3 } });
    let words = "3 serve, 2 fewer than the floor of 5: none may be withheld";
    assert_eq!(floor(&service).as_deref(), Some(words));
    assert_eq!(floor(&json!({ "status": { "floor": 5 } })).as_deref(), Some("at least 5 must serve"));
}

#[test]
fn a_paused_pod_shows_the_command_that_ends_the_pause() {
    let next = explain(Some(&pod("pause")), &[service(&json!({}))], &[]).next.unwrap();
    assert!(next.what.contains("kubectl label pod web-1 kubervisor/traffic=yes --overwrite"), "{next}");
}

#[test]
fn the_newest_events_of_this_pod_are_shown_oldest_first() {
    let event = |second: usize, uid: &str| {
        json!({
            "involvedObject": { "uid": uid }, "reason": "Withheld", "message": format!("{second}"),
            "eventTime": format!("2026-01-02T03:04:{second:02}.000000Z"), "lastTimestamp": null,
        })
    };
    let mut events: Vec<_> = (0..12).map(|second| event(second, "u1")).collect();
    events.push(event(30, "another"));
    events[11]["series"] = json!({ "count": 3, "lastObservedTime": "2026-01-02T03:05:00Z" });
    let shown = newest_events(&events, Some(&pod("no")));
    let messages: Vec<_> = shown.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
    assert_eq!(shown[9].to_string(), "2026-01-02T03:05:00.000Z  Withheld  11 (x3)");
}
