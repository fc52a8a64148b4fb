//! `tree NAME`: Service → resource → breakers → pods, with state, value and the next step.

mod text;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    args::PluginSession,
    explanation::{NextChange, PodExplanation},
    fields,
    format::CommandOutput,
    style::Style,
};
use crate::{
    adapters::kubernetes::untyped::{ClusterClient, ClusterError},
    api::{fields::DETECTORS, keys},
    clock::Clock,
    decide::time::Timestamp,
    roles::output::list,
};

/// A resource and everything below and above it; also the JSON form.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceTree {
    namespace: String,
    service: ServiceNode,
    name: String,
    status: String,
    serving: Option<u64>,
    floor: Option<u64>,
    managed: Option<u64>,
    breakers: Vec<BreakerNode>,
    /// Pods that no breaker of the spec objects to or withholds.
    pods: Vec<PodNode>,
    /// Conditions of the whole fleet, and what could not be read.
    notes: Vec<String>,
    #[serde(skip)]
    now: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceNode {
    name: String,
    /// Its selector has the traffic key; `None`: it could not be read.
    gated: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BreakerNode {
    name: String,
    /// The detector's field, such as `outlier`.
    detector: String,
    evaluation_period: f64,
    activator: String,
    dry_run: bool,
    pods: Vec<PodNode>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodNode {
    name: String,
    uid: Option<String>,
    traffic: Option<String>,
    standing: String,
    /// Of the one that objects to it or withholds it.
    breaker: Option<String>,
    /// Rule, value and threshold.
    why: Option<String>,
    decision: Option<String>,
    since: Option<String>,
    retry_count: Option<String>,
    next: Option<NextChange>,
}

/// Reads the resource, its Service and its pods.
pub(super) async fn tree(session: &PluginSession, name: &str) -> Result<ServiceTree, ClusterError> {
    let (cluster, namespace) = (&session.cluster, session.namespace.as_str());
    let resource = cluster.service(namespace, name).await?;
    let mut unread = Vec::new();
    let service = fields::text(&resource, "/spec/service").unwrap_or_default();
    let found = service_of(cluster, namespace, &service).await.unwrap_or_else(|error| {
        unread.push(format!("the Service is not shown ({}): {error}", error.category()));
        None
    });
    let pods = match selector(&resource, found.as_ref()) {
        Some(labels) => cluster.pods(namespace, &labels).await.unwrap_or_else(|error| {
            unread.push(format!("the pods are not shown ({}): {error}", error.category()));
            Vec::new()
        }),
        None => Vec::new(),
    };
    let mut tree = ServiceTree::of(&resource, found.as_ref(), &pods, Clock::start().wall());
    tree.notes.extend(unread);
    Ok(tree)
}

/// The Service, if there is one of that name.
pub(super) async fn service_of(
    cluster: &ClusterClient,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, ClusterError> {
    let what = format!("service {name} in namespace {namespace}");
    cluster.get(&format!("/api/v1/namespaces/{namespace}/services"), name, &what).await
}

/// The labels of the fleet's pods: those that the controller found, else those of the Service.
pub(super) fn selector(resource: &Value, service: Option<&Value>) -> Option<String> {
    let found = resource["status"]["selector"].as_object().filter(|labels| !labels.is_empty());
    let labels = found.or_else(|| service?["spec"]["selector"].as_object())?;
    let pairs = labels.iter().filter(|(key, _)| *key != keys::TRAFFIC);
    let pairs = pairs.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    Some(pairs.collect::<Vec<_>>().join(",")).filter(|labels| !labels.is_empty())
}

impl ServiceTree {
    fn of(resource: &Value, service: Option<&Value>, pods: &[Value], now: Timestamp) -> Self {
        let text = |pointer| fields::text(resource, pointer).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let number = |pointer| resource.pointer(pointer).and_then(Value::as_u64);
        let mut breakers: Vec<BreakerNode> =
            list(resource, "/spec/breakers").iter().map(|breaker| breaker_node(resource, breaker)).collect();
        let mut others = Vec::new();
        for pod in pods {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let of_pod =
                PodExplanation::of(Some(pod), std::slice::from_ref(resource), &[], [&namespace, pod_name]);
            let node = PodNode::from(of_pod);
            match breakers.iter_mut().find(|breaker| Some(&breaker.name) == node.breaker.as_ref()) {
                Some(breaker) => breaker.pods.push(node),
                None => others.push(node),
            }
        }
        Self {
            service: ServiceNode { name: text("/spec/service"), gated: service.map(is_gated) },
            status: fields::status(resource),
            serving: number("/status/serving"),
            floor: number("/status/floor"),
            managed: number("/status/podCount/nbPodsManaged"),
            notes: super::explanation::fleet_notes(resource),
            breakers,
            pods: others,
            namespace,
            name,
            now,
        }
    }

    fn all_pods(&self) -> impl Iterator<Item = &PodNode> {
        self.breakers.iter().flat_map(|breaker| &breaker.pods).chain(&self.pods)
    }
}

/// Whether its selector asks for the switch.
pub(super) fn is_gated(service: &Value) -> bool {
    service["spec"]["selector"][keys::TRAFFIC].is_string()
}

fn breaker_node(resource: &Value, breaker: &Value) -> BreakerNode {
    let detector = DETECTORS.iter().find(|field| !breaker[**field].is_null());
    let activator = |member: &str| {
        let own = &breaker["activator"][member];
        if own.is_null() { &resource["spec"]["defaultActivator"][member] } else { own }
    };
    let (mode, period) = (activator("mode").as_str(), activator("period").as_f64());
    BreakerNode {
        name: fields::text(breaker, "/name").unwrap_or_default(),
        detector: detector.map(|field| (*field).to_owned()).unwrap_or_default(),
        evaluation_period: breaker["evaluationPeriod"]
            .as_f64()
            .unwrap_or_else(|| crate::api::fields::usual("spec.breakers[].evaluationPeriod")),
        activator: format!(
            "{} {} s",
            mode.map_or_else(|| "periodic".to_owned(), fields::plain),
            period.unwrap_or_else(|| crate::api::fields::usual("spec.defaultActivator.period"))
        ),
        dry_run: breaker["dryRun"] == true,
        pods: Vec::new(),
    }
}

impl From<PodExplanation> for PodNode {
    fn from(pod: PodExplanation) -> Self {
        let PodExplanation { pod: name, uid, traffic, standing, breaker, why, decision, .. } = pod;
        let PodExplanation { since, retry_count, next, .. } = pod;
        Self { name, uid, traffic, standing, breaker, why, decision, since, retry_count, next }
    }
}

impl CommandOutput for ServiceTree {
    fn value(&self) -> Value {
        json!(self)
    }

    fn names(&self) -> Vec<String> {
        let own = [
            format!("service/{}", self.service.name),
            format!("kubervisorservice.kubervisor.k8s.io/{}", self.name),
        ];
        own.into_iter().chain(self.all_pods().map(|pod| format!("pod/{}", pod.name))).collect()
    }

    fn text(&self, style: Style, wide: bool) -> String {
        text::text(self, style, wide)
    }
}

#[cfg(test)]
mod tests;
