//! Detection on a part of the labelled traces: outliers are found, and a common cause withholds no pod. `make bench`
//! measures all traces.

use crate::{
    traces::{Kind, TRACES, Trace},
    trial::{Candidate, Score, cuts},
};

const OUTLIERS: [Candidate; 3] =
    [Candidate::OutlierByQuery, Candidate::OutlierByPointer, Candidate::OutlierByRatio];

#[test]
fn an_outlier_is_found_soon_and_no_other_pod_is_bad() {
    for candidate in OUTLIERS {
        let mut score = Score::default();
        (0..14).for_each(|number| score.add(Score::of(candidate, &Trace::new(number))));
        assert!(score.f1() >= 95.0, "{candidate:?}: {:.2} {score:?}", score.f1());
        assert_eq!(score.overlooked, 0, "{candidate:?}");
    }
}

#[test]
fn a_common_cause_withholds_no_pod_even_without_a_panic_threshold() {
    for trace in (0..TRACES).map(Trace::new).filter(|trace| trace.kind == Kind::CommonCause) {
        for candidate in OUTLIERS {
            let cuts = cuts(candidate, &trace, None);
            assert!(cuts.is_empty(), "{candidate:?} at looks {cuts:?}; shared was {:?}", trace.shared);
        }
    }
}
