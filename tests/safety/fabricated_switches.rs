//! The checker's own proof, of what people, rollouts and autoscalers change: for each rule a history that breaks it and one
//! that keeps it.

use serde_json::json;

use super::{checker::Violation, story::Story};

/// One change in a history.
type Turn = fn(&mut Story);

/// What turns withholding off.
const SWITCHES: [(&str, Turn); 3] = [
    ("spec.paused", |story| story.edit(|resource| resource["spec"]["paused"] = json!(true))),
    ("a request", |story| {
        let requests = "{\"do\":\"resume\"}\n{\"do\":\"pause\"}";
        story.edit(|it| it["metadata"]["annotations"]["kubervisor/requests"] = json!(requests));
    }),
    ("dry run", |story| story.edit(|resource| resource["spec"]["dryRun"] = json!(true))),
];

#[test]
fn a_reservation_of_a_paused_or_dry_resource_is_found_and_one_of_before_may_land() {
    for (what, turn_off) in SWITCHES {
        let mut story = Story::of_ten();
        story.entry(0, Some("reserved"));
        turn_off(&mut story);
        story.land(0);
        story.later(1.0);
        story.admit(0);
        assert!(story.judged().violations.is_empty(), "{what}: {}", story.judged());
        story.withhold(1);
        story.admit(1);
        story.only(|v| matches!(v, Violation::ReservedWhileOff { pod, .. } if pod == "u1"));
    }
}

#[test]
fn after_a_request_to_resume_withholding_goes_on() {
    let mut story = Story::of_ten();
    let requests = "{\"do\":\"pause\"}\n{\"do\":\"resume\"}";
    story.edit(|it| it["metadata"]["annotations"]["kubervisor/requests"] = json!(requests));
    story.withhold(0);
    story.admit(0);
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
}

#[test]
fn a_withdrawal_that_no_ledger_has_is_found() {
    let mut story = Story::of_ten();
    story.land(0);
    story.admit(0);
    story.only(|v| matches!(v, Violation::Unreserved { .. }));
}

/// A pod is withheld, then it must not be any more, and is given back after so many seconds.
fn given_back(turn: Turn, seconds: f64) -> Story {
    let mut story = Story::of_ten();
    story.withhold(0);
    turn(&mut story);
    story.later(seconds);
    story.admit(0);
    story
}

#[test]
fn what_must_not_be_withheld_any_more_is_given_back_within_ten_seconds() {
    let moved = |story: &mut Story| story.select(&json!({"app": "other", "kubervisor/traffic": "yes"}));
    let ungated = |story: &mut Story| story.select(&json!({"app": "web"}));
    for turn in [SWITCHES[2].1, moved, ungated] {
        assert!(!given_back(turn, 9.9).judged().violations.iter().any(is_dark));
        assert!(given_back(turn, 10.1).judged().violations.iter().any(is_dark));
    }
    assert!(given_back(SWITCHES[0].1, 60.0).judged().violations.is_empty(), "a pause keeps it as it is");
}

fn is_dark(violation: &Violation) -> bool {
    matches!(violation, Violation::NotGivenBack { .. })
}

#[test]
fn a_pod_that_the_service_selected_until_a_moment_before_may_be_withdrawn_and_no_other() {
    for (seconds, frozen, found) in [(1.0, false, false), (3.0, false, true), (3.0, true, false)] {
        let mut story = Story::of_ten();
        story.entry(0, Some("reserved"));
        story.select(&json!({"app": "other", "kubervisor/traffic": "yes"}));
        let since = story.at;
        story.later(seconds);
        if frozen {
            story.circumstances.frozen.push(since..story.at);
        }
        story.land(0);
        story.admit(0);
        let stranger = |v: &Violation| matches!(v, Violation::ForNobody { .. });
        assert_eq!(story.judged().violations.iter().any(stranger), found, "{}", story.judged());
    }
}

#[test]
fn a_scaling_to_a_lower_number_lowers_the_floor_at_once() {
    let mut story = Story::of_ten();
    story.scale(8);
    (0..4).for_each(|number| story.withhold(number));
    (0..4).for_each(|number| story.admit(number));
    let report = story.judged();
    assert!(report.violations.is_empty() && report.narrowest == Some(0), "{report}");
}

#[test]
fn the_surplus_pods_of_a_rollout_serve_and_raise_no_floor() {
    let mut story = Story::of_ten();
    story.add_pods(2);
    (0..4).for_each(|number| story.withhold(number));
    (0..4).for_each(|number| story.admit(number));
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
    (0..5).for_each(|number| story.withhold(number));
    (0..5).for_each(|number| story.admit(number));
    story.only(|v| matches!(v, Violation::BelowFloor { serving: 7, floor: 8, .. }));
}

#[test]
fn the_pods_that_a_rolling_update_of_a_stateful_set_replaces_one_by_one_are_missed() {
    let mut story = Story::of_ten();
    story.owned_by_a_stateful_set();
    story.replace(9);
    story.later(3.0);
    story.withhold(0);
    story.admit(0);
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
    story.withhold(0);
    story.withhold(1);
    story.admit(0);
    story.admit(1);
    story.only(|v| matches!(v, Violation::BelowFloor { serving: 7, floor: 8, .. }));
}

#[test]
fn each_resource_answers_for_its_own_withdrawals_only() {
    let mut story = Story::of_ten();
    let mut other = story.resource.clone();
    (other["metadata"]["uid"], other["spec"]["breakers"][0]["minPodsAvailableRatio"]) =
        ("k2".into(), json!(100));
    story.put("kubervisor.k8s.io/kubervisorservices/shop/other", Some(other));
    story.withhold(0);
    story.admit(0);
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
}
