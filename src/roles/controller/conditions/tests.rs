//! Every condition, its times, and that the same facts make the same status.

mod changes;

use std::collections::BTreeMap;

use super::*;
use crate::{
    adapters::sink::{Hindrance, ListingFinding, ListingFindings},
    decide::alarm_reason::AlarmReason,
    decide::{
        fleet::{Epoch, Fence, Fleet, PodView, Traffic, Uid},
        gate::{
            self,
            budget::Budget,
            explain::{NextStep, PodState},
            fleet_alarms::FleetAlarm,
            ledger::Ledger,
        },
        policy::Policy,
        verdict::Verdicts,
    },
    roles::gate::snapshot::{GateMode, PodSnapshot},
};

const ALWAYS: [&str; 10] = [
    "Ready",
    "Gating",
    "FloorReached",
    "DataAvailable",
    "DryRun",
    "Panic",
    "InitFailed",
    "Running",
    "ServiceNotAvailable",
    "Failed",
];

fn at(second: i64) -> Timestamp {
    // Not on a whole second: the status must be.
    Timestamp::from_unix_millis(1_700_000_000_789 + second * 1000)
}

/// A plan of a fleet that is well.
fn plan() -> Plan {
    let ledger = Ledger::begin("uid", Epoch(1));
    let pods = (1..=4).map(|pod| {
        PodView::serving(format!("uid-{pod}"), format!("web-{pod}"), Fence { epoch: Epoch(1), serial: 1 })
    });
    let verdicts = Verdicts { evaluation: 0, sources: Vec::new() };
    gate::plan(at(0), &Policy::without_manifest("web"), &Fleet::new(4, pods.collect()), &ledger, &verdicts)
}

fn pod_snapshot(name: &str, traffic: Traffic) -> PodSnapshot {
    PodSnapshot {
        id: name.to_owned(),
        uid: format!("uid-of-{name}").as_str().into(),
        detail: None,
        ready: true,
        traffic,
        breaker: None,
        break_at: None,
        retry_count: 0,
        explanation: None,
        summary: String::new(),
        history: [].into(),
    }
}

fn explained(name: &str, second: Option<i64>) -> Explanation {
    Explanation {
        uid: Uid::from(format!("uid-of-{name}")),
        name: name.to_owned(),
        standing: PodState::Withheld,
        breaker: Some("errors".to_owned()),
        why: Some("9 of 10 are bad".to_owned()),
        decision: "its time is not over",
        next: Some(NextStep { what: "serving", at: Some(at(20)) }),
        retry_count: 2,
        since: second.map(at),
    }
}

fn view() -> GateSnapshot {
    let mut view = GateSnapshot { part: GateMode::Leading, at: at(0), ..GateSnapshot::default() };
    view.pods = (1..=4).map(|pod| pod_snapshot(&format!("web-{pod}"), Traffic::Yes)).collect();
    view.floor.budget = Budget { desired: 4, existing: 4, floor: 2, serving: 4, joining: 0, entries: 0 };
    view.plan = Some(plan());
    view
}

fn alarmed(reason: &str) -> GateSnapshot {
    let mut view = view();
    let reason = *AlarmReason::ALL.iter().find(|known| **known == reason).unwrap();
    let alarm = FleetAlarm { reason, message: format!("{reason} of web-1") };
    if let Some(plan) = &mut view.plan {
        plan.alarms.push(alarm);
    }
    view
}

static IN_STEP: ListingFindings = ListingFindings { not_listed: None, not_leaving: None };

fn stand_still() -> ListingFindings {
    let finding = ListingFinding { reason: "SlicesStandStill", message: "web-1: it hangs".to_owned() };
    ListingFindings { not_listed: Some(finding.clone()), not_leaving: Some(finding) }
}

static NOTHING: BTreeMap<String, String> = BTreeMap::new();

fn facts(snapshot: Option<&GateSnapshot>) -> Facts<'_> {
    Facts {
        service_name: "web",
        generation: 7,
        previous: None,
        now: at(0),
        started: at(0),
        problem: None,
        service: ServiceState::Gated,
        snapshot,
        dry_run: false,
        paused: false,
        panic_threshold: Some(50),
        overlap: None,
        ledger: None,
        template_unlabelled: false,
        failures: &NOTHING,
        listing: &IN_STEP,
        rbac: None,
        selector: &NOTHING,
        notified: &NOTHING,
    }
}

