//! The gate's reconciler for every sink, and the roster gate of a fleet without Kubernetes.
//!
//! | file | content |
//! |---|---|
//! | `reconciler` | the loop: observe, plan, reserve, send |
//! | `roster_gate` | the reconciler over a stored roster, and the endpoints file that follows it |
//! | `snapshot` | what `/services` and `/explain` show |
//! | `history` | the newest decisions and changes of each pod |
//! | `episodes` | when each pod was withheld, and when a dry run would have |
//! | `metrics` | the gate's metrics |

pub mod episodes;
pub mod history;
pub mod metrics;
pub mod reconciler;
pub mod reporter;
mod roster_gate;
pub mod snapshot;

pub use self::{
    reconciler::CALLBACK,
    roster_gate::{RosterGate, RosterGateDeps, port},
};
