//! The verdicts of one source's last run.

use serde::Serialize;

use super::{Judgement, Opinion};
use crate::decide::{fleet::Uid, measurements::Measurements, time::Timestamp};

/// The kind of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// A breaker of the policy; subject to its coverage.
    Breaker,
    /// A callback. It is given the whole fleet, so it has no objection to a pod that it does not name.
    Callback,
    /// People's requests.
    Person,
}

/// The verdicts of one source's last successful run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// The breaker's name, or the callback's.
    pub name: String,
    /// Breaker or callback.
    pub kind: SourceKind,
    /// When the run ended.
    pub at: Timestamp,
    /// What a breaker measured, for display.
    #[serde(skip)]
    pub measurements: Measurements,
    opinions: Vec<(Uid, Opinion)>,
}

impl Source {
    /// Sorts the opinions by UID; of two on the same pod the stricter one is kept.
    pub fn new(
        name: impl Into<String>,
        kind: SourceKind,
        at: Timestamp,
        mut opinions: Vec<(Uid, Opinion)>,
    ) -> Self {
        // Most callers have them in order.
        if !opinions.is_sorted_by(|(a, _), (b, _)| a < b) {
            opinions.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.strictness(x)));
            opinions.dedup_by(|(later, _), (kept, _)| later == kept);
        }
        Self { name: name.into(), kind, at, measurements: Measurements::default(), opinions }
    }

    /// A breaker's judgements, one for each pod, in their order. They are written in the memory of `place`, an earlier run's,
    /// where that has the same pods in this order.
    pub fn judged<'a>(
        place: Option<Self>,
        name: &str,
        at: Timestamp,
        pods: impl Iterator<Item = &'a Uid> + Clone,
        judgements: Vec<Judgement>,
    ) -> Self {
        let judged = judgements.into_iter().map(Opinion::Judged);
        let fits =
            |place: &Self| place.name == name && place.opinions.iter().map(|(uid, _)| uid).eq(pods.clone());
        match place.filter(fits) {
            Some(mut place) => {
                place.opinions.iter_mut().zip(judged).for_each(|((_, slot), opinion)| *slot = opinion);
                Self { at, ..place }
            }
            None => Self::new(name, SourceKind::Breaker, at, pods.cloned().zip(judged).collect()),
        }
    }

    /// The same verdicts, with what was measured.
    pub fn with_measurements(self, measurements: Measurements) -> Self {
        Self { measurements, ..self }
    }

    /// Whether both judge the same pods, none of them bad, and lack a verdict on the same ones for the same causes.
    pub fn is_as_calm_as(&self, other: &Self) -> bool {
        let calm = |(mine, theirs): (&(Uid, Opinion), &(Uid, Opinion))| {
            let same = match (&mine.1, &theirs.1) {
                (Opinion::Judged(Judgement::Good), Opinion::Judged(Judgement::Good)) => true,
                (Opinion::Judged(Judgement::None(mine)), Opinion::Judged(Judgement::None(theirs))) => {
                    mine == theirs
                }
                _ => false,
            };
            same && mine.0 == theirs.0
        };
        (&self.name, self.kind, self.opinions.len()) == (&other.name, other.kind, other.opinions.len())
            && self.opinions.iter().zip(&other.opinions).all(calm)
    }

    /// In order of the UID.
    pub fn opinions(&self) -> &[(Uid, Opinion)] {
        &self.opinions
    }
}
