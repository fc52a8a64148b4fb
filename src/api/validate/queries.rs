//! The fields that all detectors with a query have: source, labels, limits.

use std::{sync::Arc, time::Duration};

use super::{
    super::{raw::RawBreaker, report::Report},
    forms,
    sources::{self, SourcesByName},
    take::Take,
    window,
};
use crate::decide::detect::{
    Custom, MetricSource, Query, metric_source::SourceAuth, queried::QueryVariables,
};

/// The window of a query that the parser does not know.
const UNKNOWN_WINDOW: Duration = Duration::from_secs(300);

/// Fields of all detectors that query a source.
pub(super) struct QuerySource {
    timeout: Duration,
    max_sample_age: Duration,
    namespace_key: String,
    min_pod_age: Option<Duration>,
    every: Duration,
    /// The one that the breaker names.
    named: Option<Arc<MetricSource>>,
    auth: Option<SourceAuth>,
}

impl QuerySource {
    pub(super) fn new(
        path: &str,
        raw: &RawBreaker,
        sources: &SourcesByName,
        report: &mut Report<'_>,
    ) -> Self {
        let mut take = Take { report, path };
        let timeout = take.seconds("timeout", raw.timeout);
        let every = take.seconds("evaluationPeriod", raw.evaluation_period);
        let max_sample_age = take.seconds("maxSampleAge", raw.max_sample_age);
        let min_pod_age = take.seconds_if_set("minPodAge", raw.min_pod_age);
        let namespace_key = raw.namespace_key.clone().unwrap_or_else(|| "namespace".to_owned());
        let named = raw.source.as_deref().map(|name| named(path, name, sources, report));
        let auth = raw.auth.as_ref();
        let auth = auth.and_then(|raw| sources::of_address(&format!("{path}.auth"), raw, report));
        Self { timeout, max_sample_age, namespace_key, min_pod_age, every, named, auth }
    }

    pub(super) fn query(self, take: &mut Take<'_, '_>, fields: [&Option<String>; 3]) -> Query {
        let [service, promql, pod_name_key] = fields.map(Option::as_deref);
        let source = match (self.named, service) {
            (Some(named), None) => named,
            (Some(named), Some(_)) => {
                let path = format!("{}.prometheusService", take.path);
                take.report.add(&path, "stands beside the source of the breaker", "remove one of them");
                named
            }
            (None, service) => {
                let url = take.required("prometheusService", service);
                if service.is_some() && !forms::is_service_url(&url) {
                    take.misfit("prometheusService", format!("is {url:?}"));
                }
                Arc::new(MetricSource { auth: self.auth, ..MetricSource::at(url) })
            }
        };
        let promql = take.required("promQL", promql);
        let window =
            || window::longest(&QueryVariables::default().in_query(&promql)).unwrap_or(UNKNOWN_WINDOW);
        Query {
            source,
            min_pod_age: self.min_pod_age.unwrap_or_else(window),
            promql,
            pod_name_key: take.required("podNamekey", pod_name_key),
            namespace_key: self.namespace_key,
            max_sample_age: self.max_sample_age,
            timeout: self.timeout,
        }
    }

    /// `field` is the service's address, or with a named source a path below it.
    pub(super) fn custom(self, path: &str, service: &str, report: &mut Report<'_>) -> Custom {
        let is_path = service.starts_with('/');
        let fits = if self.named.is_some() { is_path } else { !is_path && forms::is_custom_service(service) };
        if !fits {
            report.misfit(path, format!("is {service:?}"));
        }
        let (source, below) = match self.named {
            Some(named) => (named, service),
            None => (Arc::new(MetricSource::at(service)), ""),
        };
        Custom {
            source,
            path: below.to_owned(),
            min_pod_age: self.min_pod_age.unwrap_or(self.every),
            timeout: self.timeout,
        }
    }
}

fn named(path: &str, name: &str, sources: &SourcesByName, report: &mut Report<'_>) -> Arc<MetricSource> {
    if let Some(source) = sources.get(name) {
        return Arc::clone(source);
    }
    let known: Vec<&str> = sources.keys().map(String::as_str).collect();
    let write = match known[..] {
        [] => "add it to spec.sources, or start the process with --sources".to_owned(),
        _ => format!("instead write one of {}", known.join(", ")),
    };
    report.add(&format!("{path}.source"), format!("is {name:?}, which is no source"), write);
    Arc::default()
}
