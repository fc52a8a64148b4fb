//! The usual names of metrics that tell about a pod's health, and the labels that tell failed requests from good ones.

/// A metric that many programs export in the same form.
#[derive(Debug)]
pub(super) struct Convention {
    /// Whose form it is.
    pub(super) of: &'static str,
    /// The metric; for a histogram the series of its buckets.
    pub(super) metric: &'static str,
    /// Matchers that every use of it needs, each with a comma at its end.
    pub(super) matchers: &'static str,
    pub(super) signal: Signal,
    /// The label that names the Service of the measured pod, where it does.
    pub(super) service_label: Option<&'static str>,
}

/// What a metric tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Requests, counted by one of these labels; those whose label matches the regular expression have failed.
    Failures { labels: &'static [&'static str], failed: &'static str },
    /// Durations, as a histogram in this unit.
    Latency(LatencyUnit),
    /// Restarts of containers.
    Restarts,
}

/// The unit of a histogram's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LatencyUnit {
    Seconds,
    Milliseconds,
}

impl Signal {
    /// The name of the breaker that is proposed for it.
    pub(super) const fn breaker(self) -> &'static str {
        match self {
            Self::Failures { .. } => "errors",
            Self::Latency(_) => "latency",
            Self::Restarts => "restarts",
        }
    }
}

const HTTP_LABELS: &[&str] = &["code", "status", "status_code"];
const HTTP_FAILED: &str = "5..|5xx";
const HTTP: Signal = Signal::Failures { labels: HTTP_LABELS, failed: HTTP_FAILED };
const GRPC_FAILED: &str = "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss";
const SECONDS: Signal = Signal::Latency(LatencyUnit::Seconds);
const MILLISECONDS: Signal = Signal::Latency(LatencyUnit::Milliseconds);

const fn of_application(of: &'static str, metric: &'static str, signal: Signal) -> Convention {
    Convention { of, metric, matchers: "", signal, service_label: Some("service") }
}

const fn of_proxy(
    of: &'static str,
    metric: &'static str,
    matchers: &'static str,
    signal: Signal,
) -> Convention {
    Convention { of, metric, matchers, signal, service_label: None }
}

const fn failures(labels: &'static [&'static str], failed: &'static str) -> Signal {
    Signal::Failures { labels, failed }
}

const CLIENTS: &str = "Prometheus client libraries";
const OTEL: &str = "OpenTelemetry";
const ISTIO_SIDE: &str = "reporter=\"destination\",";
const LINKERD_SIDE: &str = "direction=\"inbound\",";

/// All of them. Of several that tell the same about as many pods the first is proposed: what the application itself
/// measures comes before what its proxy does.
#[rustfmt::skip]
pub(super) const CONVENTIONS: &[Convention] = &[
    of_application(CLIENTS, "http_requests_total", HTTP),
    of_application(CLIENTS, "http_server_requests_total", HTTP),
    of_application(CLIENTS, "http_request_duration_seconds_count", HTTP),
    of_application("Micrometer", "http_server_requests_seconds_count", HTTP),
    of_application(OTEL, "http_server_request_duration_seconds_count", failures(&["http_response_status_code"], HTTP_FAILED)),
    of_application(OTEL, "http_server_duration_milliseconds_count", failures(&["http_status_code"], HTTP_FAILED)),
    of_application("gRPC", "grpc_server_handled_total", failures(&["grpc_code"], GRPC_FAILED)),
    Convention {
        service_label: Some("destination_service_name"),
        ..of_proxy("Istio", "istio_requests_total", ISTIO_SIDE, failures(&["response_code"], HTTP_FAILED))
    },
    of_proxy("Linkerd", "response_total", LINKERD_SIDE, failures(&["classification"], "failure")),
    of_proxy("nginx", "nginx_ingress_controller_requests", "", failures(&["status"], HTTP_FAILED)),
    of_proxy("nginx", "nginx_vts_server_requests_total", "code!=\"total\",", failures(&["code"], HTTP_FAILED)),
    of_proxy("nginx", "nginx_http_response_count_total", "", failures(&["status"], HTTP_FAILED)),
    of_proxy("Envoy", "envoy_http_downstream_rq_xx", "", failures(&["envoy_response_code_class"], "5")),
    of_application(CLIENTS, "http_request_duration_seconds_bucket", SECONDS),
    of_application("Micrometer", "http_server_requests_seconds_bucket", SECONDS),
    of_application(OTEL, "http_server_request_duration_seconds_bucket", SECONDS),
    of_application(OTEL, "http_server_duration_milliseconds_bucket", MILLISECONDS),
    of_application("gRPC", "grpc_server_handling_seconds_bucket", SECONDS),
    Convention {
        service_label: Some("destination_service_name"),
        ..of_proxy("Istio", "istio_request_duration_milliseconds_bucket", ISTIO_SIDE, MILLISECONDS)
    },
    of_proxy("Linkerd", "response_latency_ms_bucket", LINKERD_SIDE, MILLISECONDS),
    of_proxy("nginx", "nginx_ingress_controller_request_duration_seconds_bucket", "", SECONDS),
    of_proxy("nginx", "nginx_http_response_time_seconds_hist_bucket", "", SECONDS),
    of_proxy("Envoy", "envoy_http_downstream_rq_time_bucket", "", MILLISECONDS),
    of_proxy("kube-state-metrics", "kube_pod_container_status_restarts_total", "", Signal::Restarts),
];

/// Labels that hold a pod's name; the first that a series has is its pod. `exported_pod` is what a scraped series calls
/// its pod where Prometheus has given `pod` to the exporter itself.
pub(super) const POD_KEYS: &[&str] = &["exported_pod", "pod", "kubernetes_pod_name", "pod_name"];
/// Labels that hold a pod's namespace, with the same meaning.
pub(super) const NAMESPACE_KEYS: &[&str] = &["exported_namespace", "namespace", "kubernetes_namespace"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_stands_once_and_its_form_fits_its_name() {
        let names: BTreeSet<&str> = CONVENTIONS.iter().map(|convention| convention.metric).collect();
        assert_eq!(names.len(), CONVENTIONS.len());
        for Convention { metric, matchers, signal, .. } in CONVENTIONS {
            let in_millis = metric.contains("milliseconds") || metric.contains("_ms_");
            // Envoy's durations are in milliseconds, and their name does not say so.
            let in_millis = in_millis || *metric == "envoy_http_downstream_rq_time_bucket";
            match signal {
                Signal::Latency(unit) => {
                    assert!(metric.ends_with("_bucket"), "{metric}");
                    assert_eq!(*unit == LatencyUnit::Milliseconds, in_millis, "{metric}");
                }
                Signal::Failures { labels, .. } => assert!(!labels.is_empty(), "{metric}"),
                Signal::Restarts => {}
            }
            assert!(matchers.is_empty() || matchers.ends_with(','), "{metric}");
        }
    }
}
