//! The API server's refusals, by what is known of the write.

use std::time::Duration;

use kube::core::Status;

use crate::{
    adapters::{kubernetes::rights, sink::SinkError},
    decide::gate::ledger::ActionOutcome,
};

/// Why a request failed, and whether it may have taken effect.
#[derive(Debug)]
pub(super) enum WriteRefusal {
    /// The object has changed (409): no effect.
    Conflict,
    /// A `test` failed, or the object would be invalid (422), in the API server's words: no effect.
    Invalid(String),
    /// An admission policy, a webhook or a disruption budget refuses it, in the API server's words: no effect.
    Denied(String),
    /// It was stored, but not as it was sent: an admission policy or webhook changed it.
    Altered(String),
    /// The LIST that it rests on was too old, or a pod has left service since: it was not sent.
    Late,
    /// The object does not exist (404, 410): no effect.
    Gone,
    /// A right is missing (401, 403), such as `patch pods`, or the credentials are refused: no effect.
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
        if denied(status) {
            return Self::Denied(status.message.clone());
        }
        match status.code {
            409 => Self::Conflict,
            422 => Self::Invalid(status.message.clone()),
            400 | 413 => Self::Denied(status.message.clone()),
            403 if rights::missing(&status.message).is_none() => Self::Denied(status.message.clone()),
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

/// Whether the answer is of an admission plugin or of the eviction's budget. Each may choose any code, so that the words
/// decide; they are the API server's own.
fn denied(status: &Status) -> bool {
    const WORDS: [&str; 3] = [" denied request: ", " denied the request", "failed calling webhook "];
    let causes = status.details.iter().flat_map(|details| &details.causes);
    WORDS.iter().any(|words| status.message.contains(words))
        || causes.into_iter().any(|cause| cause.reason == "DisruptionBudget")
}

impl WriteRefusal {
    /// The error of the step `what`.
    pub(super) fn into_error(self, what: &'static str) -> SinkError {
        match self {
            Self::Forbidden(why) | Self::Denied(why) => SinkError::Forbidden { what, why },
            Self::Invalid(why) | Self::Altered(why) => SinkError::Ask { what, source: why.into() },
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
            Self::Conflict
            | Self::Invalid(_)
            | Self::Denied(_)
            | Self::Late
            | Self::Gone
            | Self::Forbidden(_)
            | Self::Busy(_) => ActionOutcome::Refused,
            Self::Altered(_) | Self::Silence | Self::Other(_) => ActionOutcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(code: u16, message: &str, cause: &str) -> WriteRefusal {
        let answer = json!({"code": code, "message": message, "details": {"causes": [{"reason": cause}]}});
        kube::Error::Api(serde_json::from_value(answer).unwrap()).into()
    }

    #[test]
    fn a_refusal_is_told_from_a_race_a_missing_right_and_a_busy_server() {
        let webhook =
            "Internal error occurred: failed calling webhook \"pods.example.com\": connection refused";
        let role = "pods \"a\" is forbidden: User \"k\" cannot patch resource \"pods\" in API group \"\"";
        let denied = [
            (403, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: managed elsewhere", ""),
            (422, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: managed elsewhere", ""),
            (409, "admission webhook \"w\" denied the request: no", ""),
            (404, "admission webhook \"w\" denied the request: no", ""),
            (403, "exceeded quota", ""),
            (413, "limit is 3145728", ""),
            (500, webhook, ""),
            (429, "Cannot evict pod as it would violate the pod's disruption budget.", "DisruptionBudget"),
        ];
        for (code, message, cause) in denied {
            let found = refusal(code, message, cause);
            assert!(matches!(&found, WriteRefusal::Denied(said) if said == message), "{code}: {found:?}");
            assert_eq!(found.outcome(), ActionOutcome::Refused);
        }
        assert!(matches!(refusal(409, "the object has been modified", ""), WriteRefusal::Conflict));
        assert!(matches!(
            refusal(422, "rejected due to an error in the request", ""),
            WriteRefusal::Invalid(_)
        ));
        assert!(matches!(refusal(403, role, ""), WriteRefusal::Forbidden(right) if right == "patch pods"));
        assert!(matches!(refusal(429, "too many requests", ""), WriteRefusal::Busy(_)));
        assert!(matches!(refusal(500, "etcdserver: request timed out", ""), WriteRefusal::Other(_)));
    }
}
