//! Detectors whose input is a query's answer: which rules are due, and the judgement of an answer.
//!
//! A query takes time, so there are two steps: [`due`] returns the rules to query now; [`judge`] takes the answer and
//! the pods as they are at its arrival. Without an answer no pod has a verdict, and `onNoData` applies.
//!
//! An answer is joined with the pods by name before it is judged. A replay of a history has the same series and the same
//! pods for thousands of evaluations, so it makes the join once, calls [`judge_joined`], and gives it the memory of earlier
//! judgements.

use std::borrow::Cow;

pub use super::findings::JoinedAnswer;
use super::{
    Observation, Rule, Windows,
    findings::AnswerFindings,
    judged_pods,
    listed::{FleetScope, NamedPod},
    series::{JoinedVector, SeriesJoin, Vector},
    source,
};
use crate::decide::{time::Timestamp, verdict::Source};

/// The answer to one rule's query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryAnswer {
    /// Prometheus' instant vector.
    Vector(Vector),
    /// The pods that a custom service lists.
    Named(Vec<NamedPod>),
    /// No usable answer.
    Nothing,
}

/// What may stand in a query in place of this fleet's names: `$namespace`, `$service` and `$pods`, a regular expression of
/// the pods' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryVariables {
    /// The fleet's namespace.
    pub namespace: String,
    /// Its Service.
    pub service: String,
    /// Its pods.
    pub pods: Vec<String>,
}

impl QueryVariables {
    /// The query with its variables replaced.
    pub fn in_query<'q>(&self, query: &'q str) -> Cow<'q, str> {
        if !query.contains('$') {
            return query.into();
        }
        // `[.]`, because a backslash means something else in each kind of quotes.
        let pods: Vec<String> = self.pods.iter().map(|pod| pod.replace('.', "[.]")).collect();
        let replaced = query.replace("$namespace", &self.namespace).replace("$service", &self.service);
        replaced.replace("$pods", &pods.join("|")).into()
    }
}

/// The result of [`judge`].
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedAnswer {
    /// The breaker's judgements.
    pub source: Source,
    /// The answer's elements that match no pod of this fleet.
    pub strangers: usize,
}

/// The due rules, whose next due times are set, and the earliest due time of all.
///
/// A breaker with a query in flight (`in_flight`) is not queried again: this evaluation is omitted.
pub fn due<'a>(
    rules: &'a [Rule],
    now: Timestamp,
    windows: &mut Windows,
    in_flight: impl Fn(&str) -> bool,
) -> (Vec<&'a Rule>, Option<Timestamp>) {
    let (mut due, mut next_wakeup) = (Vec::new(), None);
    for rule in rules.iter().filter(|rule| !rule.detector.uses_keepalives_only()) {
        let breaker = windows.of(&rule.breaker);
        if breaker.is_due(now, rule.every) {
            breaker.next_due(now, rule.every);
            if !in_flight(&rule.breaker) {
                due.push(rule);
            }
        }
        next_wakeup = breaker.due().min(next_wakeup).or(breaker.due());
    }
    (due, next_wakeup)
}

/// Judges the pods by the answer.
pub fn judge(
    rule: &Rule,
    now: Timestamp,
    observations: &[Observation],
    answer: &QueryAnswer,
    scope: &FleetScope,
    windows: &mut Windows,
) -> JudgedAnswer {
    let pods = judged_pods(observations);
    match answer {
        QueryAnswer::Vector(vector) => {
            let join = SeriesJoin::new(vector.elements.iter(), &pods, scope);
            let joined = JoinedAnswer::Vector(JoinedVector { vector, join: &join, series: None });
            judge_joined(rule, now, &pods, joined, scope, windows, None)
        }
        QueryAnswer::Named(named) => {
            judge_joined(rule, now, &pods, JoinedAnswer::Named(named), scope, windows, None)
        }
        QueryAnswer::Nothing => judge_joined(rule, now, &pods, JoinedAnswer::Nothing, scope, windows, None),
    }
}

