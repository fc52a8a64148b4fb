//! Each condition: its status, and what to do about it.
//!
//! Ten conditions are always present, because tools wait for them. The others are present only while true, because a long
//! list of absent problems hides the present one.

use super::{
    facts::{Facts, ResourceProblem, ServiceState, alarm, plan},
    hindrances::{desired_unknown, forbidden, ledger_not_stored, switch_in_selector, writes_refused},
};
use crate::{
    api::keys::{REQUESTS, TRAFFIC},
    decide::alarm_reason::AlarmReason,
    roles::gate::snapshot::GateMode,
};

labelled! {
    /// A condition's status.
    pub(super) enum ConditionStatus, as_str {
        True = "True",
        False = "False",
        Unknown = "Unknown",
    }
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: &'static str,
    pub(super) state: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

type Found = (ConditionStatus, &'static str, String);

/// All that apply, always in the same order.
pub(super) fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let ready = ready(facts);
    let always = [
        ("Ready", ready.clone()),
        ("Gating", gating(facts)),
        ("FloorReached", floor_reached(facts)),
        ("DataAvailable", data_available(facts)),
        ("DryRun", dry_run(facts)),
        ("Panic", panic(facts)),
        ("InitFailed", init_failed(facts)),
        ("Running", ready),
        ("ServiceNotAvailable", service_not_available(facts)),
        ("Failed", failed(facts)),
    ];
    let sometimes = [
        ("Reconciling", reconciling(facts)),
        ("Stalled", stalled(facts)),
        ("DryRunWhileGated", dry_run_while_gated(facts)),
        ("Overlapping", overlapping(facts)),
        ("SwitchInWorkloadSelector", switch_in_selector(facts)),
        ("DesiredUnknown", desired_unknown(facts)),
        ("LedgerNotStored", ledger_not_stored(facts)),
        ("LedgerFull", ledger_full(facts)),
        ("NotLeavingEndpoints", not_leaving(facts)),
        ("NotListed", not_listed(facts)),
        ("OnePerNode", one_per_node(facts)),
        ("ForeignNo", foreign_no(facts)),
        ("SetBack", set_back(facts)),
        ("WritesRefused", writes_refused(facts)),
        ("TemplateUnlabelled", template_unlabelled(facts)),
        ("Forbidden", forbidden(facts)),
        ("RequestsRefused", requests_refused(facts)),
    ];
    let sometimes = sometimes.into_iter().filter_map(|(kind, found)| {
        found.map(|(reason, message)| (kind, (ConditionStatus::True, reason, message)))
    });
    let all = always.into_iter().chain(sometimes);
    all.map(|(kind, (state, reason, message))| Finding { kind, state, reason, message }).collect()
}

/// kstatus: work goes on by itself until the resource is ready.
fn reconciling(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let (state, reason, message) = ready(facts);
    (state != ConditionStatus::True && stalled(facts).is_none()).then_some((reason, message))
}

/// kstatus: nothing goes on until someone changes the resource, its Service or its pods' workload.
fn stalled(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    if let Some(ResourceProblem::InvalidSpec(why)) = &facts.problem {
        return Some(("InvalidSpec", invalid(why)));
    }
    match facts.service {
        ServiceState::Refused(_) => service_obstacle(facts),
        _ => overlapping(facts).or_else(|| switch_in_selector(facts)),
    }
}

fn frozen<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    let snapshot = facts.snapshot.filter(|snapshot| snapshot.part == GateMode::Frozen)?;
    Some(snapshot.frozen.as_deref().unwrap_or("no decision can be made; traffic stays as it is"))
}

fn yes(reason: &'static str, message: impl Into<String>) -> Found {
    (ConditionStatus::True, reason, message.into())
}

fn no(reason: &'static str, message: impl Into<String>) -> Found {
    (ConditionStatus::False, reason, message.into())
}

fn not_yet() -> Found {
    (ConditionStatus::Unknown, "NotYetKnown", "the fleet has not been looked at yet".to_owned())
}

/// Spec valid, Service there, every pod claimed and labelled.
fn ready(facts: &Facts<'_>) -> Found {
    if let Some((reason, message)) = obstacle(facts) {
        return no(reason, message);
    }
    if let Some(unclaimed) = alarm(facts, AlarmReason::Unclaimed) {
        return no("PodsUnclaimed", unclaimed.message.clone());
    }
    let Some((snapshot, _)) = plan(facts) else { return not_yet() };
    let advice = match facts.service {
        ServiceState::Ungated => {
            format!("; add {TRAFFIC}: \"yes\" to the selector of Service {} to begin", facts.service_name)
        }
        _ => String::new(),
    };
    yes("AllPodsClaimed", format!("{} pods are claimed and labelled{advice}", snapshot.pods.len()))
}

