//! What the API server's refusals mean to the sink.

use std::time::Duration;

use crate::{
    adapters::{kubernetes::rights, sink::SinkError},
    decide::gate::ledger::ActionOutcome,
};

/// Why a request was not done, or may not have been.
#[derive(Debug)]
pub(super) enum WriteRefusal {
    /// Somebody else wrote meanwhile (409), or a `test` failed (422): it was not done.
    Conflict,
    /// What it rested on was too old, or over: it was not sent.
    Late,
    /// It is not there (404): it was not done.
    Gone,
    /// It may not be done (401, 403), such as `patch pods`: it was not done.
    Forbidden(String),
    /// Too many requests (429): it was not done; come again later.
    Busy(Duration),
    /// No answer: it may have been done.
    Silence,
    /// Anything else: it may have been done.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<kube::Error> for WriteRefusal {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Other(error.into()) };
        match status.code {
            409 | 422 => Self::Conflict,
            404 | 410 => Self::Gone,
            401 | 403 => {
                Self::Forbidden(rights::missing(&status.message).unwrap_or_else(|| status.message.clone()))
            }
            429 => {
                let seconds = status.details.as_ref().map_or(1, |details| details.retry_after_seconds);
                Self::Busy(Duration::from_secs(u64::from(seconds.max(1))))
            }
            _ => Self::Other(error.into()),
        }
    }
}

impl WriteRefusal {
    /// For whoever waits for `what`.
    pub(super) fn into_error(self, what: &'static str) -> SinkError {
        match self {
            Self::Forbidden(why) => SinkError::Forbidden { what, why },
            Self::Late => SinkError::NotReady { reason: "what it rested on is over" },
            Self::Gone => SinkError::NotReady { reason: "the resource is not there" },
            Self::Busy(after) => SinkError::Busy { after },
            Self::Conflict => SinkError::Ask { what, source: "somebody else wrote meanwhile".into() },
            Self::Silence => SinkError::Ask { what, source: "no answer in time".into() },
            Self::Other(source) => SinkError::Ask { what, source },
        }
    }
}

impl WriteRefusal {
    /// What it says about a withdrawal that was to be carried out.
    pub(super) fn outcome(&self) -> ActionOutcome {
        match self {
            Self::Conflict | Self::Late | Self::Gone | Self::Forbidden(_) | Self::Busy(_) => {
                ActionOutcome::Refused
            }
            Self::Silence | Self::Other(_) => ActionOutcome::Unknown,
        }
    }
}
