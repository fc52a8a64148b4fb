//! The pure rooms of kubervisor, compiled by themselves: a fuzzer needs neither a runtime nor a
//! Kubernetes client, and builds in seconds without them.

#![allow(dead_code, unused_imports, missing_docs)]

pub mod decide {
    #[path = "../../../src/decide/canonical.rs"]
    pub mod canonical;
    #[path = "../../../src/decide/keepalive.rs"]
    pub mod keepalive;
    #[path = "../../../src/decide/key.rs"]
    pub mod key;
}
#[path = "../../src/adapters/wire/msgpack.rs"]
pub mod msgpack;
#[path = "../../src/adapters/wire/zerorpc.rs"]
pub mod zerorpc;
#[path = "../../src/adapters/wire/zmtp.rs"]
pub mod zmtp;
