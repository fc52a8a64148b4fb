//! Health of a resource: what its status reports beside the gate's decisions.

use std::collections::BTreeMap;

use super::conditions::ResourceProblem;

/// Health of a resource beside its gate's snapshot.
#[derive(Debug, Default)]
pub(super) struct ResourceHealth {
    /// Why nothing can be decided for it.
    pub(super) problem: Option<ResourceProblem>,
    /// The older resource that claims its pods.
    pub(super) overlap: Option<String>,
    /// Why a breaker gets no usable answer, by breaker.
    pub(super) failures: BTreeMap<String, String>,
    /// Breakers that judge keepalives, while this process receives none.
    pub(super) without_keepalives: Vec<String>,
}

impl ResourceHealth {
    /// `failures`, and those of breakers without keepalives.
    pub(super) fn all_failures(&self) -> BTreeMap<String, String> {
        let why = "no keepalives are taken here: start the controller with --keepalives ADDR";
        let more = self.without_keepalives.iter().map(|breaker| (breaker.clone(), why.to_owned()));
        self.failures.clone().into_iter().chain(more).collect()
    }
}
