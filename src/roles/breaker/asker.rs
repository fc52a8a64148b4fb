//! Sends a detector's query to Prometheus or to a custom service, once and within its timeout, and counts it.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{
        counter::Counter,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{
    adapters::{
        custom::{self, CustomError},
        http_client::HttpClientError,
        prometheus::{self, PrometheusError},
        secrets::Secrets,
        sources::SourceClient,
    },
    clock::Clock,
    decide::detect::{
        Detector,
        queried::{QueryAnswer, QueryVariables},
    },
    metrics::{LabelledCounter, registered},
};

/// Sends queries; any number may be under way.
pub struct Asker {
    client: SourceClient,
    clock: Clock,
    metrics: AskerMetrics,
}

/// A query without a usable answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Prometheus.
    #[error("Prometheus at {0}")]
    Prometheus(String, #[source] PrometheusError),
    /// A custom service.
    #[error("the service at {0}")]
    Custom(String, #[source] CustomError),
    /// The breaker's `timeout`, over everything from the credentials to the last byte.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

impl AskError {
    /// The category, as a metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Prometheus(_, source) => source.category(),
            Self::Custom(_, source) => source.category(),
            Self::TimedOut { .. } => "timeout",
        }
    }
}

impl Asker {
    /// An asker with credentials from `secrets`.
    ///
    /// # Errors
    /// [`HttpClientError::SetUp`].
    pub fn new(
        secrets: Arc<dyn Secrets>,
        clock: Clock,
        metrics: AskerMetrics,
    ) -> Result<Self, HttpClientError> {
        Ok(Self { client: SourceClient::new(secrets, clock)?, clock, metrics })
    }

    /// An asker with other credentials, such as another namespace's, and the same connections and counts.
    pub fn with_secrets(&self, secrets: Arc<dyn Secrets>) -> Self {
        Self { client: self.client.with_secrets(secrets), clock: self.clock, metrics: self.metrics.clone() }
    }

    /// Sends the query of `detector`; [`QueryAnswer::Nothing`] for one that judges keepalives.
    ///
    /// # Errors
    /// At the latest after the detector's timeout.
    pub async fn ask(
        &self,
        detector: &Detector,
        variables: &QueryVariables,
    ) -> Result<QueryAnswer, AskError> {
        let begun = self.clock.now();
        let answer = self.within_time(detector, variables).await;
        self.metrics.duration.observe(self.clock.now().since(begun).as_secs_f64());
        let outcome = match &answer {
            Ok(QueryAnswer::Vector(vector)) if vector.elements.is_empty() => "empty",
            Ok(_) => "ok",
            Err(error) => error.category(),
        };
        self.metrics.queries.of(outcome).inc();
        answer
    }

    /// Counts parts of an answer that belong to no pod of the fleet.
    pub fn count_strangers(&self, count: usize) {
        self.metrics.strangers.inc_by(count as u64);
    }

    async fn within_time(
        &self,
        detector: &Detector,
        variables: &QueryVariables,
    ) -> Result<QueryAnswer, AskError> {
        let Some(timeout) = detector.timeout() else { return Ok(QueryAnswer::Nothing) };
        let answer = tokio::time::timeout(timeout, self.fetch(detector, variables)).await;
        answer.unwrap_or(Err(AskError::TimedOut(timeout)))
    }

    async fn fetch(&self, detector: &Detector, variables: &QueryVariables) -> Result<QueryAnswer, AskError> {
        if let Some(custom) = detector.custom() {
            let named = custom::ask(&self.client, custom).await;
            return named
                .map(QueryAnswer::Named)
                .map_err(|source| AskError::Custom(custom.source.url.clone(), source));
        }
        let Some((query, key)) = detector.query() else { return Ok(QueryAnswer::Nothing) };
        let now = self.clock.wall();
        let promql = variables.in_query(&query.promql);
        let vector = prometheus::ask(&self.client, query, &promql, key, now).await;
        vector
            .map(QueryAnswer::Vector)
            .map_err(|source| AskError::Prometheus(query.source.url.clone(), source))
    }
}

/// Metrics of the queries.
#[derive(Clone, Debug)]
pub struct AskerMetrics {
    queries: LabelledCounter,
    duration: Histogram,
    strangers: Counter,
}

impl AskerMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        // 5 ms to 80 s.
        let duration = Histogram::new(exponential_buckets(0.005, 2.0, 15));
        let help = "Time from a detector's question to its answer, or to giving up";
        registry.register("detector_query_duration_seconds", help, duration.clone());
        let queries = "Questions of detectors to Prometheus and custom services, by what came of them";
        let strangers = "Parts of such answers that belong to no pod of the fleet";
        Self {
            queries: LabelledCounter::register(registry, "detector_queries", queries, "outcome"),
            duration,
            strangers: registered(registry, "detector_strangers", strangers),
        }
    }
}
