//! The metrics of the keepalive port. The request counters are resolved at registration, not per request.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::RefusalKind;
use crate::metrics::{LabelledCounter, registered};

/// The label `dialect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
pub(super) enum DialectLabel {
    zerorpc,
    http,
}

/// The label `method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the variant's name is the label's value")]
pub(super) enum MethodLabel {
    ping,
    invoke,
    forward,
    challenge,
    state,
    down,
    builtin,
    unknown,
}

impl MethodLabel {
    const ALL: [Self; 8] = [
        Self::ping,
        Self::invoke,
        Self::forward,
        Self::challenge,
        Self::state,
        Self::down,
        Self::builtin,
        Self::unknown,
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    dialect: DialectLabel,
    method: MethodLabel,
}

/// The metrics; clones share the counters.
#[derive(Clone, Debug)]
pub struct WireMetrics {
    pub(super) connections: Gauge,
    requests: [[Counter; MethodLabel::ALL.len()]; 2],
    refused: LabelledCounter,
    closed: LabelledCounter,
}

impl WireMetrics {
    /// Creates and registers the metrics; the registry adds the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let requests: Family<RequestLabels, Counter> =
            registered(registry, "wire_requests", "Requests received, by dialect and method");
        let refused = "Requests and connections that were refused, by kind";
        let closed = "Connections that ended, by what ended them";
        let metrics = Self {
            connections: registered(registry, "wire_connections", "Connections that are open"),
            requests: [DialectLabel::zerorpc, DialectLabel::http].map(|dialect| {
                MethodLabel::ALL
                    .map(|method| requests.get_or_create_owned(&RequestLabels { dialect, method }))
            }),
            refused: LabelledCounter::register(registry, "wire_refused", refused, "kind"),
            closed: LabelledCounter::register(registry, "wire_closed", closed, "kind"),
        };
        for kind in RefusalKind::ALL {
            let _from_zero = metrics.refused.of(kind.label());
        }
        metrics
    }

    pub(super) fn request(&self, dialect: DialectLabel, method: MethodLabel) {
        self.requests[dialect as usize][method as usize].inc();
    }

    /// Counts a refused request ([`RefusalKind::label`]) or connection.
    pub(super) fn refuse(&self, kind: &'static str) {
        self.refused.of(kind).inc();
    }

    /// Counts an ended connection.
    pub(super) fn close(&self, kind: &'static str) {
        self.closed.of(kind).inc();
    }
}
