//! Faults, and which requests they are for.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::Asked;

/// What is done to a request that matches.
#[derive(Clone)]
pub enum Fault {
    /// Later.
    Delay(Duration),
    /// Not forwarded; this is the answer.
    Refuse(Refusal),
    /// A watch is told 410 in its stream, another request by its status.
    Expire,
    /// Not forwarded: this runs instead (it kills, say), and the connection breaks.
    Before(Arc<dyn Fn() + Send + Sync>),
    /// Forwarded and answered; then this runs, and the connection breaks.
    After(Arc<dyn Fn() + Send + Sync>),
    /// Forwarded and answered; the connection breaks instead of an answer.
    LoseAnswer,
    /// Forwarded and answered; the answer never comes.
    Hang,
}

/// An answer that the API server did not give.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// Seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: &str) -> Self {
        Self { code, reason, message: message.to_owned(), retry_after: None }
    }

    pub fn too_many_requests(retry_after: u32) -> Self {
        let refusal = Self::new(429, "TooManyRequests", "the proxy says: too many requests");
        Self { retry_after: Some(retry_after), ..refusal }
    }

    pub fn conflict() -> Self {
        Self::new(409, "Conflict", "the proxy says: the object has been modified")
    }

    pub fn invalid() -> Self {
        Self::new(
            422,
            "Invalid",
            "the proxy says: the server rejected our request due to an error in our request",
        )
    }

    pub fn internal() -> Self {
        Self::new(500, "InternalError", "the proxy says: an error on the server")
    }

    pub fn gone() -> Self {
        Self::new(410, "Expired", "the proxy says: too old resource version")
    }

    /// As RBAC says it.
    pub fn forbidden(verb: &str, resource: &str) -> Self {
        let message =
            format!("{resource} is forbidden: User \"kubervisor\" cannot {verb} resource \"{resource}\"");
        Self::new(403, "Forbidden", &message)
    }

    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
            "details": {"retryAfterSeconds": self.retry_after.unwrap_or(0)},
        })
    }
}

/// Which requests, and which of those in turn.
#[derive(Clone, Debug, Default)]
pub struct Matching {
    verb: Option<&'static str>,
    resource: Option<String>,
    name: Option<String>,
    only_writes: bool,
    skip: usize,
    times: Option<usize>,
}

impl Matching {
    /// Every one.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every one of that verb.
    pub fn verb(verb: &'static str) -> Self {
        Self { verb: Some(verb), ..Self::default() }
    }

    /// Every write, Events apart: they are never waited for, and come in no order.
    pub fn writes() -> Self {
        Self { only_writes: true, ..Self::default() }
    }

    /// Only of that resource, such as `pods` or `kubervisorservices/status`.
    pub fn of(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// Only of the object of that name.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only the nth of them, from 1, and none after it.
    pub fn nth(self, nth: usize) -> Self {
        Self { skip: nth - 1, times: Some(1), ..self }
    }

    /// Only the first so many.
    pub fn first(self, times: usize) -> Self {
        Self { skip: 0, times: Some(times), ..self }
    }

    fn is_about(&self, asked: &Asked) -> bool {
        self.verb.is_none_or(|verb| verb == asked.verb)
            && self.resource.as_ref().is_none_or(|resource| *resource == asked.resource)
            && (self.name.is_none() || self.name == asked.name)
            && (!self.only_writes || asked.writes() && !asked.is_event())
    }

    /// Whether it is this one's turn; counts it.
    fn takes(&mut self, asked: &Asked) -> bool {
        if !self.is_about(asked) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            Some(0) => false,
            Some(times) => {
                *times -= 1;
                true
            }
            None => true,
        }
    }
}

/// The faults that wait for their requests.
#[derive(Default)]
pub(super) struct Rules(Vec<(Matching, Fault)>);

impl Rules {
    pub(super) fn add(&mut self, matching: Matching, fault: Fault) {
        self.0.push((matching, fault));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn applying(&mut self, asked: &Asked) -> Vec<Fault> {
        self.0
            .iter_mut()
            .filter_map(|(matching, fault)| matching.takes(asked).then(|| fault.clone()))
            .collect()
    }
}
