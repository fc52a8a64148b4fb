//! Which Events a plan has, and which are not repeated.

use crate::decide::alarm_reason::AlarmReason;
use serde_json::json;

use super::{super::conditions::reported, *};
use crate::adapters::sink::ListingFinding;
use crate::decide::{
    fleet::{Epoch, Fleet},
    gate::{
        self,
        action::{Guard, Write},
        fleet_alarms::FleetAlarm,
        ledger::Ledger,
    },
    policy::Policy,
    verdict::Verdicts,
};

/// The plan of an empty fleet: nothing in it.
fn plan() -> Plan {
    let ledger = Ledger::begin("uid", Epoch(1));
    let verdicts = Verdicts { evaluation: 0, sources: Vec::new() };
    let now = Timestamp::from_unix_millis(0);
    let plan = gate::plan(now, &Policy::without_manifest("web"), &Fleet::new(0, vec![]), &ledger, &verdicts);
    Plan { alarms: vec![], actions: vec![], next: None, ..plan }
}

fn action(verb: Verb, name: &str) -> Action {
    Action {
        verb,
        uid: Uid::from(name),
        name: name.to_owned(),
        guard: Guard { traffic: None, fence: None, ours: false, until: None },
        write: Write::default(),
        breaker: if verb == Verb::Claim { String::new() } else { "errors".to_owned() },
        reason: "5 of 10 are bad".to_owned(),
    }
}

fn doing(actions: Vec<Action>) -> Plan {
    Plan { actions, ..plan() }
}

fn alarmed(reasons: &[&'static str]) -> Plan {
    let named = |name: &str| *AlarmReason::ALL.iter().find(|known| **known == name).unwrap();
    let alarm = |name: &&'static str| FleetAlarm { reason: named(name), message: format!("{name}!") };
    Plan { alarms: reasons.iter().map(alarm).collect(), ..plan() }
}

fn lingering(pods: &str) -> ListingFindings {
    let finding = ListingFinding { reason: "SlicesStandStill", message: format!("{pods} still listed") };
    ListingFindings { not_leaving: Some(finding), ..ListingFindings::default() }
}

fn reasons(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.reason).collect()
}

#[test]
fn each_kind_of_decision_has_a_reason_of_its_own_on_the_pod_and_on_the_resource() {
    for (verb, reason, would) in [
        (Verb::Withhold, "Withheld", "WouldWithhold"),
        (Verb::Admit, "Admitted", "WouldAdmit"),
        (Verb::Pause, "Paused", "WouldPause"),
        (Verb::Kill, "Killed", "WouldKill"),
    ] {
        let plan = doing(vec![action(verb, "web-1")]);
        let events = EventRules::default().acted(&plan, &[ActionOutcome::Landed]);
        assert_eq!(reasons(&events), [reason, reason]);
        assert_eq!(events[0].note, "web-1: errors: 5 of 10 are bad");
        assert_eq!(events[0].related.as_ref().map(|pod| pod.name.as_str()), Some("web-1"));
        assert_eq!((events[1].about.kind.as_str(), events[1].about.name.as_str()), ("Pod", "web-1"));
        let events = EventRules::default().rehearsed(Some(&plan), |_| true);
        assert_eq!(reasons(&events), [would, would]);
        assert!(events.iter().all(|event| event.kind == EventKind::Normal), "nothing happened");
    }
    let cancel = doing(vec![action(Verb::Cancel, "web-1")]);
    assert_eq!(
        reasons(&EventRules::default().acted(&cancel, &[ActionOutcome::Landed])),
        ["Cancelled", "Cancelled"]
    );
}

#[test]
fn only_landed_actions_have_events_and_ledger_work_has_none() {
    let plan = doing(vec![
        action(Verb::Withhold, "web-1"),
        action(Verb::Withhold, "web-2"),
        action(Verb::Release, "web-3"),
        action(Verb::Forget, "web-4"),
    ]);
    let outcomes =
        [ActionOutcome::Refused, ActionOutcome::Unknown, ActionOutcome::Landed, ActionOutcome::Landed];
    assert_eq!(EventRules::default().acted(&plan, &outcomes), []);
}

#[test]
fn many_pods_are_one_event_on_the_resource_and_one_on_each_of_them() {
    let many: Vec<_> = (0..8).map(|pod| action(Verb::Withhold, &format!("web-{pod}"))).collect();
    let events = EventRules::default().acted(&doing(many), &[ActionOutcome::Landed; 8]);
    let (pods, resource): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.about.kind == "Pod");
    assert_eq!((pods.len(), resource.len()), (8, 1));
    assert_eq!(resource[0].note, "8 pods withheld (errors): web-0, web-1, web-2, web-3, web-4 and 3 more");
}

#[test]
fn claims_are_summed_up_on_the_resource() {
    let claims: Vec<_> = (0..7).map(|pod| action(Verb::Claim, &format!("web-{pod}"))).collect();
    let events = EventRules::default().acted(&doing(claims), &[ActionOutcome::Landed; 7]);
    assert_eq!(reasons(&events), ["Claimed"]);
    assert_eq!((&events[0].about, &events[0].related), (&ObjectRef::default(), &None));
    assert!(events[0].note.starts_with("7 pods claimed: web-0,"), "{}", events[0].note);
}

