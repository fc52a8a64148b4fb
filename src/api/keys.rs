//! Labels, annotations and names that are written on objects of the cluster.
//!
//! The first ones are the original's: manifests, Services and dashboards of its users depend on them.

/// Label of a pod, and key of a Service's selector: the traffic switch.
pub const TRAFFIC: &str = "kubervisor/traffic";
/// Label: the KubervisorService that the pod belongs to.
pub const NAME: &str = "kubervisor/name";
/// Label: the breaker that cut the pod.
pub const STRATEGY: &str = "kubervisor/strategy";
/// Annotation: when the pod was cut, RFC 3339.
pub const BREAK_AT: &str = "breaker/breakAt";
/// Annotation: how often it was cut.
pub const RETRY_COUNT: &str = "breaker/retryCount";
/// Annotation: when it was last given its traffic back, RFC 3339.
pub const ADMITTED_AT: &str = "breaker/admittedAt";
/// Annotation: `<epoch>.<serial>`, tested and replaced by every fenced write.
pub const FENCE: &str = "kubervisor/fence";
/// Annotation of a KubervisorService: a person's requests, one JSON object a line.
pub const REQUESTS: &str = "kubervisor/requests";
/// Annotation of Kubernetes: a scale-down deletes pods of low cost first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The cost of a withheld pod: a number that others do not write, so that only our own is removed again.
pub const OUR_DELETION_COST: &str = "-2147483647";
/// Finalizer: withheld pods are admitted before the resource is deleted.
pub const FINALIZER: &str = "kubervisor.k8s.io/give-traffic-back";
