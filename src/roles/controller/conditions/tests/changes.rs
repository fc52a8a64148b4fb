//! What counts as a change of the status, and what it counts.

use super::*;

#[test]
fn the_same_facts_later_make_the_same_status() {
    let mut view = view();
    view.pods[0].explanation = Some(Box::new(explained("web-1", Some(0))));
    view.plan.as_mut().unwrap().explanations = vec![explained("web-1", Some(0))];
    let first = status(&facts(Some(&view)));
    // Only today's numbers are others.
    view.plan.as_mut().unwrap().explanations[0].why = Some("8 of 10 are bad".to_owned());
    let later = Facts { previous: Some(&first), now: at(100), started: at(90), ..facts(Some(&view)) };
    let second = status(&later);
    assert_eq!(first, second, "to the last byte");
    assert!(!changed(&first, &second));
}

#[test]
fn the_transition_time_is_that_of_the_status_and_the_probe_time_that_of_any_change() {
    let (well, reached) = (view(), alarmed("floor_reached"));
    let first = status(&facts(Some(&well)));
    let second = status(&Facts { previous: Some(&first), now: at(10), ..facts(Some(&reached)) });
    assert!(changed(&first, &second));
    let times = |status: &Value, kind: &str| {
        let condition = found(status, kind).unwrap();
        (condition["lastTransitionTime"].clone(), condition["lastProbeTime"].clone())
    };
    let (zero, ten, twenty) = (seconds(at(0)), seconds(at(10)), seconds(at(20)));
    assert_eq!(times(&second, "FloorReached"), (ten.clone(), ten.clone()));
    assert_eq!(times(&second, "Ready"), (zero.clone(), zero.clone()));
    let below = alarmed("below_floor");
    let third = status(&Facts { previous: Some(&second), now: at(20), ..facts(Some(&below)) });
    assert_eq!(times(&third, "FloorReached"), (ten, twenty), "another reason, the same status");
}

#[test]
fn probe_times_the_ledger_and_the_owner_are_no_change() {
    let view = view();
    let mut old = status(&facts(Some(&view)));
    let new = old.clone();
    old["ledger"] = json!({"serial": 4});
    old["owner"] = json!({"member": "kubervisor-0", "generation": 3});
    old["podCount"]["lastProbeTime"] = json!("2001-01-01T00:00:00Z");
    old["conditions"][0]["lastProbeTime"] = json!("2001-01-01T00:00:00Z");
    assert!(!changed(&old, &new));
    old["conditions"][0]["lastTransitionTime"] = json!("2001-01-01T00:00:00Z");
    assert!(changed(&old, &new));
    assert!(changed(&json!({}), &new));
    assert!(!changed(&Value::Null, &json!({})));
}

#[test]
fn ready_pods_are_counted_as_the_original_counts_them_and_others_not_at_all() {
    let mut view = view();
    view.pods =
        [Traffic::Yes, Traffic::Yes, Traffic::No, Traffic::Pause, Traffic::Other, Traffic::Unlabelled]
            .into_iter()
            .map(|traffic| pod_snapshot("web", traffic))
            .collect();
    view.pods.extend(view.pods.clone().into_iter().map(|pod| PodSnapshot { ready: false, ..pod }));
    let status = status(&facts(Some(&view)));
    let count = |name: &str| status["podCount"][name].as_u64().unwrap();
    let counts = ["nbPodsManaged", "nbPodsBreaked", "nbPodsPaused", "nbPodsUnknown"].map(count);
    assert_eq!(counts, [6, 1, 1, 2]);
}

#[test]
fn the_newest_hundred_explanations_are_kept_within_the_schema() {
    let mut view = view();
    let mut all: Vec<_> = (0..150).map(|pod| explained(&format!("web-{pod}"), Some(pod))).collect();
    all[149].why = Some("é\n".repeat(5000));
    view.plan.as_mut().unwrap().explanations = all;
    let status = status(&facts(Some(&view)));
    let explanations = status["explanations"].as_array().unwrap();
    assert_eq!(explanations.len(), 100);
    assert_eq!((&explanations[0]["name"], &explanations[99]["name"]), (&json!("web-149"), &json!("web-50")));
    assert_eq!(explanations[0]["why"].as_str().unwrap().chars().count(), LONGEST_TEXT);
    let expected = json!({
        "uid": "uid-of-web-148", "name": "web-148", "standing": "withheld", "breaker": "errors",
        "why": "9 of 10 are bad", "decision": "its time is not over",
        "next": "serving at 2023-11-14T22:13:40Z", "retryCount": 2, "since": "2023-11-14T22:15:48Z",
    });
    assert_eq!(explanations[1], expected);
}