#[test]
fn a_rehearsal_is_reported_once_while_it_stays_the_same() {
    let mut rules = EventRules::default();
    let plan = doing(vec![action(Verb::Kill, "web-1")]);
    assert_eq!(rules.rehearsed(Some(&plan), |_| true).len(), 2);
    assert_eq!(rules.rehearsed(Some(&plan), |_| true), []);
    assert_eq!(rules.rehearsed(None, |_| true), []);
    assert_eq!(rules.rehearsed(Some(&plan), |_| true).len(), 2);
}

#[test]
fn a_lasting_state_is_reported_when_it_begins_and_not_again() {
    for (alarm, begins, ends) in [
        ("floor_reached", "FloorReached", None),
        ("below_floor", "BelowFloor", None),
        ("panic", "PanicEntered", Some("PanicLeft")),
        ("no_data", "NoData", Some("DataBack")),
        ("foreign_no", "ForeignNo", None),
        ("odd_switch", "OddSwitch", None),
        ("ledger_full", "LedgerFull", None),
    ] {
        let mut rules = EventRules::default();
        let events = rules.edges(&alarmed(&[alarm]), &ListingFindings::default());
        assert_eq!(reasons(&events), [begins]);
        assert_eq!(
            (events[0].kind, events[0].note.as_str()),
            (EventKind::Warning, format!("{alarm}!").as_str())
        );
        assert_eq!(rules.edges(&alarmed(&[alarm]), &ListingFindings::default()), [], "{alarm} once");
        assert_eq!(
            reasons(&rules.edges(&alarmed(&[]), &ListingFindings::default())),
            ends.into_iter().collect::<Vec<_>>()
        );
        assert_eq!(
            reasons(&rules.edges(&alarmed(&[alarm]), &ListingFindings::default())),
            [begins],
            "{alarm} anew"
        );
    }
}

#[test]
fn pods_that_stay_in_the_endpoints_are_reported_once() {
    let mut rules = EventRules::default();
    let events = rules.edges(&plan(), &lingering("web-1"));
    assert_eq!(reasons(&events), ["NotLeavingEndpoints"]);
    assert!(events[0].note.starts_with("web-1 still"));
    assert_eq!(rules.edges(&plan(), &lingering("web-1, web-2")), []);
    assert_eq!(rules.edges(&plan(), &ListingFindings::default()), []);
    assert_eq!(rules.edges(&plan(), &lingering("web-2")).len(), 1);
}

#[test]
fn a_reverted_withdrawal_is_reported_once() {
    let until = |millis: Option<i64>| {
        let mut next = Ledger::begin("uid", Epoch(1));
        next.reverted_until = millis.map(Timestamp::from_unix_millis);
        Plan { next: Some(next), ..plan() }
    };
    let mut rules = EventRules::default();
    assert_eq!(rules.edges(&until(None), &ListingFindings::default()), []);
    assert_eq!(reasons(&rules.edges(&until(Some(60_000)), &ListingFindings::default())), ["Reverted"]);
    assert_eq!(rules.edges(&until(Some(60_000)), &ListingFindings::default()), []);
    assert_eq!(rules.edges(&plan(), &ListingFindings::default()), []);
    assert_eq!(rules.edges(&until(None), &ListingFindings::default()), []);
    assert_eq!(reasons(&rules.edges(&until(Some(90_000)), &ListingFindings::default())), ["Reverted"]);
}

#[test]
fn the_next_process_repeats_no_event() {
    let mut ledger = Ledger::begin("uid", Epoch(1));
    ledger.reverted_until = Some(Timestamp::from_unix_millis(60_000));
    let status = json!({"ledger": ledger, "conditions": [
        {"type": "Panic", "status": "True", "reason": "MostOfTheFleetIsBad"},
        {"type": "FloorReached", "status": "True", "reason": "FloorHolds"},
        {"type": "DataAvailable", "status": "True", "reason": "EnoughVerdicts"},
    ]});
    let mut rules = EventRules::resume(ObjectRef::default(), reported(&status));
    let again = Plan { next: Some(ledger), ..alarmed(&["panic", "floor_reached", "no_data"]) };
    assert_eq!(reasons(&rules.edges(&again, &ListingFindings::default())), ["NoData"]);
    assert_eq!(reasons(&rules.edges(&plan(), &ListingFindings::default())), ["PanicLeft", "DataBack"]);
}

#[test]
fn an_event_names_both_objects() {
    let resource = ObjectRef {
        api_version: "kubervisor.k8s.io/v1alpha1".into(),
        kind: "KubervisorService".into(),
        namespace: "shop".into(),
        name: "web".into(),
        uid: "uid".into(),
    };
    let rules = EventRules::resume(resource.clone(), Reported::default());
    let events = rules.acted(&doing(vec![action(Verb::Admit, "web-1")]), &[ActionOutcome::Landed]);
    assert_eq!(events[0].about, resource);
    assert_eq!(events[0].related.as_ref(), Some(&events[1].about));
    assert_eq!((events[1].about.kind.as_str(), events[1].about.namespace.as_str()), ("Pod", "shop"));
    assert_eq!(events[1].related.as_ref(), Some(&resource));
    assert_eq!(events[0].rule, "errors");
}
