//! Asks Prometheus what there is in a namespace; every query is shown before it is sent.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{
    conventions::NAMESPACE_KEYS,
    grouping::NamespaceFacts,
    inventory::{self, MOMENTS, MetricSighting},
};
use crate::{
    adapters::{
        prometheus::range::{self, RangeRequest},
        secrets::Files,
        sources::SourceClient,
    },
    clock::Clock,
    decide::{
        detect::{MetricSource, Query},
        replay::answers::RangeAnswer,
    },
    exit::{self, Exit},
    roles::{output, report::time_range::TimeRange},
};

/// What was found in a namespace.
pub(super) struct Survey {
    pub(super) sightings: Vec<MetricSighting>,
    pub(super) facts: NamespaceFacts,
}

/// Asks one server about one namespace.
pub(super) struct Surveyor<'a> {
    client: SourceClient,
    query: Query,
    namespace: &'a str,
    range: TimeRange,
}

impl<'a> Surveyor<'a> {
    /// # Errors
    /// 2 for what is no namespace, 1 when no client can be made.
    pub(super) fn new(source: Arc<MetricSource>, namespace: &'a str, range: TimeRange) -> Result<Self, Exit> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if namespace.is_empty() || namespace.len() > 63 || !namespace.chars().all(fits) {
            return Err(Exit::Usage(format!(
                "--namespace is {namespace:?}; write the name of a namespace: a-z, 0-9 and -"
            )));
        }
        let client = SourceClient::new(Arc::new(Files), Clock::start());
        let query = Query {
            source,
            promql: String::new(),
            pod_name_key: String::new(),
            namespace_key: String::new(),
            min_pod_age: Duration::ZERO,
            max_sample_age: Duration::from_secs(300),
            timeout: Duration::from_secs(60),
        };
        Ok(Self { client: client.context("cannot make an HTTP client")?, query, namespace, range })
    }

    /// # Errors
    /// 1 when the server does not answer.
    pub(super) async fn survey(&self) -> Result<Survey, Exit> {
        let mut answers = Vec::new();
        for key in NAMESPACE_KEYS {
            answers.push((*key, self.ask(inventory::query(key, self.namespace)).await?));
        }
        let facts = |metric: &str, by: &str| {
            self.ask(format!("group by ({by}) ({metric}{{namespace={:?}}})", self.namespace))
        };
        Ok(Survey {
            sightings: inventory::sightings(&answers),
            facts: NamespaceFacts {
                endpoints: facts("kube_endpoint_address", "endpoint,ip").await?,
                pods: facts("kube_pod_info", "pod,pod_ip").await?,
                owners: facts("kube_pod_owner", "pod,owner_kind,owner_name").await?,
            },
        })
    }

    /// At [`MOMENTS`] moments, the last of them just before the end.
    async fn ask(&self, promql: String) -> Result<RangeAnswer, Exit> {
        output::notice(&format!("query: {promql}\n"));
        let moments = u32::try_from(MOMENTS).unwrap_or(u32::MAX);
        let step = Duration::from_millis(
            u64::try_from((self.range.length() / moments).as_millis()).unwrap_or(u64::MAX),
        );
        let start = self.range.to - step.saturating_mul(moments) + step - Duration::from_millis(1);
        let request =
            RangeRequest { query: &self.query, promql: &promql, key: None, start, step, steps: MOMENTS };
        range::fetch(&self.client, request).await.map_err(|error| {
            let server = &self.query.source.url;
            Exit::Failed(anyhow::anyhow!(
                "Prometheus at {server}, asked for {promql:?}: {}",
                exit::chain(&error)
            ))
        })
    }
}
