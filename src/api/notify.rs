//! Where a pod is told about decisions: `spec.notify`, and that of a breaker.

use std::collections::BTreeMap;

use crate::decide::detect::metric_source::Credential;

/// The port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyPort {
    /// Its number.
    Number(u16),
    /// The name of a container's port.
    Name(String),
}

/// Where on a pod its notifications go, and how they are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyRule {
    /// The port of the pod's own address.
    pub port: NotifyPort,
    /// The path and query, with the slash in front.
    pub path: String,
    /// The key of the HMAC; unsigned without it.
    pub hmac: Option<Credential>,
}

/// The rules of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyRules {
    /// `spec.notify`.
    pub default: Option<NotifyRule>,
    /// `spec.breakers[].notify`, by the breaker's name.
    pub breakers: BTreeMap<String, NotifyRule>,
}

impl NotifyRules {
    /// The rule for a decision about a pod of that breaker.
    pub fn of(&self, breaker: &str) -> Option<&NotifyRule> {
        self.breakers.get(breaker).or(self.default.as_ref())
    }
}
