//! One contract suite over all stores, and the failures of each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "support/etcd.rs"]
mod etcd_server;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/yardstick.rs"]
mod yardstick;

#[path = "store/contract.rs"]
mod contract;
#[path = "store/election.rs"]
mod election;
#[path = "store/embedded.rs"]
mod embedded;
#[path = "store/etcd_access.rs"]
mod etcd_access;
#[path = "store/etcd_faults.rs"]
mod etcd_faults;
#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/kubernetes.rs"]
mod kubernetes;
#[path = "store/kubernetes_faults.rs"]
mod kubernetes_faults;
#[path = "store/kubernetes_leases.rs"]
mod kubernetes_leases;
#[path = "store/kubernetes_records.rs"]
mod kubernetes_records;
#[path = "store/kubernetes_rights.rs"]
mod kubernetes_rights;
#[path = "store/kubernetes_schema.rs"]
mod kubernetes_schema;
