//! The checker's own proof: histories that break the promise in one way each, and one that keeps it.

use std::time::Duration;

use serde_json::json;

use super::{checker::Violation, story::Story};

#[test]
fn a_history_down_to_the_floor_and_back_is_in_order() {
    let mut story = Story::of_ten();
    story.withhold(0);
    story.withhold(1);
    story.later(5.0);
    story.admit(0);
    story.admit(1);
    let report = story.judged();
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!((report.withdrawals, report.admissions, report.narrowest), (2, 2, Some(0)));
}

#[test]
fn one_withdrawal_below_the_floor_is_found() {
    let mut story = Story::of_ten();
    for number in 0..3 {
        story.withhold(number);
    }
    for number in 0..3 {
        story.admit(number);
    }
    story.only(|v| matches!(v, Violation::BelowFloor { serving: 7, floor: 8, .. }));
}

#[test]
fn a_pod_that_was_lost_a_moment_before_counts_and_one_lost_long_ago_does_not() {
    let mut story = Story::of_ten();
    story.ready(9, false);
    story.later(1.9);
    story.withhold(0);
    story.withhold(1);
    story.later(1.0);
    story.admit(0);
    story.admit(1);
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
    story.later(1.0);
    story.withhold(0);
    story.withhold(1);
    story.admit(0);
    story.admit(1);
    story.only(|v| matches!(v, Violation::BelowFloor { serving: 7, floor: 8, .. }));
}

#[test]
fn a_pod_that_no_slice_lists_counts_for_no_withdrawal_unless_it_was_dropped_a_moment_before() {
    for (seconds, found) in [(1.0, false), (3.0, true)] {
        let mut story = Story::of_ten();
        story.list(0..8);
        story.later(seconds);
        story.withhold(0);
        story.admit(0);
        assert_eq!(!story.judged().violations.is_empty(), found, "{}", story.judged());
    }
}

#[test]
fn no_time_passes_for_a_request_while_there_is_no_api_server() {
    let mut story = Story::of_ten();
    story.ready(9, false);
    story.later(3.0);
    for number in 0..2 {
        story.withhold(number);
        story.admit(number);
    }
    story.withhold(0);
    story.withhold(1);
    story.later(1.0);
    story.admit(0);
    story.admit(1);
    assert!(!story.judged().violations.is_empty());
    story.circumstances.away.push(Duration::from_secs(61)..Duration::from_secs(63));
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
}

#[test]
fn what_we_withdrew_ourselves_is_never_counted_as_serving() {
    let mut story = Story::of_ten();
    story.ready(0, false);
    story.withhold(0);
    story.withhold(1);
    story.withhold(2);
    story.ready(0, true);
    (0..3).for_each(|number| story.admit(number));
    story.only(|v| matches!(v, Violation::BelowFloor { serving: 7, .. }));
}

#[test]
fn a_floor_that_rose_a_moment_before_is_not_held_against_us_and_one_that_rose_earlier_is() {
    for (seconds, found) in [(1.0, false), (3.0, true)] {
        let mut story = Story::of_ten();
        story.scale(12);
        story.later(seconds);
        story.withhold(0);
        story.withhold(1);
        story.admit(0);
        story.admit(1);
        assert_eq!(!story.judged().violations.is_empty(), found, "{}", story.judged());
    }
}

#[test]
fn the_least_of_an_autoscaler_counts() {
    let mut story = Story::of_ten();
    let target = json!({"kind": "Deployment", "name": "web"});
    let scaler = json!({"spec": {"scaleTargetRef": target, "minReplicas": 12}});
    story.put("horizontalpodautoscalers/shop/web", Some(scaler));
    story.later(3.0);
    story.withhold(0);
    story.withhold(1);
    story.admit(0);
    story.admit(1);
    story.only(|v| matches!(v, Violation::BelowFloor { serving: 8, floor: 9, .. }));
}

