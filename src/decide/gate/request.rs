//! Why a person's request about a serving pod has the effect that it has.
//!
//! A request passes the gate like a verdict, so that nobody takes more than the floor allows.

use super::{
    assessment::{Candidate, Due},
    breaker,
    place::Places,
    planning::Planning,
};
use crate::decide::verdict::Call;

/// The end of the request about a pod.
pub(super) fn end(candidate: &Candidate<'_>) -> Option<Due> {
    candidate.asked.map(|asked| ("the request ends", asked.until))
}

/// `None`: nobody asks for anything about the pod.
pub(super) fn explained(
    planning: &Planning<'_>,
    candidate: &Candidate<'_>,
    hold: Option<&str>,
    places: &Places,
) -> Option<&'static str> {
    Some(match candidate.asked?.call {
        Call::Admit => "serves on a person's request, whatever is found about it",
        Call::Withhold | Call::Pause | Call::Kill => in_vain(planning, candidate, hold, places),
    })
}

/// Why a person's request to withhold the pod is not carried out.
fn in_vain(
    planning: &Planning<'_>,
    candidate: &Candidate<'_>,
    hold: Option<&str>,
    places: &Places,
) -> &'static str {
    if breaker::refused(candidate) {
        "to be withheld on a person's request, but the API server refuses it: tried again"
    } else if hold.is_some() {
        "to be withheld on a person's request, but nothing is withheld at the moment (see the plan's hold)"
    } else if places.is_last(candidate) {
        "to be withheld on a person's request, but no other pod serves on its node (keepOnePerNode)"
    } else if planning.full {
        "to be withheld on a person's request, but the ledger is full"
    } else {
        "to be withheld on a person's request, but the floor allows no more to be withheld"
    }
}