fn found<'v>(status: &'v Value, kind: &str) -> Option<&'v Value> {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind)
}

/// Such as `True InvalidSpec`; empty for an absent condition.
fn reason_of(status: &Value, kind: &str) -> String {
    let word = |condition: &Value, member: &str| condition[member].as_str().unwrap().to_owned();
    found(status, kind)
        .map(|found| format!("{} {}", word(found, "status"), word(found, "reason")))
        .unwrap_or_default()
}

#[track_caller]
fn assert_conditions(facts: &Facts<'_>, expected: &[(&str, &str)]) {
    let status = status(facts);
    for (kind, what) in expected {
        assert_eq!(reason_of(&status, kind), *what, "{kind} of {status:#}");
    }
    assert_eq!(reason_of(&status, "Running"), reason_of(&status, "Ready"), "one mirrors the other");
    for condition in status["conditions"].as_array().unwrap() {
        let message = condition["message"].as_str().unwrap();
        assert!(message.len() > 10 && !message.contains('\n') && !message.contains("  "), "{message}");
        assert_eq!(condition["observedGeneration"], 7);
    }
}

#[test]
fn a_healthy_fleet_has_only_the_conditions_that_are_always_present() {
    let view = view();
    let status = status(&facts(Some(&view)));
    let kinds: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert_eq!(kinds, ALWAYS);
    let bad = ["FloorReached", "DryRun", "Panic", "InitFailed", "ServiceNotAvailable", "Failed"];
    for kind in ALWAYS {
        let expected = if bad.contains(&kind) { "False" } else { "True" };
        assert_eq!(found(&status, kind).unwrap()["status"], expected, "{kind}");
    }
    assert_eq!(status["floor"], 2);
    assert_eq!(status["observedGeneration"], 7);
    assert_eq!(status["startTime"], "2023-11-14T22:13:20Z");
    let counts = json!({
        "nbPodsManaged": 4, "nbPodsBreaked": 0, "nbPodsPaused": 0, "nbPodsUnknown": 0,
        "lastProbeTime": "2023-11-14T22:13:20Z",
    });
    assert_eq!(status["podCount"], counts);
}

#[test]
fn before_the_first_plan_conditions_are_unknown_and_old_counts_stay() {
    let old = json!({"floor": 3, "podCount": {"nbPodsManaged": 9}, "startTime": "2020-01-01T00:00:00Z"});
    let facts = Facts { previous: Some(&old), ..facts(None) };
    let unknown = "Unknown NotYetKnown";
    assert_conditions(
        &facts,
        &[("Ready", unknown), ("FloorReached", unknown), ("DataAvailable", unknown), ("Panic", unknown)],
    );
    let status = status(&facts);
    assert_eq!((&status["floor"], &status["podCount"]["nbPodsManaged"]), (&json!(3), &json!(9)));
    assert_eq!(status["startTime"], "2020-01-01T00:00:00Z");
    assert_eq!(status.get("explanations"), None);
}

#[test]
fn a_bad_spec_is_the_originals_init_failed() {
    let problem = Some(ResourceProblem::InvalidSpec("breakers[0].name: missing".into()));
    let facts = Facts { problem, ..facts(None) };
    assert_conditions(
        &facts,
        &[("Ready", "False InvalidSpec"), ("InitFailed", "True InvalidSpec"), ("Failed", "False Working")],
    );
    assert!(
        found(&status(&facts), "Ready").unwrap()["message"].as_str().unwrap().contains("breakers[0].name")
    );
}

