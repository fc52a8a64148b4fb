//! The master's end of the gate: which verdicts go in, where the plans go, and what people may see of it.

use serde_json::Value;

use super::Process;
use crate::{
    config::{Config, MasterConfig},
    exit::Exit,
};

/// What gatekeeping needs, read once at the start.
pub(crate) struct Gatekeeping {}

/// The gate of one reign.
pub(crate) struct Gate {}

impl Gatekeeping {
    pub(crate) fn prepare(
        _config: &Config,
        _master: &MasterConfig,
        _process: &Process,
    ) -> Result<Self, Exit> {
        Ok(Self {})
    }

    pub(crate) fn services(&self) -> Value {
        Value::Array(Vec::new())
    }

    pub(crate) fn service(&self, _namespace: &str, _name: &str) -> Option<Value> {
        None
    }

    pub(crate) fn explain(&self, _namespace: &str, _pod: &str) -> Option<Value> {
        None
    }
}

impl Gate {
    pub(crate) fn callback_said(&self, _traffic: &Value) {}
}
