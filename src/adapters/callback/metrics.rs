//! The callback's metrics.

use std::time::Duration;

use prometheus_client::{
    metrics::{gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{CallbackAnswer, CallbackError, Warning};
use crate::metrics::LabelledCounter;

/// Upper bounds of the duration's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// The metrics; clones share them.
#[derive(Clone, Debug)]
pub struct CallbackMetrics {
    runs: LabelledCounter,
    warnings: LabelledCounter,
    duration: Histogram,
    state_bytes: Gauge,
}

impl CallbackMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let (duration, state_bytes) = (Histogram::new(BUCKETS), Gauge::default());
        let help = "From the start of a run to the end of its last process";
        registry.register_with_unit("callback_duration", help, Unit::Seconds, duration.clone());
        let help = "Size of the state that the callback last printed";
        registry.register_with_unit("callback_state", help, Unit::Bytes, state_bytes.clone());
        let runs = "Runs of the callback by how they ended";
        let warnings = "Answers of the callback that were odd and did no harm";
        Self {
            runs: LabelledCounter::register(registry, "callback_runs", runs, "outcome"),
            warnings: LabelledCounter::register(registry, "callback_warnings", warnings, "kind"),
            duration,
            state_bytes,
        }
    }

    pub(super) fn count(
        &self,
        result: &Result<CallbackAnswer, CallbackError>,
        warnings: &[Warning],
        duration: Duration,
    ) {
        let outcome = result.as_ref().map_or_else(CallbackError::category, |_| "success");
        self.runs.of(outcome).inc();
        for warning in warnings {
            self.warnings.of(warning.category()).inc();
        }
        self.duration.observe(duration.as_secs_f64());
        if let Ok(CallbackAnswer { state: Some(state), .. }) = result {
            self.state_bytes.set(i64::try_from(state.len()).unwrap_or(i64::MAX));
        }
    }
}