/// What keeps the resource from being ready: the first cause found.
fn obstacle(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    match &facts.problem {
        Some(ResourceProblem::InvalidSpec(why)) => return Some(("InvalidSpec", invalid(why))),
        Some(ResourceProblem::Failed(why)) => return Some(("Failed", why.clone())),
        None => {}
    }
    service_obstacle(facts)
        .or_else(|| overlapping(facts))
        .or_else(|| switch_in_selector(facts))
        .or_else(|| desired_unknown(facts))
        .or_else(|| forbidden(facts))
        .or_else(|| ledger_not_stored(facts))
        .or_else(|| frozen(facts).map(|why| ("Frozen", why.to_owned())))
}

fn invalid(why: &str) -> String {
    format!("spec: {why}; correct it with kubectl edit, nothing is withheld meanwhile")
}

fn service_obstacle(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let name = facts.service_name;
    match &facts.service {
        ServiceState::Missing => Some((
            "ServiceMissing",
            format!(
                "there is no Service {name} in this namespace; nothing is withheld, and work goes on by itself once it is there"
            ),
        )),
        ServiceState::Refused(why) => {
            Some(("ServiceRefused", format!("Service {name}: {why}; nothing is withheld")))
        }
        ServiceState::Ungated | ServiceState::Gated => None,
    }
}

fn gating(facts: &Facts<'_>) -> Found {
    let asked = facts.snapshot.and_then(|snapshot| snapshot.pause.as_ref());
    match (&facts.service, asked) {
        (ServiceState::Gated, Some(asked)) if !facts.paused => {
            yes("PauseRequested", format!("every pod stays as it is: {asked}"))
        }
        _ => gating_of_service(facts),
    }
}

fn gating_of_service(facts: &Facts<'_>) -> Found {
    let name = facts.service_name;
    match facts.service {
        ServiceState::Gated if facts.paused => yes(
            "Paused",
            format!(
                "spec.paused freezes every pod as it is; the selector of Service {name} has the key {TRAFFIC}"
            ),
        ),
        ServiceState::Gated => {
            yes("SelectorHasKey", format!("the selector of Service {name} has the key {TRAFFIC}"))
        }
        ServiceState::Ungated => no(
            "SelectorLacksKey",
            format!(
                "the selector of Service {name} lacks the key {TRAFFIC}: the fleet is only watched; \
                 add {TRAFFIC}: \"yes\" to it to begin"
            ),
        ),
        ServiceState::Missing | ServiceState::Refused { .. } => {
            let (reason, message) = service_obstacle(facts).unwrap_or_default();
            no(reason, message)
        }
    }
}

fn floor_reached(facts: &Facts<'_>) -> Found {
    let Some((snapshot, _)) = plan(facts) else { return not_yet() };
    if let Some(below) = alarm(facts, AlarmReason::BelowFloor) {
        let message = format!(
            "{}: pods are given back as far as any are withheld; look for what else takes pods away",
            below.message
        );
        return yes("BelowFloor", message);
    }
    if let Some(reached) = alarm(facts, AlarmReason::FloorReached) {
        let message = format!("{}; repair the pods, or lower the minPodsAvailable settings", reached.message);
        return yes("FloorHolds", message);
    }
    no(
        "AboveFloor",
        format!("the floor is {} pods, and no bad pod is kept by it", snapshot.floor.budget.floor),
    )
}

fn data_available(facts: &Facts<'_>) -> Found {
    if !facts.failures.is_empty() {
        let some: Vec<_> =
            facts.failures.iter().take(5).map(|(breaker, why)| format!("{breaker}: {why}")).collect();
        let message = format!("{}; see onNoData for what its pods do meanwhile", some.join("; "));
        return no("DetectorFailed", message);
    }
    if let Some(blind) = alarm(facts, AlarmReason::NoData) {
        let message = format!("{}; check the query and minCoveragePercent", blind.message);
        return no("TooFewVerdicts", message);
    }
    if plan(facts).is_none() {
        return not_yet();
    }
    yes("EnoughVerdicts", "every breaker has enough data")
}

fn dry_run(facts: &Facts<'_>) -> Found {
    if facts.dry_run {
        let message = "everything is decided and reported, no pod is changed; take spec.dryRun (or the flag) out to begin";
        return yes("DryRun", message);
    }
    if facts.snapshot.is_some_and(|snapshot| snapshot.rehearsal.is_some()) {
        return no("SomeBreakersRehearse", "only breakers with dryRun rehearse; the others act");
    }
    no("Acting", "decisions are carried out")
}