/// Judges the pods by an answer that is joined with them. The judgements are written in the memory of `place`, earlier ones
/// of this breaker that nobody needs, where they are of the same pods.
pub fn judge_joined(
    rule: &Rule,
    now: Timestamp,
    pods: &[&Observation],
    answer: JoinedAnswer<'_>,
    scope: &FleetScope,
    windows: &mut Windows,
    mut place: Option<Source>,
) -> JudgedAnswer {
    let values = place.as_mut().map(|place| std::mem::take(&mut place.measurements)).unwrap_or_default();
    let found = rule.detector.find(answer, pods, scope, windows.of(&rule.breaker), values);
    let AnswerFindings { judgements, measurements, strangers } = found;
    let source = source(place, rule, now, pods, judgements).with_measurements(measurements);
    JudgedAnswer { source, strangers }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decide::{
        detect::{
            Consecutive, Detector, Direction, LifeStatus, Outlier, OutlierSource, listed,
            series::tests::{pod, query, vector},
        },
        verdict::{Judgement, NoVerdict, Opinion},
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    fn rule(name: &str, every: u64, detector: Detector) -> Rule {
        Rule { breaker: name.into(), every: Duration::from_secs(every), detector }
    }

    fn custom() -> Detector {
        Detector::Custom(listed::tests::custom())
    }

    fn by_outlier() -> Detector {
        Detector::Outlier(Outlier {
            source: OutlierSource::Query(query()),
            threshold: 3.5,
            min_peers: 3,
            min_deviation: 0.0,
            min_relative_deviation: 1.0,
            direction: Direction::High,
            consecutive: Consecutive { of: 3, bad: 2 },
        })
    }

    fn scope() -> FleetScope {
        FleetScope { namespace: "default".into(), by_uid: false }
    }

    #[test]
    fn variables_of_a_query_are_this_fleet_s_names() {
        let variables = QueryVariables {
            namespace: "shop".into(),
            service: "web".into(),
            pods: vec!["web-1".into(), "web.2".into()],
        };
        let query = "sum by (pod) (x{namespace=\"$namespace\", service=\"$service\", pod=~\"$pods\"})";
        let expected = "sum by (pod) (x{namespace=\"shop\", service=\"web\", pod=~\"web-1|web[.]2\"})";
        assert_eq!(variables.in_query(query), expected);
        assert_eq!(variables.in_query("x"), "x");
    }

    fn names(rules: &[&Rule]) -> Vec<String> {
        rules.iter().map(|rule| rule.breaker.clone()).collect()
    }

    #[test]
    fn each_breaker_is_queried_at_its_own_period_and_never_twice_at_a_time() {
        let rules = [rule("fast", 1, custom()), rule("slow", 5, custom())];
        let mut windows = Windows::default();
        let (asked, next) = due(&rules, at(0), &mut windows, |_| false);
        assert_eq!((names(&asked), next), (vec!["fast".into(), "slow".into()], Some(at(1))));
        let (asked, next) = due(&rules, at(1), &mut windows, |breaker| breaker == "fast");
        assert_eq!((names(&asked), next), (vec![], Some(at(2))), "its answer is still awaited");
        let (asked, _) = due(&rules, at(2), &mut windows, |_| false);
        assert_eq!(names(&asked), ["fast"]);
        let (asked, _) = due(&rules, at(5), &mut windows, |_| false);
        assert_eq!(names(&asked), ["fast", "slow"]);
    }

    #[test]
    fn without_an_answer_no_pod_has_a_verdict() {
        let pods = [pod("a"), Observation { status: LifeStatus::Down, ..pod("gone") }];
        let rule = rule("x", 1, custom());
        let judged = judge(&rule, at(0), &pods, &QueryAnswer::Nothing, &scope(), &mut Windows::default());
        assert_eq!(
            judged.source.opinions(),
            [("uid-a".into(), Opinion::Judged(Judgement::None(NoVerdict::NoAnswer)))]
        );
    }

    #[test]
    fn an_answer_of_another_kind_is_an_error() {
        let rule = rule("x", 1, custom());
        let answer = QueryAnswer::Vector(vector(&[("a", "", 1.0)]));
        let judged = judge(&rule, at(0), &[pod("a")], &answer, &scope(), &mut Windows::default());
        assert_eq!(judged.source.opinions()[0].1, Opinion::Judged(Judgement::None(NoVerdict::NoAnswer)));
    }

    #[test]
    fn an_outlier_by_query_needs_its_bad_evaluations_and_a_failed_query_moves_no_window() {
        let rule = rule("far", 1, by_outlier());
        let pods = [pod("a"), pod("b"), pod("c"), pod("d")];
        let answer =
            QueryAnswer::Vector(vector(&[("a", "", 1.0), ("b", "", 1.1), ("c", "", 0.9), ("d", "", 9.0)]));
        let mut windows = Windows::default();
        let mut evaluate = |answer: &QueryAnswer| {
            let judged = judge(&rule, at(0), &pods, answer, &scope(), &mut windows);
            judged.source.opinions().iter().filter(|(_, opinion)| opinion.objects()).count()
        };
        assert_eq!(evaluate(&answer), 0, "one bad evaluation of two");
        assert_eq!(evaluate(&QueryAnswer::Nothing), 0);
        assert_eq!(evaluate(&answer), 1);
    }

    #[test]
    fn an_outlier_by_query_is_spared_below_its_share_of_the_median() {
        let answer =
            QueryAnswer::Vector(vector(&[("a", "", 1.0), ("b", "", 1.1), ("c", "", 0.9), ("d", "", 1.9)]));
        let bad = |min_relative_deviation| {
            let Detector::Outlier(outlier) = by_outlier() else { panic!() };
            let consecutive = Consecutive { of: 1, bad: 1 };
            let outlier = Outlier { min_relative_deviation, consecutive, ..outlier };
            let (rule, pods) = (rule("far", 1, Detector::Outlier(outlier)), ["a", "b", "c", "d"].map(pod));
            let judged = judge(&rule, at(0), &pods, &answer, &scope(), &mut Windows::default());
            judged.source.opinions().iter().filter(|(_, opinion)| opinion.objects()).count()
        };
        assert_eq!([bad(0.0), bad(0.5), bad(1.0)], [1, 1, 0], "of a median of 1.05");
    }
}
