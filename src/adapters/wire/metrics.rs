//! The metrics of the keepalive port. The request counters are resolved at registration, not per request.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::RefusalKind;
use crate::metrics::{LabelledCounter, registered};

labelled! {
    /// The label `dialect`.
    pub(super) enum DialectLabel, label {
        ZeroRpc = "zerorpc",
        Http = "http",
    }
}

labelled! {
    /// The label `method`.
    pub(super) enum MethodLabel, label {
        Ping = "ping",
        Invoke = "invoke",
        Forward = "forward",
        Challenge = "challenge",
        State = "state",
        Down = "down",
        Builtin = "builtin",
        Unknown = "unknown",
    }
}

/// The metrics; clones share the counters.
#[derive(Clone, Debug)]
pub struct WireMetrics {
    pub(super) connections: Gauge,
    requests: [[Counter; MethodLabel::ALL.len()]; DialectLabel::ALL.len()],
    refused: LabelledCounter,
    closed: LabelledCounter,
}

impl WireMetrics {
    /// Creates and registers the metrics; the registry adds the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let requests: Family<[(&str, &str); 2], Counter> =
            registered(registry, "wire_requests", "Requests received, by dialect and method");
        let refused = "Requests and connections that were refused, by kind";
        let closed = "Connections that ended, by what ended them";
        let metrics = Self {
            connections: registered(registry, "wire_connections", "Connections that are open"),
            requests: DialectLabel::ALL.map(|dialect| {
                let labels = |method: MethodLabel| [("dialect", dialect.label()), ("method", method.label())];
                MethodLabel::ALL.map(|method| requests.get_or_create_owned(&labels(method)))
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
