//! The pure rooms of kubervisor, compiled by themselves: a fuzzer needs neither a runtime nor a
//! Kubernetes client, and builds in seconds without them. `api` and `decide` are links to the product's own.

#![allow(dead_code, unused_imports, missing_docs)]

pub mod api;
pub mod decide;
#[path = "../../src/adapters/wire/msgpack.rs"]
pub mod msgpack;
#[path = "../../src/adapters/wire/zerorpc.rs"]
pub mod zerorpc;
#[path = "../../src/adapters/wire/zmtp.rs"]
pub mod zmtp;
