//! What this agent says: one JSON text, made once per change and shared by all pingers.
//!
//! While nothing changes the bytes stay the same, so that a master sees a plain heartbeat. A text that
//! a master would refuse is never said: a payload that makes one is turned down here, where its owner
//! can see why, and the pod stays alive on the last good one.

use std::{net::Ipv4Addr, sync::Arc};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::{
    config::Identity,
    decide::{
        keepalive::{Keepalive, KeepaliveError},
        key::Key,
    },
};

/// The two things there are to say.
#[derive(Clone, Debug)]
pub(super) struct Utterance {
    /// I am alive.
    pub(super) alive: Arc<str>,
    /// I am going, gracefully.
    pub(super) down: Arc<str>,
}

/// A keepalive, exactly the members that one has.
#[derive(Serialize)]
struct Said<'a> {
    app: &'a str,
    id: &'a str,
    ip: Ipv4Addr,
    key: Key,
    nonce: &'a str,
    payload: &'a RawValue,
    role: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    down: bool,
}

/// Why a text is no payload.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    ReadJson(#[from] serde_json::Error),
    /// JSON that no master would take.
    #[error("no master would take it: {0}")]
    Unacceptable(#[from] KeepaliveError),
}

/// Puts identity, nonce and payload together.
pub(super) struct Speaker {
    identity: Identity,
    nonce: String,
    said: watch::Sender<Utterance>,
}

impl Speaker {
    /// A speaker without a payload. `nonce` tells this process from the one before it.
    pub(super) fn new(identity: &Identity, nonce: [u8; 8]) -> Result<Self, PayloadError> {
        let nonce = format!("{:016x}", u64::from_be_bytes(nonce));
        let first = compose(identity, &nonce, r#""""#)?;
        Ok(Self { identity: identity.clone(), nonce, said: watch::Sender::new(first) })
    }

    /// What is said from now on; each change is worth a keepalive at once, even one to the same bytes.
    pub(super) fn listen(&self) -> watch::Receiver<Utterance> {
        self.said.subscribe()
    }

    /// Takes a payload file's content. Saying the same again still wakes the pingers.
    pub(super) fn take(&self, payload: &str) -> Result<(), PayloadError> {
        self.said.send_replace(compose(&self.identity, &self.nonce, payload)?);
        Ok(())
    }
}

fn compose(identity: &Identity, nonce: &str, payload: &str) -> Result<Utterance, PayloadError> {
    let payload: &RawValue = serde_json::from_str(payload)?;
    let mut said = Said {
        app: &identity.app,
        id: &identity.id,
        ip: identity.ip,
        key: Key::of(identity.ip),
        nonce,
        payload,
        role: &identity.role,
        down: false,
    };
    let alive = serde_json::to_string(&said)?;
    said.down = true;
    let down = serde_json::to_string(&said)?;
    Keepalive::parse(down.as_bytes())?;
    Ok(Utterance { alive: alive.into(), down: down.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker() -> Speaker {
        let identity = Identity {
            namespace: "default".into(),
            id: "web-1".into(),
            ip: Ipv4Addr::new(172, 16, 123, 1),
            app: "shop".into(),
            role: "web".into(),
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
        };
        Speaker::new(&identity, [0, 1, 2, 3, 4, 5, 6, 255]).unwrap()
    }

    #[test]
    fn a_keepalive_has_exactly_the_documented_members() {
        let speaker = speaker();
        let heard = speaker.listen();
        let said = heard.borrow();
        let key = Key::of(Ipv4Addr::new(172, 16, 123, 1));
        assert_eq!(
            *said.alive,
            *format!(
                r#"{{"app":"shop","id":"web-1","ip":"172.16.123.1","key":"{key}","nonce":"00010203040506ff","payload":"","role":"web"}}"#
            )
        );
        assert_eq!(said.down.strip_suffix(r#","down":true}"#), said.alive.strip_suffix('}'));
    }

    #[test]
    fn numbers_scalars_and_null_are_payloads_and_keep_their_source_text() {
        let (speaker, number) = (speaker(), "123456789012345678901234567890.10");
        let heard = speaker.listen();
        for payload in [
            number,
            "null",
            "true",
            r#""x""#,
            "[1]",
            r#" {"a": 1e2}
"#,
        ] {
            speaker.take(payload).unwrap();
            let member = format!(r#""payload":{},"#, payload.trim());
            assert!(heard.borrow().alive.contains(&member), "{payload}");
        }
    }

    #[test]
    fn a_payload_that_no_master_would_take_is_turned_down_and_the_last_good_one_stays() {
        let speaker = speaker();
        speaker.take("7").unwrap();
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        for payload in ["", "{", "1 2", "nul", deep.as_str(), long.as_str()] {
            assert!(speaker.take(payload).is_err(), "{}", &payload[..payload.len().min(20)]);
        }
        assert!(speaker.listen().borrow().alive.contains(r#""payload":7,"#));
    }

    #[test]
    fn the_same_payload_again_is_heard_again() {
        let speaker = speaker();
        let mut heard = speaker.listen();
        speaker.take("7").unwrap();
        let before = heard.borrow_and_update().alive.clone();
        speaker.take("7").unwrap();
        assert!(heard.has_changed().unwrap());
        assert_eq!(before, heard.borrow().alive);
    }
}
