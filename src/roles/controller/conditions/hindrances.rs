//! Conditions about what keeps the controller from writing: rights, policies, an old definition, a workload's own selector.

use super::facts::{Facts, alarm};
use crate::{
    adapters::{kubernetes::rights, sink::Hindrance},
    api::keys::TRAFFIC,
    decide::alarm_reason::AlarmReason,
};

/// The right that only kills need.
const EVICT: &str = "create pods/eviction";

pub(super) fn switch_in_selector(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let found = facts.snapshot?.hindrance.as_ref();
    let found = found.filter(|found| matches!(found, Hindrance::SwitchInSelector(_)))?;
    let message = format!(
        "{found}; make the workload again with {TRAFFIC} in the pod template's labels only (kustomize: labels with \
         includeTemplates instead of commonLabels), nothing is withheld meanwhile"
    );
    Some(("KeyInSelector", message))
}

/// Owners whose number of pods cannot be read.
pub(super) fn desired_unknown(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let found = facts.snapshot?.hindrance.as_ref();
    let found = found.filter(|found| matches!(found, Hindrance::DesiredUnknown(_)))?;
    Some(("OwnerUnreadable", format!("{found}; nothing is withheld meanwhile")))
}

pub(super) fn ledger_not_stored(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    match facts.ledger? {
        Hindrance::LedgerNotStored => Some((
            "LedgerDropped",
            "the API server drops status.ledger: apply the CustomResourceDefinition of this version; nothing is withheld meanwhile"
                .to_owned(),
        )),
        Hindrance::LedgerUnreadable(why) => Some(("LedgerUnreadable", format!("{why}; nothing is withheld"))),
        _ => None,
    }
}

pub(super) fn writes_refused(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let advice = "change what the sentence names, or take the pod out of the Service; each is tried again every few seconds, \
                  the other pods are not held up";
    let refused = alarm(facts, AlarmReason::WritesRefused)?;
    Some(match alarm(facts, AlarmReason::ReturnRefused) {
        Some(dark) => ("ReturnRefused", format!("{}; {advice}", dark.message)),
        None => ("WriteRefused", format!("{}; {advice}", refused.message)),
    })
}

pub(super) fn forbidden(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let why = facts.rbac.as_ref()?;
    if !rights::is_right(why) {
        let advice = "change the policy, webhook or credentials that it names";
        let message = format!(
            "the API server refuses the controller: {why}; {advice}; nothing new is withheld meanwhile"
        );
        return Some(("Refused", message));
    }
    let meanwhile = match why.as_str() {
        EVICT => "pods to be killed stay withheld meanwhile",
        _ => "nothing new is withheld meanwhile",
    };
    Some(("RoleLacksVerb", format!("the controller may not {why}: add it to the role; {meanwhile}")))
}
