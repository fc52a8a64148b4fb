//! The `traffic` member of a callback's output, and how verdicts replace each other.

use serde_json::json;

use super::*;
use crate::decide::measurements::Measurements;

fn call_of(verdict: &TrafficVerdict) -> Call {
    match verdict.opinion {
        Opinion::Called { call, .. } => call,
        Opinion::Judged(_) | Opinion::Requested { .. } => panic!("a callback calls"),
    }
}

#[test]
fn both_forms_and_both_vocabularies_are_read() {
    let (list, warnings) = parse_traffic(&json!([
        {"id": "a", "verdict": "withhold", "reason": "errors", "severity": 0.9, "breaker": "rate"},
        {"key": "2T3m2n", "verdict": "admit"}, {"id": "c", "verdict": "kill"},
    ]));
    assert_eq!(warnings, vec![]);
    assert_eq!(list.iter().map(call_of).collect::<Vec<_>>(), [Call::Withhold, Call::Admit, Call::Kill]);
    assert_eq!(list[1].who, VerdictTarget::Key("2T3m2n".into()));
    let (object, warnings) = parse_traffic(&json!({"a": "no", "b": "yes", "c": "pause"}));
    assert_eq!(warnings, vec![]);
    assert_eq!(object.iter().map(call_of).collect::<Vec<_>>(), [Call::Withhold, Call::Admit, Call::Pause]);
}

#[test]
fn a_wrong_shape_is_a_warning_and_the_rest_counts() {
    let (verdicts, warnings) = parse_traffic(&json!([7, {"verdict": "no"}, {"id": "a", "verdict": "open"},
        {"id": "b", "verdict": "no", "severity": 3}]));
    assert_eq!(verdicts.len(), 1);
    assert_eq!(warnings.len(), 4);
    assert!(matches!(warnings[0], TrafficWarning::ItemNotAnObject { index: 0, found: "a number" }));
    assert!(matches!(warnings[1], TrafficWarning::MissingPod(1)));
    assert!(matches!(&warnings[2], TrafficWarning::UnknownVerdict { who, .. } if who == "a"));
    assert!(matches!(&warnings[3], TrafficWarning::WrongMember { member: "severity", .. }));
    let (none, warnings) = parse_traffic(&json!("withhold"));
    assert!(none.is_empty());
    assert!(matches!(warnings[..], [TrafficWarning::NotAListOrObject("a text")]));
}

#[test]
fn withhold_wins_over_admit_for_the_same_pod_and_unknown_pods_are_counted() {
    let (list, _) = parse_traffic(&json!([{"id": "a", "verdict": "admit"}, {"id": "a", "verdict": "no"},
        {"id": "ghost", "verdict": "no"}]));
    let (known, unknown) =
        resolve(
            list,
            |who| if *who == VerdictTarget::Id("a".into()) { Some(Uid::from("u-a")) } else { None },
        );
    assert_eq!(unknown, 1);
    let source = Source::new("callback", SourceKind::Callback, Timestamp::default(), known);
    assert_eq!(source.opinions().len(), 1);
    assert!(source.opinions()[0].1.objects());
}

#[test]
fn a_successful_run_replaces_the_earlier_verdicts_of_its_source() {
    let source = |pods| Source::new("rate", SourceKind::Breaker, Timestamp::default(), pods);
    let mut verdicts = Verdicts::default();
    verdicts.replace(source(vec![("a".into(), Opinion::Judged(Judgement::Good))]));
    verdicts.replace(source(vec![]));
    assert_eq!((verdicts.evaluation, verdicts.sources.len()), (2, 1));
    assert!(verdicts.sources[0].opinions().is_empty());
}

#[test]
fn a_severity_that_is_not_a_number_counts_as_0() {
    let bad = |severity| Opinion::Judged(Judgement::Bad { severity, evidence: Box::default() });
    assert_eq!(bad(f64::NAN).severity(), 0.0);
    assert_eq!(bad(7.0).severity(), 1.0);
}

#[test]
fn judgements_in_the_memory_of_earlier_ones_are_as_new_ones_whoever_those_were_of() {
    let bad = || Judgement::Bad { severity: 0.5, evidence: Box::default() };
    let judged = |place, names: &[&str], all: Vec<Judgement>| {
        let uids: Vec<Uid> = names.iter().map(|name| Uid::from(*name)).collect();
        Source::judged(place, "rate", Timestamp::from_unix_millis(all.len() as i64), uids.iter(), all)
    };
    let fresh = judged(None, &["a", "b"], vec![Judgement::Good, bad()]);
    for before in [&["a", "b"][..], &["a"], &["b", "a"], &["a", "c"], &["a", "b", "c"], &[]] {
        let place = judged(None, before, before.iter().map(|_| bad()).collect());
        assert_eq!(judged(Some(place), &["a", "b"], vec![Judgement::Good, bad()]), fresh, "{before:?}");
        let of = |names: &[&str], value: f64, place: Measurements| {
            let uids: Vec<Uid> = names.iter().map(|name| Uid::from(*name)).collect();
            place.renewed(uids.iter().zip([value, f64::NAN, value]))
        };
        let fresh = of(&["a", "x", "b"], 2.0, Measurements::default());
        let place = Measurements { high: Some(1.0), ..of(before, 1.0, Measurements::default()) };
        let shared = place.clone();
        assert_eq!(of(&["a", "x", "b"], 2.0, place), fresh, "{before:?}");
        assert!(shared.values.iter().all(|one| one.value == 1.0), "nobody else's values change");
    }
    let owned = |value| Measurements::default().renewed([(&Uid::from("a"), value)].into_iter());
    assert_eq!(owned(1.0).renewed([(&Uid::from("a"), 2.0)].into_iter()), owned(2.0));
}
