//! `keepOnePerNode`: under a `Local` traffic policy the clients of a node reach the pods of that node only, so the last
//! one that serves there is needed, however bad it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::assessment::{Assessment, Candidate, EntryDecision};

/// The serving pods of each place.
pub(super) struct Places {
    serving: BTreeMap<Arc<str>, u32>,
}

impl Places {
    /// Without the pods that are reserved already.
    pub(super) fn of(assessment: &Assessment<'_>) -> Self {
        let mut serving = BTreeMap::new();
        for candidate in assessment.candidates.iter().filter(|candidate| candidate.serving) {
            let free = assessment.slot_of(candidate).is_none_or(|slot| !slot.held());
            if let Some(place) = candidate.pod.place.as_ref().filter(|_| free) {
                *serving.entry(Arc::clone(place)).or_default() += 1;
            }
        }
        Self { serving }
    }

    /// Whether no other pod serves at its place.
    pub(super) fn is_last(&self, candidate: &Candidate<'_>) -> bool {
        let place = candidate.pod.place.as_ref();
        candidate.serving
            && place.is_some_and(|place| self.serving.get(place).is_none_or(|count| *count <= 1))
    }

    /// Counts the pod as withheld.
    pub(super) fn withhold(&mut self, candidate: &Candidate<'_>) {
        if let Some(count) = candidate.pod.place.as_ref().and_then(|place| self.serving.get_mut(place)) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The places where pods are withheld and none serves or is about to.
pub(super) fn bare(assessment: &Assessment<'_>) -> BTreeSet<Arc<str>> {
    let place = |candidate: &Candidate<'_>| candidate.pod.place.clone();
    let withheld = assessment.slots.iter().filter(|slot| slot.held());
    let mut bare: BTreeSet<_> =
        withheld.filter_map(|slot| place(assessment.candidate_of(slot).filter(|it| it.able())?)).collect();
    let returning = assessment.slots.iter().filter(|slot| slot.decision == EntryDecision::Cancel);
    let returning = returning.filter_map(|slot| assessment.candidate_of(slot)).filter(|it| it.routable());
    let counted = assessment.candidates.iter().filter(|candidate| candidate.serving || candidate.joining);
    for served in counted.chain(returning).filter_map(place) {
        bare.remove(&served);
    }
    bare
}

/// The number of pods, if each of them is the only one of its place: then none can ever be withheld.
pub(super) fn inert(assessment: &Assessment<'_>) -> Option<usize> {
    let fleet = assessment.candidates.iter().map(|it| it.pod).filter(|pod| pod.selected && !pod.terminating);
    let places: Option<Vec<&Arc<str>>> = fleet.map(|pod| pod.place.as_ref()).collect();
    let places = places.filter(|places| !places.is_empty())?;
    let different: BTreeSet<_> = places.iter().collect();
    (different.len() == places.len()).then_some(places.len())
}
