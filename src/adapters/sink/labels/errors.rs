//! The API server's refusals, by what is known of the write.

use std::time::Duration;

use crate::{
    adapters::{kubernetes::rights, sink::SinkError},
    decide::gate::ledger::ActionOutcome,
};

/// Why a request failed, and whether it may have taken effect.
#[derive(Debug)]
pub(super) enum WriteRefusal {
    /// The object has changed (409), or a `test` failed (422): no effect.
    Conflict,
    /// The LIST that it rests on was too old, or a pod has left service since: it was not sent.
    Late,
    /// The object does not exist (404, 410): no effect.
    Gone,
    /// A right is missing (401, 403), such as `patch pods`: no effect.
    Forbidden(String),
    /// Too many requests (429): no effect; to be retried after this.
    Busy(Duration),
    /// No response in time: it may have taken effect.
    Silence,
    /// Anything else: it may have taken effect.
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
    /// The error of the step `what`.
    pub(super) fn into_error(self, what: &'static str) -> SinkError {
        match self {
            Self::Forbidden(why) => SinkError::Forbidden { what, why },
            Self::Late => SinkError::NotReady("the LIST that it rests on is too old"),
            Self::Gone => SinkError::NotReady("the resource is not there"),
            Self::Busy(after) => SinkError::Busy(after),
            Self::Conflict => SinkError::Ask { what, source: "another client changed the object".into() },
            Self::Silence => SinkError::Ask { what, source: "no answer in time".into() },
            Self::Other(source) => SinkError::Ask { what, source },
        }
    }

    /// The outcome of the action whose write it is.
    pub(super) fn outcome(&self) -> ActionOutcome {
        match self {
            Self::Conflict | Self::Late | Self::Gone | Self::Forbidden(_) | Self::Busy(_) => {
                ActionOutcome::Refused
            }
            Self::Silence | Self::Other(_) => ActionOutcome::Unknown,
        }
    }
}
