//! What a process can be: wiring that reads as named steps.

pub mod agent;
pub mod breaker;
pub mod check;
pub mod controller;
pub mod crd;
pub mod demo;
pub mod gatekeeper;
pub mod invoke;
pub mod keygen;
pub mod master;
pub mod plugin;
pub mod run;
pub mod status;