#[test]
fn what_the_controller_cannot_do_is_failed() {
    let view = view();
    let base = facts(Some(&view));
    let problem = Some(ResourceProblem::Failed("the ledger has grown legs".into()));
    assert_conditions(
        &Facts { problem, ..base.clone() },
        &[("Ready", "False Failed"), ("Failed", "True Failed"), ("InitFailed", "False SpecValid")],
    );
    assert_conditions(
        &Facts { rbac: Some("patch pods".into()), ..base },
        &[
            ("Ready", "False RoleLacksVerb"),
            ("Forbidden", "True RoleLacksVerb"),
            ("Failed", "True RoleLacksVerb"),
        ],
    );
    let mut frozen = GateSnapshot { part: GateMode::Frozen, ..view.clone() };
    frozen.frozen = Some("the ledger cannot be read".into());
    assert_conditions(&facts(Some(&frozen)), &[("Ready", "False Frozen"), ("Failed", "True Frozen")]);
}

#[test]
fn kstatus_reads_failed_where_nothing_goes_on_by_itself_and_in_progress_where_it_does() {
    let view = view();
    let base = facts(Some(&view));
    assert_conditions(&base, &[("Reconciling", ""), ("Stalled", "")]);
    let problem = Some(ResourceProblem::InvalidSpec("breakers[0].name: missing".into()));
    let refused = ServiceState::Refused("ExternalName has no pods".into());
    let other = Some("KubervisorService api".to_owned());
    for (facts, stalled) in [
        (Facts { problem, ..base.clone() }, "True InvalidSpec"),
        (Facts { service: refused, ..base.clone() }, "True ServiceRefused"),
        (Facts { overlap: other, ..base.clone() }, "True SamePods"),
    ] {
        assert_conditions(&facts, &[("Stalled", stalled), ("Reconciling", "")]);
    }
    for (facts, reconciling) in [
        (facts(None), "True NotYetKnown"),
        (Facts { service: ServiceState::Missing, ..base.clone() }, "True ServiceMissing"),
        (Facts { rbac: Some("patch pods".into()), ..base }, "True RoleLacksVerb"),
        (facts(Some(&alarmed("unclaimed"))), "True PodsUnclaimed"),
    ] {
        assert_conditions(&facts, &[("Reconciling", reconciling), ("Stalled", "")]);
    }
}

#[test]
fn a_missing_or_refused_service_is_in_three_conditions() {
    for (service, reason) in [
        (ServiceState::Missing, "ServiceMissing"),
        (ServiceState::Refused("ExternalName has no pods".into()), "ServiceRefused"),
    ] {
        assert_conditions(
            &Facts { service, ..facts(None) },
            &[
                ("Ready", &format!("False {reason}")),
                ("Gating", &format!("False {reason}")),
                ("ServiceNotAvailable", &format!("True {reason}")),
            ],
        );
    }
}

#[test]
fn the_key_in_the_selector_is_gating_and_without_it_the_resource_is_ready_too() {
    let view = view();
    let base = facts(Some(&view));
    assert_conditions(&base, &[("Gating", "True SelectorHasKey")]);
    assert_conditions(&Facts { paused: true, ..base.clone() }, &[("Gating", "True Paused")]);
    let ungated = Facts { service: ServiceState::Ungated, ..base };
    assert_conditions(&ungated, &[("Ready", "True AllPodsClaimed"), ("Gating", "False SelectorLacksKey")]);
    let status = status(&ungated);
    let message = found(&status, "Gating").unwrap()["message"].as_str().unwrap();
    assert!(message.contains("kubervisor/traffic: \"yes\""), "what to write: {message}");
}

#[test]
fn the_plans_alarms_are_conditions() {
    for (alarm, kind, what) in [
        ("unclaimed", "Ready", "False PodsUnclaimed"),
        ("floor_reached", "FloorReached", "True FloorHolds"),
        ("below_floor", "FloorReached", "True BelowFloor"),
        ("no_data", "DataAvailable", "False TooFewVerdicts"),
        ("foreign_no", "ForeignNo", "True WithheldByOthers"),
        ("odd_switch", "ForeignNo", "True OddSwitch"),
        ("ledger_full", "LedgerFull", "True TooLarge"),
        ("not_listed", "NotListed", "True SlicesStandStill"),
        ("one_per_node", "OnePerNode", "True NothingCanBeWithheld"),
        ("set_back", "SetBack", "True AnotherManager"),
        ("writes_refused", "WritesRefused", "True WriteRefused"),
    ] {
        let view = alarmed(alarm);
        let stand_still = ListingFindings { not_leaving: None, ..stand_still() };
        let facts = Facts { listing: &stand_still, ..facts(Some(&view)) };
        assert_conditions(&facts, &[(kind, what)]);
        let status = status(&facts);
        let message = found(&status, kind).unwrap()["message"].as_str().unwrap();
        assert!(message.contains("web-1"), "{message}");
        let lasting = LASTING.iter().any(|lasting| lasting.name == alarm);
        assert_eq!(reported(&status).raised, lasting.then_some(alarm).into_iter().collect());
    }
}

