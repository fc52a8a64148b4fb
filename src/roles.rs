//! The subcommands: each wires adapters and decisions together.

pub mod agent;
pub mod breaker;
pub mod check;
pub mod cluster;
pub mod controller;
pub mod crd;
pub mod demo;
pub mod gate;
pub mod invoke;
pub mod keygen;
pub mod master;
pub mod output;
pub mod plugin;
pub mod report;
pub mod run;
pub mod scan;
pub mod status;
pub mod view;