fn panic(facts: &Facts<'_>) -> Found {
    let Some((snapshot, _)) = plan(facts) else { return not_yet() };
    if snapshot.panic {
        let message = alarm(facts, AlarmReason::Panic).map(|alarm| alarm.message.clone());
        let message =
            message.unwrap_or_else(|| "most of the fleet looks bad: nothing is withheld".to_owned());
        return yes("MostOfTheFleetIsBad", message);
    }
    match facts.panic_threshold {
        Some(percent) => no("BelowThreshold", format!("no more than {percent} % of the fleet look bad")),
        None => no(
            "NoThreshold",
            "spec.panicThreshold is not set: a signal that is wrong for all pods cuts down to the floor; set it to 50, say",
        ),
    }
}

fn init_failed(facts: &Facts<'_>) -> Found {
    match &facts.problem {
        Some(ResourceProblem::InvalidSpec(why)) => yes("InvalidSpec", invalid(why)),
        _ => no("SpecValid", "the spec keeps every rule"),
    }
}

fn service_not_available(facts: &Facts<'_>) -> Found {
    match service_obstacle(facts) {
        Some((reason, message)) => yes(reason, message),
        None => no("ServiceFound", format!("Service {} is there", facts.service_name)),
    }
}

fn failed(facts: &Facts<'_>) -> Found {
    if let Some(ResourceProblem::Failed(why)) = &facts.problem {
        return yes("Failed", why.clone());
    }
    let found = forbidden(facts)
        .or_else(|| ledger_not_stored(facts))
        .or_else(|| frozen(facts).map(|why| ("Frozen", why.to_owned())));
    match found {
        Some((reason, message)) => yes(reason, message),
        None => no("Working", "nothing keeps the controller from its work"),
    }
}

fn dry_run_while_gated(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let gated = facts.dry_run && facts.service == ServiceState::Gated;
    gated.then(|| {
        let message = format!(
            "a dry run labels no pod, but the selector of Service {} has the key {TRAFFIC}: pods without that label get no \
             traffic; take the key out, or put the label into the pod template",
            facts.service_name
        );
        ("SelectorHasKey", message)
    })
}

fn overlapping(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let other = facts.overlap.as_ref()?;
    let message = format!(
        "{other} selects pods of this one too; let each pod belong to one of them, nothing is withheld meanwhile"
    );
    Some(("SamePods", message))
}

fn ledger_full(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let full = alarm(facts, AlarmReason::LedgerFull)?;
    let message = format!(
        "{}; no more is withheld until pods are back, split the Service or raise the floor",
        full.message
    );
    Some(("TooLarge", message))
}

fn not_leaving(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    facts.listing.not_leaving.as_ref().map(|finding| (finding.reason, finding.message.clone()))
}

/// `keepOnePerNode` lets no pod be withheld.
fn one_per_node(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let alarm = alarm(facts, AlarmReason::OnePerNode)?;
    let message = format!(
        "{}; run two pods on a node, or set spec.keepOnePerNode: false if clients may reach none of their node's",
        alarm.message
    );
    Some(("NothingCanBeWithheld", message))
}

/// Ready pods in no ready endpoint, and the cause.
fn not_listed(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let pods = alarm(facts, AlarmReason::NotListed)?;
    let finding = facts.listing.not_listed.as_ref()?;
    let message = format!("{}: {}; they count as serving for no withdrawal", pods.message, finding.message);
    Some((finding.reason, message))
}

fn foreign_no(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let (foreign, odd) = (alarm(facts, AlarmReason::ForeignNo), alarm(facts, AlarmReason::OddSwitch));
    let reason = if foreign.is_some() { "WithheldByOthers" } else { "OddSwitch" };
    let messages: Vec<_> = [foreign, odd].into_iter().flatten().map(|alarm| alarm.message.as_str()).collect();
    let message =
        format!("{}; label them {TRAFFIC}=yes to give them their traffic back", messages.join("; "));
    (!messages.is_empty()).then_some((reason, message))
}

/// Another manager undoes the withdrawals.
fn set_back(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let fights = alarm(facts, AlarmReason::SetBack)?;
    let message = format!("{}; take {TRAFFIC} out of what that manager applies", fights.message);
    Some(("AnotherManager", message))
}

fn template_unlabelled(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    facts.template_unlabelled.then(|| {
        let message = format!(
            "new pods come without {TRAFFIC}: \"yes\" and get no traffic until this controller has seen them; put the label \
             into the pod template (not into its selector), or apply the MutatingAdmissionPolicy"
        );
        ("NoLabelInTemplate", message)
    })
}

fn requests_refused(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let refused = &facts.snapshot?.refused_requests;
    let advice = "kubectl kubervisor writes such requests: withhold, admit, pause and resume";
    let message =
        format!("requests in the annotation {REQUESTS} do not count: {}; {advice}", refused.join("; "));
    (!refused.is_empty()).then_some(("Malformed", message))
}
