//! The namespaces that are watched: each stands for itself, and an alarm names one whose watches fail.

use std::collections::BTreeSet;

use crate::{
    adapters::kubernetes::{cluster::Cluster, objects::SharedText},
    alarms::Alarms,
    decide::alarm_reason::AlarmReason,
};

/// Failures that one alarm names.
const NAMED: usize = 3;

/// The scopes (a namespace, or all: `None`) whose watches are in sync.
#[derive(Default)]
pub(super) struct Scopes {
    in_sync: BTreeSet<Option<SharedText>>,
}

impl Scopes {
    /// Raises or clears the alarm of each namespace. `true`: another scope has come into sync.
    pub(super) fn update(&mut self, cluster: &Cluster, alarms: &Alarms) -> bool {
        let (mut in_sync, mut more) = (BTreeSet::new(), false);
        for (scope, failures) in cluster.problems() {
            let name = scope.as_deref().unwrap_or("all namespaces");
            let unseen = !failures.is_empty() && scope.is_some();
            alarms.of(name).set(AlarmReason::NamespaceUnseen, unseen, || {
                let all: Vec<String> = failures.iter().take(NAMED).map(ToString::to_string).collect();
                format!("namespace {name}: {}; the other namespaces do not wait for it", all.join("; "))
            });
            if failures.is_empty() {
                more |= !self.in_sync.contains(&scope);
                in_sync.insert(scope);
            }
        }
        self.in_sync = in_sync;
        more
    }
}
