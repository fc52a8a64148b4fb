//! The controller: KubervisorServices of a cluster in, pods with and without traffic out.

pub mod announce;
pub mod conditions;
