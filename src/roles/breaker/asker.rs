//! Asks what a detector needs to know from others: once, within its time, and counted.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{
    adapters::{
        custom::{self, CustomError},
        inquiry::{Inquiry, InquiryError},
        prometheus::{self, PrometheusError},
        secrets::Secrets,
    },
    clock::Clock,
    decide::detect::{Detector, Outlier, OutlierSource, Query, asked::Answer},
};

/// Asks for any number of breakers at a time.
pub struct Asker {
    inquiry: Inquiry,
    secrets: Arc<dyn Secrets>,
    clock: Clock,
    metrics: AskerMetrics,
}

/// No answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Prometheus.
    #[error("Prometheus at {service}")]
    Prometheus {
        /// Which.
        service: String,
        /// What went wrong.
        source: PrometheusError,
    },
    /// A service of the user's.
    #[error("the service at {service}")]
    Custom {
        /// Which.
        service: String,
        /// What went wrong.
        source: CustomError,
    },
    /// The breaker's `timeout`, over everything from the credentials to the last byte.
    #[error("no answer within {} s", after.as_secs_f64())]
    TimedOut {
        /// The time.
        after: Duration,
    },
}

impl AskError {
    /// A word for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Prometheus { source, .. } => source.category(),
            Self::Custom { source, .. } => source.category(),
            Self::TimedOut { .. } => "timeout",
        }
    }
}

impl Asker {
    /// Credentials come from `secrets`.
    ///
    /// # Errors
    /// [`InquiryError::SetUp`].
    pub fn new(secrets: Arc<dyn Secrets>, clock: Clock, metrics: AskerMetrics) -> Result<Self, InquiryError> {
        Ok(Self { inquiry: Inquiry::new()?, secrets, clock, metrics })
    }

    /// One with other credentials, such as another namespace's; connections and counts are shared.
    #[must_use]
    pub fn with_secrets(&self, secrets: Arc<dyn Secrets>) -> Self {
        Self { inquiry: self.inquiry.clone(), secrets, clock: self.clock, metrics: self.metrics.clone() }
    }

    /// Asks what `detector` wants to know; one that sees keepalives only gets [`Answer::Nothing`].
    ///
    /// # Errors
    /// [`AskError`], at the latest after the detector's timeout.
    pub async fn ask(&self, detector: &Detector) -> Result<Answer, AskError> {
        let begun = self.clock.now();
        let answer = self.within_time(detector).await;
        self.metrics.duration.observe(self.clock.now().since(begun).as_secs_f64());
        let outcome = match &answer {
            Ok(Answer::Vector(vector)) if vector.series.is_empty() => "empty",
            Ok(_) => "ok",
            Err(error) => error.category(),
        };
        self.metrics.queries.get_or_create_owned(&Outcome { outcome }).inc();
        answer
    }

    /// Parts of an answer belonged to no pod of the fleet.
    pub fn met_strangers(&self, count: usize) {
        self.metrics.strangers.inc_by(count as u64);
    }

    async fn within_time(&self, detector: &Detector) -> Result<Answer, AskError> {
        let Some(timeout) = timeout(detector) else { return Ok(Answer::Nothing) };
        let answer = tokio::time::timeout(timeout, self.fetch(detector)).await;
        answer.unwrap_or(Err(AskError::TimedOut { after: timeout }))
    }

    async fn fetch(&self, detector: &Detector) -> Result<Answer, AskError> {
        if let Detector::Custom(custom) = detector {
            let named = custom::ask(&self.inquiry, custom).await;
            return named
                .map(Answer::Named)
                .map_err(|source| AskError::Custom { service: custom.service.clone(), source });
        }
        let Some((query, key)) = query(detector) else { return Ok(Answer::Nothing) };
        let now = self.clock.wall();
        let vector = prometheus::ask(&self.inquiry, self.secrets.as_ref(), query, key, now).await;
        vector
            .map(Answer::Vector)
            .map_err(|source| AskError::Prometheus { service: query.service.clone(), source })
    }
}

/// The question to Prometheus, and the label that it counts by.
fn query(detector: &Detector) -> Option<(&Query, Option<&str>)> {
    match detector {
        Detector::Discrete(discrete) => Some((&discrete.query, Some(&discrete.key))),
        Detector::Deviation(deviation) => Some((&deviation.query, None)),
        Detector::Outlier(Outlier { source: OutlierSource::Query(query), .. }) => Some((query, None)),
        Detector::Outlier(_) | Detector::Silence(_) | Detector::Payload(_) | Detector::Custom(_) => None,
    }
}

fn timeout(detector: &Detector) -> Option<Duration> {
    match detector {
        Detector::Custom(custom) => Some(custom.timeout),
        other => query(other).map(|(query, _)| query.timeout),
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What is counted of the questions.
#[derive(Clone, Debug)]
pub struct AskerMetrics {
    queries: Family<Outcome, Counter>,
    duration: Histogram,
    strangers: Counter,
}

impl AskerMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Family::default(),
            // 5 ms to 80 s.
            duration: Histogram::new(exponential_buckets(0.005, 2.0, 15)),
            strangers: Counter::default(),
        };
        registry.register(
            "detector_queries",
            "Questions of detectors to Prometheus and custom services, by what came of them",
            metrics.queries.clone(),
        );
        registry.register(
            "detector_query_duration_seconds",
            "Time from a detector's question to its answer, or to giving up",
            metrics.duration.clone(),
        );
        registry.register(
            "detector_strangers",
            "Parts of such answers that belong to no pod of the fleet",
            metrics.strangers.clone(),
        );
        metrics
    }
}
