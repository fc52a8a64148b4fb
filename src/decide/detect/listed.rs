//! Pods that a custom HTTP service lists: as bad, or with a number each.
//!
//! Only namespace, name and UID are compared, and only with pods of this fleet: entries for other fleets have no
//! effect but a count.

use std::collections::HashMap;

use super::{Custom, Observation, payload::Sample};
use crate::decide::verdict::{Evidence, Judgement, NoVerdict};

/// One pod in the service's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedPod {
    /// Its namespace; `None`: that of the fleet that asks. Empty matches no pod.
    pub namespace: Option<String>,
    /// Its pod name.
    pub name: String,
    /// Its UID, if the service gives one.
    pub uid: Option<String>,
    /// Whether the service finds it bad.
    pub bad: bool,
    /// Its number, if the service gives one.
    pub value: Option<f64>,
    /// The service's reason.
    pub reason: Option<String>,
}

/// The fleet that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetScope {
    /// The fleet's namespace.
    pub namespace: String,
    /// Whether the fleet's UIDs are those of Kubernetes, which a service can give; if not, the name alone decides.
    pub by_uid: bool,
}

/// One judgement per pod, in their order, and the number of entries that match none. A pod that the service does not
/// name is good.
pub fn judge(
    custom: &Custom,
    scope: &FleetScope,
    named: &[NamedPod],
    pods: &[&Observation],
) -> (Vec<Judgement>, usize) {
    each(scope, named, pods, |pod, entries| {
        let Some(bad) = entries.iter().find(|entry| entry.bad) else { return Judgement::Good };
        pod.unless_named_before(bad, custom).map_or_else(|| judgement(bad), Judgement::None)
    })
}

/// Each pod's number, in their order, and the number of entries that match none.
pub fn samples(
    custom: &Custom,
    scope: &FleetScope,
    named: &[NamedPod],
    pods: &[&Observation],
) -> (Vec<Sample>, usize) {
    each(scope, named, pods, |pod, entries| {
        let value = match entries {
            [] => Err(NoVerdict::NoSeries),
            [one] => match one.value.filter(|value| value.is_finite()) {
                Some(value) => pod.unless_named_before(one, custom).map_or(Ok(value), Err),
                None => Err(NoVerdict::NoNumber),
            },
            _ => Err(NoVerdict::SeveralSeries { label: String::new() }),
        };
        value.map_or_else(Sample::None, |value| Sample::Number { value, withheld: pod.withheld })
    })
}

/// `of` each pod and its entries, in the order of the pods, and the number of entries that match none.
fn each<T>(
    scope: &FleetScope,
    named: &[NamedPod],
    pods: &[&Observation],
    of: impl Fn(&Observation, &[&NamedPod]) -> T,
) -> (Vec<T>, usize) {
    let mut by_name: HashMap<&str, Vec<&NamedPod>> = HashMap::new();
    for one in named {
        by_name.entry(&one.name).or_default().push(one);
    }
    let mut matched = 0;
    let mut result = |pod: &&Observation| {
        let candidates = by_name.get(pod.id.as_str()).into_iter().flatten().copied();
        let entries: Vec<&NamedPod> = candidates.filter(|one| one.matches(scope, pod)).collect();
        matched += entries.len();
        of(pod, &entries)
    };
    let all = pods.iter().map(&mut result).collect();
    (all, named.len() - matched)
}

impl NamedPod {
    fn matches(&self, scope: &FleetScope, pod: &Observation) -> bool {
        let same_uid =
            !scope.by_uid || self.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == pod.uid.as_str());
        let namespace = self.namespace.as_ref().is_none_or(|namespace| *namespace == scope.namespace);
        namespace && self.name == pod.id && same_uid
    }
}

impl Observation {
    /// Why an entry may be about an earlier pod of the same name, if it may: it gives no UID, and the pod is young.
    fn unless_named_before(&self, entry: &NamedPod, custom: &Custom) -> Option<NoVerdict> {
        self.too_young(custom.min_pod_age).filter(|_| entry.uid.as_deref().is_none_or(str::is_empty))
    }
}

