//! Labels of pods and the equality selectors over them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer};

use super::{PodRecord, SharedText};
use crate::api::keys;

/// An object's labels, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(SharedText, SharedText)]>);

impl Labels {
    /// The value of one label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(labels: I) -> Self {
        let labels: BTreeMap<SharedText, SharedText> =
            labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self(labels.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let labels = Option::<BTreeMap<_, _>>::deserialize(from)?;
        Ok(Self(labels.unwrap_or_default().into_iter().collect()))
    }
}

/// Labels that a selected pod must all have. An empty selector selects nothing, as in a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Selector(BTreeMap<SharedText, SharedText>);

impl Selector {
    /// A selector of these labels.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// Selects the pods labelled with the name of this KubervisorService.
    pub fn named(resource: &str) -> Self {
        Self::new([(keys::NAME, resource)])
    }

    /// Whether it has no labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects the pod; the namespace is not compared.
    pub fn matches(&self, pod: &PodRecord) -> bool {
        self.matches_labels(&pod.labels)
    }

    /// Whether it selects these labels.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        !self.is_empty() && self.0.iter().all(|(key, value)| labels.get(key) == Some(&**value))
    }

    /// The value that it requires of the traffic label.
    pub fn traffic_word(&self) -> Option<&str> {
        self.0.get(keys::TRAFFIC).map(|word| &**word)
    }

    /// The selector of the fleet, whatever the pods' traffic label.
    pub fn without_traffic_key(&self) -> Self {
        let rest = self.0.iter().filter(|(key, _)| &***key != keys::TRAFFIC);
        Self(rest.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The value of a `labelSelector` parameter.
    pub fn to_query(&self) -> String {
        let terms: Vec<String> = self.iter().map(|(key, value)| format!("{key}={value}")).collect();
        terms.join(",")
    }

    /// Key and value of each label.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_query())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_wants_every_label_and_an_empty_one_selects_nothing() {
        let labels = Labels::from_iter([("tier", "front"), ("app", "web"), ("kubervisor/traffic", "no")]);
        let selects =
            |selector: &[(&str, &str)]| Selector::new(selector.iter().copied()).matches_labels(&labels);
        assert!(selects(&[("app", "web")]) && selects(&[("app", "web"), ("tier", "front")]));
        assert!(!selects(&[("app", "db")]) && !selects(&[("app", "web"), ("zone", "a")]) && !selects(&[]));
    }

    #[test]
    fn the_fleet_is_selected_without_the_traffic_key() {
        let service = Selector::new([("app", "web"), ("kubervisor/traffic", "yes")]);
        assert!(service.traffic_word().is_some());
        let fleet = service.without_traffic_key();
        assert_eq!((fleet.to_query().as_str(), fleet.traffic_word().is_some()), ("app=web", false));
        assert_eq!(service.to_query(), "app=web,kubervisor/traffic=yes");
        assert!(Selector::new([("kubervisor/traffic", "yes")]).without_traffic_key().is_empty());
    }
}
