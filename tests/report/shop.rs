//! A fleet's day in Prometheus: twelve pods, of which two are slow for a while.

use std::process::Output;

use kubervisor::clock::Clock;
use serde_json::{Value, json};

use crate::{
    backfill::Backfill,
    scraper::Prometheus,
    stage::{Stage, kubervisor, said},
};

pub(crate) const PODS: u64 = 12;
/// Seconds of history.
pub(crate) const LENGTH: u64 = 9 * 3600;
/// Between two samples, in seconds.
pub(crate) const SCRAPED: u64 = 60;
/// Pod, and from when to when it is slow, in seconds after the start.
pub(crate) const SLOW: [(u64, u64, u64); 2] = [(3, 7200, 9000), (5, 18_000, 19_200)];

/// Unix seconds of the whole minute that many seconds ago.
pub(crate) fn ago(seconds: u64) -> u64 {
    let now = u64::try_from(Clock::start().wall().unix_millis() / 1000).unwrap();
    (now - seconds) / 60 * 60
}

/// The history of one shop.
pub(crate) struct Shop {
    /// Unix seconds of the first sample.
    pub(crate) start: u64,
    pub(crate) history: Backfill,
}

impl Shop {
    /// The day that ended an hour ago, without a sample yet.
    pub(crate) fn new() -> Self {
        Self { start: ago(LENGTH + 3600), history: Backfill::default() }
    }

    /// With the latencies of every pod.
    pub(crate) fn measured() -> Self {
        let mut shop = Self::new();
        for pod in 0..PODS {
            shop.latency(pod, 0..LENGTH, |_| true);
        }
        shop
    }

    /// Adds the latency of a pod where `has_sample` of the seconds after the start.
    pub(crate) fn latency(&mut self, pod: u64, span: std::ops::Range<u64>, has_sample: impl Fn(u64) -> bool) {
        for at in span.step_by(usize::try_from(SCRAPED).unwrap()).filter(|at| has_sample(*at)) {
            let usual = 0.1 + 0.002 * ((pod * 7 + at / 60 * 3) % 11) as f64;
            let slow = SLOW.iter().any(|(of, from, to)| *of == pod && (*from..*to).contains(&at));
            let labels = format!("namespace=\"shop\",pod=\"web-{pod}\"");
            self.history.sample("latency", &labels, if slow { usual * 8.0 } else { usual }, self.at(at));
        }
    }

    /// Adds a gauge's samples over a span.
    pub(crate) fn gauge(
        &mut self,
        metric: &str,
        labels: &str,
        span: std::ops::Range<u64>,
        value: impl Fn(u64) -> f64,
    ) {
        for at in span.step_by(usize::try_from(SCRAPED).unwrap()) {
            self.history.sample(metric, labels, value(at), self.at(at));
        }
    }

    /// What kube-state-metrics says about a pod of the Deployment `web`.
    pub(crate) fn state(&mut self, pod: u64, span: std::ops::Range<u64>, ready: impl Fn(u64) -> bool) {
        let created = self.at(span.start) - 100.0;
        let of = format!("namespace=\"shop\",pod=\"web-{pod}\",uid=\"uid-{pod}\"");
        let owner = "owner_kind=\"ReplicaSet\",owner_name=\"web-6d4\",owner_is_controller=\"true\"";
        self.gauge("kube_pod_created", &of, span.clone(), |_| created);
        self.gauge("kube_pod_owner", &format!("{of},{owner}"), span.clone(), |_| 1.0);
        self.gauge("kube_pod_labels", &format!("{of},label_app=\"web\""), span.clone(), |_| 1.0);
        for condition in ["true", "false", "unknown"] {
            let labels = format!("{of},condition=\"{condition}\"");
            self.gauge("kube_pod_status_ready", &labels, span.clone(), |at| {
                f64::from(condition == if ready(at) { "true" } else { "false" })
            });
        }
    }

    /// What it says about the Deployment.
    pub(crate) fn deployment(&mut self, replicas: impl Fn(u64) -> f64) {
        let owner = "owner_kind=\"Deployment\",owner_name=\"web\",owner_is_controller=\"true\"";
        let set = format!("namespace=\"shop\",replicaset=\"web-6d4\",{owner}");
        self.gauge("kube_replicaset_owner", &set, 0..LENGTH, |_| 1.0);
        let deployment = "namespace=\"shop\",deployment=\"web\"";
        self.gauge("kube_deployment_spec_replicas", deployment, 0..LENGTH, replicas);
    }

    /// Unix seconds.
    pub(crate) fn at(&self, second: u64) -> f64 {
        (self.start + second) as f64
    }

    /// As a report writes a time.
    pub(crate) fn time(&self, second: u64) -> String {
        let millis = i64::try_from((self.start + second) * 1000).unwrap();
        kubervisor::decide::time::Timestamp::from_unix_millis(millis).to_string()
    }

    /// Starts a server with the history.
    pub(crate) async fn serve(&self, stage: &Stage) -> Prometheus {
        self.history.serve(stage.directory(), stage.ip(200), &[]).await
    }

    /// Runs `kubervisor report` over the whole day, with further arguments.
    pub(crate) fn report(&self, stage: &Stage, server: &str, policy: &Value, further: &[&str]) -> Output {
        let file = stage.write("policy.json", &policy.to_string()).display().to_string();
        let (from, to) = (self.start.to_string(), (self.start + LENGTH).to_string());
        let arguments = ["report", "-f", &file, "--prometheus", server, "--from", &from, "--to", &to];
        kubervisor(&[&arguments, further].concat(), &[])
    }

    /// The same as JSON.
    pub(crate) fn model(&self, stage: &Stage, server: &str, policy: &Value, further: &[&str]) -> Value {
        let output = self.report(stage, server, policy, &[&["-o", "json"], further].concat());
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A policy with one breaker, evaluated every 5 s; `breaker` has further fields of it.
pub(crate) fn policy(breaker: &Value) -> Value {
    let mut one = json!({
        "name": "slow", "evaluationPeriod": 5, "minPodsAvailableRatio": 50,
        "activator": {"mode": "periodic", "period": 60},
        "outlier": {"prometheusService": "prometheus:9090", "promQL": "latency{namespace=\"$namespace\"}", "podNamekey": "pod"},
    });
    for (name, value) in breaker.as_object().unwrap() {
        one[name] = value.clone();
    }
    json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService",
        "metadata": {"name": "web", "namespace": "shop"}, "spec": {"service": "web", "breakers": [one]},
    })
}

/// Pod, from and to of every episode.
pub(crate) fn episodes(model: &Value) -> Vec<(String, String, String)> {
    let text = |episode: &Value, name: &str| episode[name].as_str().unwrap().to_owned();
    let all = model["policies"][0]["episodes"].as_array().unwrap();
    all.iter().map(|one| (text(one, "pod"), text(one, "from"), text(one, "to"))).collect()
}