fn judgement(bad: &NamedPod) -> Judgement {
    let note = bad.reason.clone().unwrap_or_else(|| "the service named it".to_owned());
    let evidence =
        Evidence { rule: "customService".into(), value: bad.value, note: Some(note), ..Evidence::default() };
    Judgement::Bad { severity: 1.0, evidence: Box::new(evidence) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::decide::detect::{
        MetricSource,
        series::tests::{pod, scope},
    };

    fn named(namespace: &str, name: &str, uid: Option<&str>) -> NamedPod {
        NamedPod {
            namespace: Some(namespace.into()),
            name: name.into(),
            uid: uid.map(str::to_owned),
            bad: true,
            ..NamedPod::default()
        }
    }

    pub(in crate::decide::detect) fn custom() -> Custom {
        let second = std::time::Duration::from_secs(1);
        let source = Arc::new(MetricSource::at("detector"));
        Custom { source, path: String::new(), min_pod_age: second * 5, timeout: second }
    }

    fn verdicts(by_uid: bool, list: &[NamedPod]) -> (Vec<bool>, usize) {
        let scope = FleetScope { namespace: "shop".into(), by_uid };
        let (judgements, strangers) = judge(&custom(), &scope, list, &[&pod("a"), &pod("b")]);
        let bad = |judgement: &Judgement| match judgement {
            Judgement::Bad { .. } => true,
            Judgement::Good => false,
            other => panic!("{other:?}"),
        };
        (judgements.iter().map(bad).collect(), strangers)
    }

    #[test]
    fn listed_pods_are_bad_and_all_others_are_good() {
        assert_eq!(verdicts(false, &[named("shop", "b", None)]), (vec![false, true], 0));
        assert_eq!(verdicts(false, &[]), (vec![false, false], 0));
    }

    #[test]
    fn pods_of_other_namespaces_and_unknown_ones_are_ignored_and_counted() {
        let list = [named("bank", "a", None), named("", "b", None), named("shop", "ghost", None)];
        assert_eq!(verdicts(false, &list), (vec![false, false], 3));
    }

    #[test]
    fn a_uid_is_compared_where_the_fleet_has_uids_of_kubernetes() {
        let list = [named("shop", "a", Some("uid-a")), named("shop", "b", Some("an earlier b"))];
        assert_eq!(verdicts(true, &list), (vec![true, false], 1));
        assert_eq!(verdicts(false, &list), (vec![true, true], 0));
        assert_eq!(verdicts(true, &[named("shop", "b", Some(""))]), (vec![false, true], 0));
    }

    #[test]
    fn a_reason_and_a_number_of_the_service_are_the_evidence() {
        let bad = NamedPod {
            name: "a".into(),
            bad: true,
            value: Some(7.0),
            reason: Some("disk full".into()),
            ..NamedPod::default()
        };
        let (judgements, strangers) = judge(&custom(), &scope(), &[bad], &[&pod("a")]);
        let Judgement::Bad { evidence, .. } = &judgements[0] else { panic!("{judgements:?}") };
        assert_eq!(evidence.to_string(), "customService, value 7, disk full");
        assert_eq!(strangers, 0, "without a namespace it is the fleet that asks");
    }

    #[test]
    fn numbers_are_for_the_comparison_with_the_peers() {
        let entry = |name: &str, value| NamedPod { name: name.into(), value, ..NamedPod::default() };
        let named = [
            entry("a", Some(1.0)),
            entry("b", None),
            entry("c", Some(1.0)),
            entry("c", Some(2.0)),
            entry("x", None),
        ];
        let pods = [&pod("a"), &pod("b"), &pod("c"), &pod("d")];
        let (found, strangers) = samples(&custom(), &scope(), &named, &pods);
        let expected = [
            Sample::Number { value: 1.0, withheld: false },
            Sample::None(NoVerdict::NoNumber),
            Sample::None(NoVerdict::SeveralSeries { label: String::new() }),
            Sample::None(NoVerdict::NoSeries),
        ];
        assert_eq!((found.as_slice(), strangers), (&expected[..], 1));
    }

    #[test]
    fn a_young_pod_whose_name_another_had_is_not_bad_by_its_name_alone() {
        let young = Observation { name_age: Some(Duration::from_secs(1)), ..pod("a") };
        let (by_name, _) = judge(&custom(), &scope(), &[named("shop", "a", None)], &[&young]);
        assert_eq!(by_name, [Judgement::None(NoVerdict::TooYoung { seconds: 5 })]);
        let (by_uid, _) = judge(&custom(), &scope(), &[named("shop", "a", Some("uid-a"))], &[&young]);
        assert!(matches!(by_uid[0], Judgement::Bad { .. }));
    }
}
