//! All I/O: stores, sockets, processes, files. Adapters carry out decisions; they make none.

mod addresses;
pub mod callback;
pub mod commands;
pub mod custom;
pub mod http_client;
pub mod kubernetes;
pub mod notify;
pub mod pod_metadata;
pub mod policy_file;
pub mod process;
pub mod prometheus;
pub mod secrets;
pub mod sink;
pub mod sources;
pub mod store;
pub mod wire;
