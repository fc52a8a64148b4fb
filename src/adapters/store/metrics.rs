//! Counters of requests to the store and of their errors; tests use them to show that a heartbeat makes no request.

use prometheus_client::registry::Registry;

use super::StoreError;
use crate::metrics::LabelledCounter;

labelled! {
    /// A kind of request to the store.
    pub enum Operation, label {
        /// Reads all records.
        Load = "load",
        /// Writes a batch: one per transaction.
        Commit = "commit",
        /// Publishes what the others read about this process.
        Publish = "publish",
        /// Campaigns for leadership.
        Campaign = "campaign",
        /// Grants, renews or revokes the lease: at a fixed rate, independent of the fleet.
        Lease = "lease",
        /// Reads the leader and the followed records (start, reconnect, compaction).
        Follow = "follow",
    }
}

/// The store's counters; clones share them.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    operations: LabelledCounter,
    errors: LabelledCounter,
}

impl StoreMetrics {
    /// Puts the counters into a registry (whose prefix is `kubervisor`).
    pub fn register(to: &mut Registry) -> Self {
        let (operations, errors) =
            ("Requests to the store, by kind", "Failed requests to the store, by category");
        Self {
            operations: LabelledCounter::register(to, "store_operations", operations, "op"),
            errors: LabelledCounter::register(to, "store_errors", errors, "category"),
        }
    }

    /// Requests of this kind so far.
    pub fn operations(&self, operation: Operation) -> u64 {
        self.operations.of(operation.label()).get()
    }

    /// Failed requests of this [category](StoreError::category) so far.
    pub fn errors(&self, category: &'static str) -> u64 {
        self.errors.of(category).get()
    }

    pub(super) fn asked(&self, operation: Operation) {
        self.operations.of(operation.label()).inc();
    }

    pub(super) fn failed(&self, error: &StoreError) {
        self.errors.of(error.category()).inc();
    }

    /// Counts the error of `result`, if it is one.
    pub(super) fn judged<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_errors_are_exported_under_their_documented_names() {
        let mut registry = Registry::with_prefix("kubervisor");
        let metrics = StoreMetrics::register(&mut registry);
        metrics.asked(Operation::Commit);
        metrics.failed(&StoreError::NoSpace("full".to_owned()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("kubervisor_store_operations_total{op=\"commit\"} 1"), "{text}");
        assert!(text.contains("kubervisor_store_errors_total{category=\"no_space\"} 1"), "{text}");
        assert_eq!(metrics.operations(Operation::Commit), 1);
        assert_eq!(metrics.operations(Operation::Load), 0);
    }
}
