//! The controller: KubervisorServices of a cluster in, pods with and without traffic out.

pub mod conditions;
