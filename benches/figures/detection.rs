//! What each detector finds in 200 labelled traces, how soon, and whom it blames for what all of them suffer from.
//!
//! No clock is read: the same figures come out on every machine. What the traces hold is said in
//! `tests/support/traces.rs`, what is counted in `tests/support/trial.rs`.

use crate::{
    report::{Figure, Goal, Report, percentile},
    traces::{Kind, TRACES, Trace},
    trial::{Candidate, Score, TOLERANCE, cuts},
};

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for candidate in Candidate::ALL {
        found(report, candidate);
    }
    for candidate in Candidate::ALL {
        blamed(report, candidate);
    }
    Ok(())
}

/// F1 and reaction time over all traces.
fn found(report: &mut Report, candidate: Candidate) {
    let (mut whole, mut single, mut worst) =
        (Score::default(), Score::default(), (f64::INFINITY, Kind::Step));
    for kind in Kind::ALL {
        let mut score = Score::default();
        of_kind(kind).for_each(|trace| score.add(Score::of(candidate, &trace)));
        if kind != Kind::CommonCause {
            worst = if score.f1() < worst.0 { (score.f1(), kind) } else { worst };
            single.add(score.clone());
        }
        whole.add(score);
    }
    let Score { hits, misses, false_alarms, overlooked, .. } = whole;
    let figure = Figure::new(format!("F1 of {}", candidate.name()), whole.f1(), "%").note(format!(
        "hits {hits}, misses {misses}, false alarms {false_alarms}; without common causes {:.1}, worst kind {:?} {:.1}",
        single.f1(),
        worst.1,
        worst.0
    ));
    report.add(if candidate.is_promised() { figure.goal(Goal::AtLeast(95.0)) } else { figure });
    let soon = percentile(&mut whole.reactions, 0.5);
    let late = percentile(&mut whole.reactions, 0.95);
    report.add(
        Figure::new(format!("reaction of {}, median", candidate.name()), soon, "looks")
            .note(format!("p95 {late} of {} faults, {overlooked} never found", whole.reactions.len())),
    );
}

/// Cuts by the gate while all suffer from the same, without a panic threshold.
fn blamed(report: &mut Report, candidate: Candidate) {
    let (mut all, mut at_the_change, mut with_threshold, mut traces) = (0, 0, 0, 0);
    for trace in of_kind(Kind::CommonCause) {
        let looks = cuts(candidate, &trace, None);
        let changes = trace.shared.as_ref().map_or([0, 0], |shared| [shared.start, shared.end]);
        let near =
            |look: &&usize| changes.iter().any(|change| (*change..=change + TOLERANCE + 2).contains(look));
        at_the_change += looks.iter().filter(near).count();
        all += looks.len();
        with_threshold += cuts(candidate, &trace, Some(50)).len();
        traces += 1;
    }
    let figure = Figure::new(format!("cuts on common causes, {}", candidate.name()), all as f64, "cuts")
        .note(format!(
            "{traces} traces; {at_the_change} of them at the change; {with_threshold} with panicThreshold 50"
        ));
    report.add(if candidate.is_promised() { figure.goal(Goal::AtMost(0.0)) } else { figure });
}

fn of_kind(kind: Kind) -> impl Iterator<Item = Trace> {
    (0..TRACES).map(Trace::new).filter(move |trace| trace.kind == kind)
}
