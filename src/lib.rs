//! kubervisor: a health-gating traffic controller.
//!
//! # The flow
//! Each stop hands a plain value to the next:
//!
//! agent [`Keepalive`](decide::keepalive) → wire (ZeroRPC or HTTP, one port) →
//! [`Ensemble::observe`](decide::ensemble) → ordered snapshot → [digest](decide::digest) →
//! [damper](decide::damper) → callback and detectors → [verdicts](decide::verdict) →
//! [`gate::plan`](decide::gate) → ledger reservation → [traffic sink](adapters::sink) → the observed
//! fleet, with which the next plan starts.
//!
//! # Invariants
//! - `roles → adapters → decide` and `api → decide`; `decide` has no clock, no I/O and no
//!   randomness: time is an argument, the next wake-up is a result. `tests/architecture.rs` checks it.
//! - Only [`decide::gate::plan`] takes a pod out of traffic, and never below the floor.
//! - A plain heartbeat is never written to a store; a pod's sequence number is durable before it appears in a snapshot.
//! - Input is checked against its limit before memory is reserved for it.
//!
//! # Module map
//! | room | content |
//! |---|---|
//! | [`decide`] | the pure core: ensemble, digest, damper, detectors, the gate |
//! | [`api`] | the `KubervisorService` manifest: raw spec → validated policy |
//! | [`adapters`] | I/O: stores, wire, Kubernetes, processes, files |
//! | [`roles`] | one module per subcommand: master, agent, controller, command line |
//! | [`args`], [`telemetry`] | the command line; logs |
//! | [`config`] | `KONTROL_*` and `KUBERVISOR_*` → validated configuration |
//! | [`clock`], [`alarms`] | the two clocks; conditions that need an operator |
//! | [`core_task`] | tasks whose unexpected end ends the process |
//! | [`memory`] | freed memory goes back to the system |

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod labelled;

pub mod adapters;
pub mod admin;
pub mod alarms;
pub mod api;
pub mod args;
pub mod clock;
pub mod config;
pub mod core_task;
pub mod decide;
pub mod exit;
pub mod memory;
pub mod metrics;
pub mod roles;
pub mod runtime;
pub mod telemetry;
