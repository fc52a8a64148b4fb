//! The bounds of the time lines, and what they remember over a restart.

use std::mem::size_of;

use super::*;
use crate::decide::gate::explain::Explanation;

fn pod(name: &str, standing: Option<PodState>) -> PodSnapshot {
    let explanation = standing.map(|standing| Explanation {
        uid: name.into(),
        name: name.to_owned(),
        standing,
        breaker: None,
        why: None,
        decision: "",
        next: None,
        retry_count: 0,
        since: None,
    });
    PodSnapshot {
        id: name.to_owned(),
        uid: name.into(),
        detail: None,
        ready: true,
        traffic: Traffic::Yes,
        breaker: None,
        break_at: None,
        retry_count: 0,
        explanation: explanation.map(Box::new),
        summary: String::new(),
        history: [].into(),
    }
}

fn snapshot(at: u32, pods: Vec<PodSnapshot>) -> GateSnapshot {
    let at = Timestamp::from_unix_millis(i64::from(at) * 1000);
    GateSnapshot { at, pods, ..GateSnapshot::default() }
}

fn phases(timeline: &FleetTimeline, name: &str) -> Vec<(u32, LanePhase)> {
    timeline.lanes[name].iter().map(|change| (change.at, change.phase)).collect()
}

#[test]
fn only_changes_are_kept_and_a_pod_that_left_is_gone() {
    let mut timeline = FleetTimeline::default();
    for at in 1000..1010 {
        timeline.observe(&snapshot(at, vec![pod("a", None)]));
    }
    timeline.observe(&snapshot(1010, vec![pod("a", Some(PodState::Withheld))]));
    timeline.observe(&snapshot(1020, Vec::new()));
    timeline.observe(&snapshot(1030, Vec::new()));
    assert_eq!(
        phases(&timeline, "a"),
        [(1000, LanePhase::Serving), (1010, LanePhase::Withheld), (1020, LanePhase::Gone)]
    );
    timeline.observe(&snapshot(1020 + 6 * 3600 + 1, Vec::new()));
    assert!(timeline.lanes.is_empty(), "out of reach");
}

#[test]
fn a_restart_remembers_since_when_the_ledger_withholds_a_pod() {
    let fence = "00000000000000aa.1";
    let ledger = serde_json::json!({"schema": 1, "uid": "u", "epoch": "00000000000000aa", "serial": 2, "entries": {"a": {
        "uid": "a", "name": "a", "fence": fence, "next": fence, "state": "withheld", "breaker": "errors",
        "reason": "", "breakAt": 500_000, "retryCount": 1, "desired": 2,
    }}});
    let ledger: Ledger = serde_json::from_value(ledger).unwrap();
    let withheld = PodSnapshot { traffic: Traffic::No, ..pod("a", Some(PodState::Withheld)) };
    let after = GateSnapshot { ledger: Some(ledger), ..snapshot(1000, vec![withheld, pod("b", None)]) };
    let mut timeline = FleetTimeline::default();
    timeline.observe(&after);
    assert_eq!(phases(&timeline, "a"), [(500, LanePhase::Withheld)]);
    assert_eq!(phases(&timeline, "b"), [(1000, LanePhase::Serving)]);
}

#[test]
fn a_hundred_services_of_a_hundred_pods_that_never_rest_stay_within_eight_mebibytes() {
    let mut timeline = FleetTimeline::default();
    for at in 0..3000u32 {
        let flapping = |number: u32| {
            let standing = (at + number).is_multiple_of(2).then_some(PodState::Withheld);
            pod(&format!("web-7d9f8c5b6-{number:05}"), standing)
        };
        timeline.observe(&snapshot(1 + at * 7, (0..100).map(flapping).collect()));
    }
    let lanes = timeline.lanes.iter().map(|(name, lane)| {
        // A B-tree's nodes are at least half full.
        let node = 2 * (size_of::<Box<str>>() + size_of::<VecDeque<Change>>());
        node + name.len() + lane.capacity() * size_of::<Change>()
    });
    let bytes = lanes.sum::<usize>() + timeline.levels.capacity() * size_of::<Level>();
    assert!(100 * bytes <= 8 << 20, "{bytes} bytes for one service");
    assert!(timeline.levels.len() <= LEVELS && timeline.lanes.values().all(|lane| lane.len() <= CHANGES));
}

#[test]
fn pods_that_come_and_go_do_not_pile_up() {
    let mut timeline = FleetTimeline::default();
    for at in 1..1000 {
        timeline.observe(&snapshot(at, vec![pod(&format!("web-{at}"), None)]));
    }
    assert_eq!(timeline.lanes.len(), DEPARTED + 1);
    assert!(timeline.lanes.contains_key("web-999") && timeline.lanes.contains_key("web-940"));
}
