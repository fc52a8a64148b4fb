//! kubervisor: a health-gating traffic controller.
//!
//! # The flow
//! Every arrow is a value that can be printed, recorded and replayed:
//!
//! agent [`Keepalive`](decide::keepalive) → wire (ZeroRPC or HTTP, one port) →
//! [`Ensemble::observe`](decide::ensemble) → ordered snapshot → [digest](decide::digest) →
//! [damper](decide::damper) → callback and detectors → [verdicts](decide::verdict) →
//! [`gate::plan`](decide::gate) → ledger reservation → [traffic sink](adapters::sink) → the fleet
//! as it is now, which is where the next plan starts.
//!
//! # Invariants
//! - `roles → adapters → decide` and `api → decide`; `decide` has no clock, no I/O and no
//!   randomness: time is an argument, the next wake-up is a result. `tests/architecture.rs` holds it.
//! - Nothing takes a pod out of traffic but [`decide::gate::plan`], and it never goes below the floor.
//! - A plain heartbeat is never written to a store; a change is durable before anyone sees it.
//! - Whatever arrives from outside is bounded before memory is reserved for it.
//!
//! # Module map
//! | room | what lives there |
//! |---|---|
//! | [`decide`] | the pure core: ensemble, digest, damper, detectors, the gate |
//! | [`api`] | the `KubervisorService` manifest: raw spec → validated policy |
//! | [`adapters`] | stores, wire, processes, files: everything with a descriptor |
//! | [`roles`] | master, agent, controller, command line: wiring that reads as named steps |
//! | [`args`], [`telemetry`] | the command line; logs |
//! | [`config`] | `KONTROL_*` and `KUBERVISOR_*` → validated configuration |
//! | [`clock`], [`alarms`] | the two clocks; what a human must know |

pub mod adapters;
pub mod admin;
pub mod alarms;
pub mod api;
pub mod args;
pub mod clock;
pub mod config;
pub mod decide;
pub mod exit;
pub mod metrics;
pub mod roles;
pub mod runtime;
pub mod telemetry;
