//! Every label, annotation and name that we write on objects of the cluster, each once.
//!
//! The first ones are the original's: manifests, Services and dashboards of its users rely on them.

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
/// Annotation: the mark that every guarded write tests and replaces, `<epoch>.<serial>`.
pub const FENCE: &str = "kubervisor/fence";
/// Annotation of Kubernetes': which pods a scale-down takes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The cost that we write: nobody else's number, so that we take back only our own.
pub const OUR_DELETION_COST: &str = "-2147483647";
/// Finalizer: traffic is given back before the resource goes.
pub const FINALIZER: &str = "kubervisor.k8s.io/give-traffic-back";
