//! The callback's metrics.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{CallbackAnswer, CallbackError, Warning};

/// Upper bounds of the duration's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallbackResultLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallbackWarningLabel {
    kind: &'static str,
}

/// The metrics; clones share them.
#[derive(Clone, Debug)]
pub struct CallbackMetrics {
    runs: Family<CallbackResultLabel, Counter>,
    warnings: Family<CallbackWarningLabel, Counter>,
    duration: Histogram,
    state_bytes: Gauge,
}

impl Default for CallbackMetrics {
    fn default() -> Self {
        Self {
            runs: Family::default(),
            warnings: Family::default(),
            duration: Histogram::new(BUCKETS),
            state_bytes: Gauge::default(),
        }
    }
}

impl CallbackMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("callback_runs", "Runs of the callback by how they ended", self.runs.clone());
        registry.register(
            "callback_warnings",
            "Answers of the callback that were odd and did no harm",
            self.warnings.clone(),
        );
        registry.register_with_unit(
            "callback_duration",
            "From the start of a run to the end of its last process",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "callback_state",
            "Size of the state that the callback last printed",
            Unit::Bytes,
            self.state_bytes.clone(),
        );
    }

    pub(super) fn count(
        &self,
        result: &Result<CallbackAnswer, CallbackError>,
        warnings: &[Warning],
        duration: Duration,
    ) {
        let outcome = result.as_ref().map_or_else(CallbackError::category, |_| "success");
        self.runs.get_or_create_owned(&CallbackResultLabel { outcome }).inc();
        for warning in warnings {
            self.warnings.get_or_create_owned(&CallbackWarningLabel { kind: warning.category() }).inc();
        }
        self.duration.observe(duration.as_secs_f64());
        if let Ok(CallbackAnswer { state: Some(state), .. }) = result {
            self.state_bytes.set(i64::try_from(state.len()).unwrap_or(i64::MAX));
        }
    }
}