/// Two withheld, then another two lost without us.
fn below(seconds: f64) -> Story {
    let mut story = Story::of_ten();
    story.withhold(0);
    story.withhold(1);
    story.ready(8, false);
    story.ready(9, false);
    story.later(seconds);
    story.admit(0);
    story.admit(1);
    story
}

#[test]
fn what_is_below_the_floor_for_longer_than_ten_seconds_is_found() {
    assert!(below(9.9).judged().violations.is_empty(), "{}", below(9.9).judged());
    below(10.1).only(|v| matches!(v, Violation::NotRestored { .. }));
}

#[test]
fn below_the_floor_at_the_very_end_is_found() {
    let mut story = below(1.0);
    story.withhold(0);
    story.later(11.0);
    assert!(story.judged().violations.iter().any(|v| matches!(v, Violation::NotRestored { .. })));
}

#[test]
fn nobody_restores_while_nobody_is_there_and_ten_seconds_later_somebody_must_have() {
    let mut story = below(30.0);
    let seconds = Duration::from_secs;
    story.circumstances.excused.push(seconds(65)..seconds(81));
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
    story.circumstances.excused[0].end = seconds(79);
    story.only(|v| matches!(v, Violation::NotRestored { .. }));
}

#[test]
fn pods_that_cannot_serve_need_not_be_restored() {
    let mut story = Story::of_ten();
    story.withhold(0);
    story.ready(0, false);
    (6..10).for_each(|number| story.ready(number, false));
    story.later(60.0);
    story.ready(0, true);
    story.admit(0);
    assert!(story.judged().violations.is_empty(), "{}", story.judged());
}

#[test]
fn a_persons_no_is_not_our_withdrawal() {
    let mut story = Story::of_ten();
    (0..5).for_each(|number| story.traffic_by_hand(number, "no"));
    story.later(60.0);
    (0..5).for_each(|number| story.traffic_by_hand(number, "yes"));
    let report = story.judged();
    assert!(report.violations.is_empty() && report.withdrawals == 0, "{report}");
}

#[test]
fn the_audit_log_has_the_last_word_on_who_wrote() {
    let mut story = Story::of_ten();
    story.withhold(0);
    story.circumstances.authors.insert(story.revisions.len() as i64, "admin".to_owned());
    story.admit(0);
    assert_eq!(story.judged().withdrawals, 0);
    story.traffic_by_hand(1, "no");
    story.circumstances.authors.insert(story.revisions.len() as i64, "kubervisor".to_owned());
    story.traffic_by_hand(1, "yes");
    story.only(|v| matches!(v, Violation::Unmarked { .. } | Violation::Unreserved { .. }));
}

#[test]
fn what_is_left_at_the_end_is_found() {
    let mut story = Story::of_ten();
    story.withhold(0);
    story.entry(0, None);
    story.only(|v| matches!(v, Violation::Stuck { .. }));
    story.traffic_by_hand(0, "yes");
    story.only(|v| matches!(v, Violation::Leaked { .. }));
    story.admit(0);
    story.pods[0]["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] =
        json!("-2147483647");
    story.store(0);
    story.only(|v| matches!(v, Violation::Leaked { .. }));
    story.admit(0);
    story.entry(0, Some("reserved"));
    story.only(|v| matches!(v, Violation::LedgerNotEmpty { .. }));
    story.end_resource();
    story.only(|v| matches!(v, Violation::Leaked { key: "kubervisor/name", .. }));
}

#[test]
fn a_withdrawal_for_a_resource_that_is_gone_is_found() {
    let mut story = Story::of_ten();
    story.end_resource();
    story.land(0);
    assert!(story.judged().violations.iter().any(|v| matches!(v, Violation::ForNobody { .. })));
}

#[test]
fn a_fence_that_comes_again_is_found() {
    let mut story = Story::of_ten();
    for fence in ["e.2", "e.1"] {
        story.pods[0]["metadata"]["annotations"]["kubervisor/fence"] = json!(fence);
        story.store(0);
    }
    story.only(|v| matches!(v, Violation::RepeatedFence { .. }));
}
