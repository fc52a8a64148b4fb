//! Pods listed as bad by a custom HTTP service.
//!
//! Only namespace, name and UID are compared, and only with pods of this fleet: entries for other fleets have no
//! effect but a count.

use std::collections::HashMap;

use super::Observation;
use crate::decide::verdict::{Evidence, Judgement};

/// One pod in the service's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedPod {
    /// Its namespace; empty matches no pod.
    pub namespace: String,
    /// Its pod name.
    pub name: String,
    /// Its UID, if the service gives one.
    pub uid: Option<String>,
}

/// The fleet that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetScope {
    /// The fleet's namespace.
    pub namespace: String,
    /// Whether the fleet's UIDs are those of Kubernetes, which a service can give; if not, the name alone decides.
    pub by_uid: bool,
}

/// One judgement per pod, in their order, and the number of entries that match none.
#[must_use]
pub fn judge(scope: &FleetScope, named: &[NamedPod], pods: &[&Observation]) -> (Vec<Judgement>, usize) {
    let mut by_name: HashMap<&str, Vec<(&NamedPod, bool)>> = HashMap::new();
    for one in named {
        by_name.entry(&one.name).or_default().push((one, false));
    }
    let mut judge_pod = |pod: &&Observation| {
        let mut bad = false;
        for (one, matched) in by_name.get_mut(pod.id.as_str()).into_iter().flatten() {
            let matches = one.matches(scope, pod);
            *matched |= matches;
            bad |= matches;
        }
        judgement(bad)
    };
    let judgements = pods.iter().map(&mut judge_pod).collect();
    (judgements, by_name.into_values().flatten().filter(|(_, matched)| !matched).count())
}

impl NamedPod {
    fn matches(&self, scope: &FleetScope, pod: &Observation) -> bool {
        let same_uid =
            !scope.by_uid || self.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == pod.uid.as_str());
        self.namespace == scope.namespace && self.name == pod.id && same_uid
    }
}

fn judgement(bad: bool) -> Judgement {
    if !bad {
        return Judgement::Good;
    }
    let evidence = Evidence {
        rule: "customService".into(),
        note: Some("the service named it".into()),
        ..Evidence::default()
    };
    Judgement::Bad { severity: 1.0, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::detect::series::tests::pod;

    fn named(namespace: &str, name: &str, uid: Option<&str>) -> NamedPod {
        NamedPod { namespace: namespace.into(), name: name.into(), uid: uid.map(str::to_owned) }
    }

    fn verdicts(by_uid: bool, list: &[NamedPod]) -> (Vec<bool>, usize) {
        let scope = FleetScope { namespace: "shop".into(), by_uid };
        let (judgements, strangers) = judge(&scope, list, &[&pod("a"), &pod("b")]);
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
}
