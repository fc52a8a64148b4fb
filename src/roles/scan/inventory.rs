//! Which of the usual metrics the pods of a namespace have.

use std::collections::{BTreeMap, BTreeSet};

use super::conventions::{CONVENTIONS, Convention, NAMESPACE_KEYS, POD_KEYS, Signal};
use crate::decide::replay::answers::{RangeAnswer, RangeSeries};

/// Moments of the range at which pods are looked for: one bit of [`SeenPod::moments`] for each.
pub(super) const MOMENTS: usize = 48;

/// One usual metric in one form, and the pods that have it.
#[derive(Clone, Debug)]
pub(super) struct MetricSighting {
    pub(super) convention: &'static Convention,
    pub(super) namespace_key: &'static str,
    pub(super) pod_key: &'static str,
    /// Those labels of [`Signal::Failures`] that the series have.
    pub(super) labels: BTreeSet<&'static str>,
    pub(super) pods: BTreeMap<String, SeenPod>,
}

/// A pod with a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenPod {
    /// When it was there.
    pub(super) moments: u64,
    /// Its Service, as the series say.
    pub(super) service: Option<String>,
}

/// The query that finds the usual metrics of the namespace in one of [`NAMESPACE_KEYS`].
pub(super) fn query(namespace_key: &str, namespace: &str) -> String {
    let metrics: Vec<&str> = CONVENTIONS.iter().map(|convention| convention.metric).collect();
    let labels = CONVENTIONS.iter().flat_map(|convention| match convention.signal {
        Signal::Failures { labels, .. } => labels,
        _ => &[],
    });
    let services = CONVENTIONS.iter().filter_map(|convention| convention.service_label.as_ref());
    let further: BTreeSet<&str> =
        labels.chain(services).chain(POD_KEYS).chain(NAMESPACE_KEYS).copied().collect();
    let sides: BTreeSet<&str> = CONVENTIONS.iter().filter_map(Convention::side_label).collect();
    let by: Vec<&str> = ["__name__"].into_iter().chain(further).chain(sides).collect();
    format!(
        "group by ({}) ({{__name__=~\"{}\",{namespace_key}=\"{namespace}\",le=~\"|[+]Inf\"}})",
        by.join(","),
        metrics.join("|")
    )
}

impl Convention {
    /// The label of [`Convention::matchers`].
    fn side_label(&self) -> Option<&'static str> {
        let end = self.matchers.find(['=', '!'])?;
        self.matchers.get(..end)
    }

    /// Whether a series is one that the matchers select.
    fn selects(&self, series: &RangeSeries) -> bool {
        let Some(name) = self.side_label() else { return true };
        let (negated, value) = match self.matchers.split_once("!=") {
            Some((_, value)) => (true, value),
            None => (false, self.matchers.split_once('=').map(|(_, value)| value).unwrap_or_default()),
        };
        let is_it = label(series, name) == Some(value.trim_end_matches(',').trim_matches('"'));
        is_it != negated
    }
}

