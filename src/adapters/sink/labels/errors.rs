//! What the API server's refusals mean to the sink.

use std::time::Duration;

use crate::{adapters::sink::SinkError, decide::gate::ledger::Outcome};

/// Why a request was not done, or may not have been.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else wrote meanwhile (409), or a `test` failed (422): it was not done.
    Conflict,
    /// It is not there (404): it was not done.
    Gone,
    /// It may not be done (401, 403): it was not done. The right that is missing, such as `patch pods`; where it is not
    /// a right that is missing, the API server's words.
    Forbidden(String),
    /// Too many requests (429): it was not done; come again later.
    Busy(Duration),
    /// No answer: it may have been done.
    Silence,
    /// Anything else: it may have been done.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<kube::Error> for Refusal {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Other(error.into()) };
        match status.code {
            409 | 422 => Self::Conflict,
            404 | 410 => Self::Gone,
            401 | 403 => Self::Forbidden(right(&status.message).unwrap_or_else(|| status.message.clone())),
            429 => {
                let seconds = status.details.as_ref().map_or(1, |details| details.retry_after_seconds);
                Self::Busy(Duration::from_secs(u64::from(seconds.max(1))))
            }
            _ => Self::Other(error.into()),
        }
    }
}

/// From `pods "web-1" is forbidden: User "kubervisor" cannot patch resource "pods" in API group ""`, `patch pods`.
fn right(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, _) = rest.split_once('"')?;
    Some(format!("{verb} {resource}"))
}

impl Refusal {
    /// For whoever waits for `what`.
    pub(super) fn into_error(self, what: &'static str) -> SinkError {
        match self {
            Self::Forbidden(why) => SinkError::Forbidden { what, why },
            Self::Gone => SinkError::NotReady { reason: "the resource is not there" },
            Self::Busy(after) => SinkError::Busy { after },
            Self::Conflict => SinkError::Ask { what, source: "somebody else wrote meanwhile".into() },
            Self::Silence => SinkError::Ask { what, source: "no answer in time".into() },
            Self::Other(source) => SinkError::Ask { what, source },
        }
    }
}

impl Refusal {
    /// What it says about a withdrawal that was to be carried out.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Conflict | Self::Gone | Self::Forbidden(_) | Self::Busy(_) => Outcome::Refused,
            Self::Silence | Self::Other(_) => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_by_verb_and_resource() {
        let said = "kubervisorservices.kubervisor.k8s.io \"web\" is forbidden: User \"nobody\" cannot update resource \
                    \"kubervisorservices/status\" in API group \"kubervisor.k8s.io\" in the namespace \"shop\"";
        assert_eq!(right(said).as_deref(), Some("update kubervisorservices/status"));
        assert_eq!(right("Unauthorized"), None);
    }
}
