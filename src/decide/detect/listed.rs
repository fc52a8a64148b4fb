//! A service of the user's that names the pods which are out of bounds.
//!
//! Only namespace, name and UID of what it names are looked at, and only for pods of this fleet: a
//! service that also knows other fleets, or that is wrong about one, harms nobody there.

use std::collections::HashMap;

use super::Observation;
use crate::decide::verdict::{Evidence, Judgement};

/// One pod as a service names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedPod {
    /// Where it is; empty is nowhere.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pod of that name, where it says so.
    pub uid: Option<String>,
}

/// Whose pods are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetScope {
    /// The fleet's namespace.
    pub namespace: String,
    /// The fleet's UIDs are Kubernetes', so that a service can name them: another process of the same
    /// name is another pod. Without it the name decides.
    pub by_uid: bool,
}

/// Judges the pods in their order; the second number counts names that belong to none of them.
#[must_use]
pub fn judge(scope: &FleetScope, named: &[NamedPod], pods: &[&Observation]) -> (Vec<Judgement>, usize) {
    let mut bad = vec![false; pods.len()];
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, pod) in pods.iter().enumerate() {
        places.entry(pod.id.as_str()).or_default().push(place);
    }
    let mut strangers = 0;
    for one in named {
        let mut known = false;
        for place in places.get(one.name.as_str()).into_iter().flatten().copied() {
            let (Some(pod), Some(bad)) = (pods.get(place), bad.get_mut(place)) else { continue };
            if one.names(scope, pod) {
                (*bad, known) = (true, true);
            }
        }
        strangers += usize::from(!known);
    }
    (bad.into_iter().map(settle).collect(), strangers)
}

impl NamedPod {
    fn names(&self, scope: &FleetScope, pod: &Observation) -> bool {
        let same_uid =
            !scope.by_uid || self.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == pod.uid.as_str());
        self.namespace == scope.namespace && self.name == pod.id && same_uid
    }
}

fn settle(bad: bool) -> Judgement {
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
    fn who_is_named_is_bad_and_all_others_are_good() {
        assert_eq!(verdicts(false, &[named("shop", "b", None)]), (vec![false, true], 0));
        assert_eq!(verdicts(false, &[]), (vec![false, false], 0));
    }

    #[test]
    fn pods_of_other_namespaces_and_unknown_ones_are_ignored_and_counted() {
        let list = [named("bank", "a", None), named("", "b", None), named("shop", "ghost", None)];
        assert_eq!(verdicts(false, &list), (vec![false, false], 3));
    }

    #[test]
    fn a_uid_is_held_against_the_pods_where_it_can_be() {
        let list = [named("shop", "a", Some("uid-a")), named("shop", "b", Some("an earlier b"))];
        assert_eq!(verdicts(true, &list), (vec![true, false], 1));
        assert_eq!(verdicts(false, &list), (vec![true, true], 0));
        assert_eq!(verdicts(true, &[named("shop", "b", Some(""))]), (vec![false, true], 0));
    }
}