/// What the answers to [`query`] tell, one for each of [`NAMESPACE_KEYS`].
pub(super) fn sightings(answers: &[(&'static str, RangeAnswer)]) -> Vec<MetricSighting> {
    let mut found: BTreeMap<(usize, &'static str, &'static str), MetricSighting> = BTreeMap::new();
    for (namespace_key, answer) in answers {
        for series in &answer.series {
            let metric = label(series, "__name__").unwrap_or_default();
            let known = CONVENTIONS.iter().enumerate().find(|(_, convention)| convention.metric == metric);
            let Some((index, convention)) = known.filter(|(_, convention)| convention.selects(series)) else {
                continue;
            };
            // A series that an exporter tells about another namespace than its own.
            let first = NAMESPACE_KEYS.iter().find(|key| label(series, key).is_some());
            let pod_key = POD_KEYS.iter().find(|key| label(series, key).is_some());
            let (Some(pod_key), true) = (pod_key, first == Some(namespace_key)) else { continue };
            let sighting = found.entry((index, namespace_key, pod_key)).or_insert_with(|| MetricSighting {
                convention,
                namespace_key,
                pod_key,
                labels: BTreeSet::new(),
                pods: BTreeMap::new(),
            });
            sighting.add(series, label(series, pod_key).unwrap_or_default());
        }
    }
    found.into_values().filter(MetricSighting::is_usable).collect()
}

impl MetricSighting {
    fn add(&mut self, series: &RangeSeries, pod: &str) {
        if let Signal::Failures { labels, .. } = self.convention.signal {
            self.labels.extend(labels.iter().filter(|name| label(series, name).is_some()));
        }
        let seen = self.pods.entry(pod.to_owned()).or_default();
        let there = (0..MOMENTS).filter(|index| series.at(*index).is_some());
        seen.moments |= there.fold(0, |all, index| all | (1 << index));
        if let Some(service) = self.convention.service_label.and_then(|name| label(series, name)) {
            seen.service.get_or_insert_with(|| service.to_owned());
        }
    }

    /// Requests that no label tells apart say nothing about failures.
    fn is_usable(&self) -> bool {
        !matches!(self.convention.signal, Signal::Failures { .. }) || !self.labels.is_empty()
    }
}

/// A label that is there and not empty.
pub(super) fn label<'s>(series: &'s RangeSeries, name: &str) -> Option<&'s str> {
    series.element.labels.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::decide::{detect::series::VectorElement, replay::answers::ABSENT, time::Timestamp};

    /// An answer with these series, each there at all moments below `until`.
    pub(in crate::roles::scan) fn answer(series: &[(&[(&str, &str)], usize)]) -> RangeAnswer {
        let one = |(labels, until): &(&[(&str, &str)], usize)| {
            let pairs = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let labels = pairs.collect();
            let element = VectorElement {
                pod: None,
                namespace: None,
                key: None,
                labels,
                value: None,
                at: Timestamp::default(),
            };
            let values = (0..MOMENTS).map(|index| if index < *until { 1.0 } else { ABSENT }).collect();
            RangeSeries { element, values }
        };
        let series = series.iter().map(one).collect();
        RangeAnswer { start: Timestamp::default(), step: 1000, steps: MOMENTS, series }
    }

    #[test]
    fn a_metric_is_found_with_the_label_of_its_codes_its_pods_and_their_service() {
        let requests = |pod, code| {
            [
                ("__name__", "http_requests_total"),
                ("namespace", "shop"),
                ("pod", pod),
                ("status", code),
                ("service", "web"),
            ]
        };
        let (one, two, other) =
            (requests("web-1", "200"), requests("web-1", "500"), requests("web-2", "200"));
        let found = sightings(&[("namespace", answer(&[(&one, 48), (&two, 3), (&other, 2)]))]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].pod_key, found[0].labels.iter().copied().collect::<Vec<_>>()),
            ("pod", vec!["status"])
        );
        let pod = |moments| SeenPod { moments, service: Some("web".to_owned()) };
        let pods: Vec<_> = found[0].pods.iter().map(|(name, pod)| (name.as_str(), pod.clone())).collect();
        assert_eq!(pods, [("web-1", pod((1 << 48) - 1)), ("web-2", pod(0b11))]);
    }

    #[test]
    fn the_other_side_of_a_proxy_an_exporters_own_namespace_and_requests_without_a_code_are_left_out() {
        let client = [
            ("__name__", "istio_requests_total"),
            ("namespace", "shop"),
            ("pod", "a"),
            ("reporter", "source"),
            ("response_code", "200"),
        ];
        let total = [
            ("__name__", "nginx_vts_server_requests_total"),
            ("namespace", "shop"),
            ("pod", "a"),
            ("code", "total"),
        ];
        let bare = [("__name__", "http_requests_total"), ("namespace", "shop"), ("pod", "a")];
        let podless = [("__name__", "http_requests_total"), ("namespace", "shop"), ("code", "200")];
        let elsewhere = [
            ("__name__", "kube_pod_container_status_restarts_total"),
            ("namespace", "shop"),
            ("pod", "exporter"),
            ("exported_namespace", "other"),
            ("exported_pod", "b"),
        ];
        let all = answer(&[(&client, 9), (&total, 9), (&bare, 9), (&podless, 9), (&elsewhere, 9)]);
        assert!(sightings(&[("namespace", all)]).is_empty());
        let exported = [
            ("__name__", "kube_pod_container_status_restarts_total"),
            ("namespace", "monitoring"),
            ("pod", "exporter"),
            ("exported_namespace", "shop"),
            ("exported_pod", "web-1"),
        ];
        let found = sightings(&[("exported_namespace", answer(&[(&exported, 9)]))]);
        assert_eq!(found[0].pod_key, "exported_pod");
        assert!(found[0].pods.contains_key("web-1"));
    }
}
