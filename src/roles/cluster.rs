//! Several replicas: the view of the members, and who works on what.
//!
//! | file | content |
//! |---|---|
//! | `replicas` | this process among the others: what is its own, what it publishes |
//! | `sharing` | joining them |
//! | `page` | `/cluster` |
//! | `command` | `kubervisor cluster` |
//! | `metrics` | members, owned services, moves, hand-overs |

pub mod command;
mod metrics;
mod page;
mod replicas;
mod sharing;

pub use self::{
    metrics::ClusterMetrics,
    replicas::{ReplicaChanges, Replicas},
};
pub(crate) use self::{
    page::{cluster_page, leadership},
    sharing::{Sharing, SharingOptions},
};