#[test]
fn panic_comes_with_its_numbers_and_a_missing_threshold_with_advice() {
    let mut view = alarmed("panic");
    view.panic = true;
    assert_conditions(&facts(Some(&view)), &[("Panic", "True MostOfTheFleetIsBad")]);
    view.panic = false;
    assert_conditions(&facts(Some(&view)), &[("Panic", "False BelowThreshold")]);
    assert_conditions(
        &Facts { panic_threshold: None, ..facts(Some(&view)) },
        &[("Panic", "False NoThreshold")],
    );
}

#[test]
fn a_failing_detector_is_named() {
    let view = view();
    let failures = BTreeMap::from([("errors".to_owned(), "Prometheus: no answer\nwithin 5 s".to_owned())]);
    let facts = Facts { failures: &failures, ..facts(Some(&view)) };
    assert_conditions(&facts, &[("DataAvailable", "False DetectorFailed"), ("Ready", "True AllPodsClaimed")]);
}

#[test]
fn a_dry_run_warns_while_the_service_is_gated() {
    let view = view();
    let base = Facts { dry_run: true, ..facts(Some(&view)) };
    assert_conditions(&base, &[("DryRun", "True DryRun"), ("DryRunWhileGated", "True SelectorHasKey")]);
    let ungated = Facts { service: ServiceState::Ungated, ..base };
    assert_conditions(&ungated, &[("DryRun", "True DryRun"), ("DryRunWhileGated", "")]);
    let mut some = view.clone();
    some.rehearsal = Some(plan());
    assert_conditions(
        &facts(Some(&some)),
        &[("DryRun", "False SomeBreakersRehearse"), ("DryRunWhileGated", "")],
    );
}

#[test]
fn the_other_conditions_are_present_only_while_true() {
    let view = view();
    let base = facts(Some(&view));
    assert_conditions(
        &Facts { overlap: Some("KubervisorService api".into()), ..base.clone() },
        &[("Overlapping", "True SamePods"), ("Ready", "False SamePods")],
    );
    assert_conditions(
        &Facts { ledger: Some(&Hindrance::LedgerNotStored), ..base.clone() },
        &[("LedgerNotStored", "True LedgerDropped"), ("Ready", "False LedgerDropped")],
    );
    assert_conditions(
        &Facts { ledger: Some(&Hindrance::LedgerUnreadable("schema 9".into())), ..base.clone() },
        &[("LedgerNotStored", "True LedgerUnreadable"), ("Failed", "True LedgerUnreadable")],
    );
    assert_conditions(
        &facts(Some(&alarmed("ledger_full"))),
        &[("LedgerFull", "True TooLarge"), ("Ready", "True AllPodsClaimed")],
    );
    assert_conditions(
        &Facts { listing: &stand_still(), ..base.clone() },
        &[("NotLeavingEndpoints", "True SlicesStandStill"), ("Ready", "True AllPodsClaimed")],
    );
    assert_conditions(
        &Facts { template_unlabelled: true, ..base },
        &[("TemplateUnlabelled", "True NoLabelInTemplate")],
    );
}

#[test]
fn a_dry_run_explains_what_would_have_been() {
    let mut view = view();
    let mut rehearsal = plan();
    rehearsal.explanations = vec![explained("web-1", Some(0))];
    view.rehearsal = Some(rehearsal);
    let status = status(&Facts { dry_run: true, ..facts(Some(&view)) });
    assert_eq!(status["explanations"][0]["name"], "web-1");
}
