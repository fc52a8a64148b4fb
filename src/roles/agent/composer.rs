//! Composes the keepalive of this agent: one JSON text, made once per change and shared by all senders.
//!
//! While the payload does not change, neither do the bytes, so that a master takes them for a heartbeat. A payload that
//! masters would refuse is refused here, with the reason in the agent's log; the last good one stays.

use std::{net::Ipv4Addr, sync::Arc};

use parking_lot::Mutex;
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

/// The two forms of the keepalive.
#[derive(Clone, Debug)]
pub(super) struct KeepaliveTexts {
    pub(super) alive: Arc<str>,
    /// With `down: true`: the last keepalive of a graceful stop.
    pub(super) down: Arc<str>,
}

/// Exactly the members of a keepalive.
#[derive(Serialize)]
struct KeepaliveMembers<'a> {
    app: &'a str,
    id: &'a str,
    ip: Ipv4Addr,
    key: Key,
    nonce: &'a str,
    payload: &'a RawValue,
    role: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    down: bool,
    /// The payload file has not been valid for too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

/// Why a text is refused as a payload.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    #[error("not JSON: {0}")]
    ReadJson(#[from] serde_json::Error),
    /// JSON that masters refuse.
    #[error("masters would refuse it: {0}")]
    Refused(#[from] KeepaliveError),
    /// JSON that masters would count as no data.
    #[error("{text} at {place:?} is no JSON value that every reader takes: write a finite number or null")]
    Odd {
        /// JSON pointer into the keepalive.
        place: String,
        /// Its source text.
        text: String,
    },
}

/// Makes keepalives of identity, nonce and payload.
pub(super) struct KeepaliveComposer {
    identity: Identity,
    nonce: String,
    /// The last payload that was set, and whether it is marked as stale.
    last: Mutex<(String, bool)>,
    texts: watch::Sender<KeepaliveTexts>,
}

impl KeepaliveComposer {
    /// With an empty payload. `nonce` distinguishes this process from the pod's earlier ones.
    pub(super) fn new(identity: &Identity, nonce: [u8; 8]) -> Result<Self, PayloadError> {
        let nonce = format!("{:016x}", u64::from_be_bytes(nonce));
        let empty = r#""""#;
        let first = compose(identity, &nonce, empty, false)?;
        let last = Mutex::new((empty.to_owned(), false));
        Ok(Self { identity: identity.clone(), nonce, last, texts: watch::Sender::new(first) })
    }

    /// The current texts and each change, which is to be sent at once, even when the bytes are the same.
    pub(super) fn subscribe(&self) -> watch::Receiver<KeepaliveTexts> {
        self.texts.subscribe()
    }

    /// Sets the payload: a payload file's content. The same content wakes the senders too.
    pub(super) fn set_payload(&self, payload: &str) -> Result<(), PayloadError> {
        self.texts.send_replace(compose(&self.identity, &self.nonce, payload, false)?);
        *self.last.lock() = (payload.to_owned(), false);
        Ok(())
    }

    /// Adds `stale: true` to the last payload; false if it has it already.
    pub(super) fn mark_stale(&self) -> bool {
        let mut last = self.last.lock();
        if std::mem::replace(&mut last.1, true) {
            return false;
        }
        let texts = compose(&self.identity, &self.nonce, &last.0, true);
        texts.map(|texts| self.texts.send_replace(texts)).is_ok()
    }
}

fn compose(
    identity: &Identity,
    nonce: &str,
    payload: &str,
    stale: bool,
) -> Result<KeepaliveTexts, PayloadError> {
    let payload: &RawValue = serde_json::from_str(payload)?;
    let mut members = KeepaliveMembers {
        app: &identity.app,
        id: &identity.id,
        ip: identity.ip,
        key: Key::of(identity.ip),
        nonce,
        payload,
        role: &identity.role,
        down: false,
        stale,
    };
    let alive = serde_json::to_string(&members)?;
    members.down = true;
    let down = serde_json::to_string(&members)?;
    if let Some(odd) = Keepalive::parse(down.as_bytes())?.odd() {
        return Err(PayloadError::Odd { place: odd.place.clone(), text: odd.text.clone() });
    }
    Ok(KeepaliveTexts { alive: alive.into(), down: down.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composer() -> KeepaliveComposer {
        let identity = Identity {
            namespace: "default".into(),
            id: "web-1".into(),
            ip: Ipv4Addr::new(172, 16, 123, 1),
            app: "shop".into(),
            role: "web".into(),
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
        };
        KeepaliveComposer::new(&identity, [0, 1, 2, 3, 4, 5, 6, 255]).unwrap()
    }

    #[test]
    fn a_keepalive_has_exactly_the_documented_members() {
        let composer = composer();
        let texts = composer.subscribe();
        let current = texts.borrow();
        let key = Key::of(Ipv4Addr::new(172, 16, 123, 1));
        assert_eq!(
            *current.alive,
            *format!(
                r#"{{"app":"shop","id":"web-1","ip":"172.16.123.1","key":"{key}","nonce":"00010203040506ff","payload":"","role":"web"}}"#
            )
        );
        assert_eq!(current.down.strip_suffix(r#","down":true}"#), current.alive.strip_suffix('}'));
        let read = Keepalive::parse(current.down.as_bytes()).unwrap();
        assert_eq!((read.is_down(), read.id(), read.nonce()), (true, "web-1", Some("00010203040506ff")));
    }

    #[test]
    fn numbers_scalars_and_null_are_payloads_and_keep_their_source_text() {
        let (composer, number) = (composer(), "123456789012345678901234567890.10");
        let texts = composer.subscribe();
        for payload in [
            number,
            "null",
            "true",
            r#""x""#,
            "[1]",
            r#" {"a": 1e2}
"#,
        ] {
            composer.set_payload(payload).unwrap();
            let member = format!(r#""payload":{},"#, payload.trim());
            assert!(texts.borrow().alive.contains(&member), "{payload}");
        }
    }

    #[test]
    fn a_payload_that_masters_refuse_is_refused_and_the_last_good_one_stays() {
        let composer = composer();
        composer.set_payload("7").unwrap();
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        for payload in ["", "{", "1 2", "nul", "1e999", r#""\udce9""#, "NaN", deep.as_str(), long.as_str()] {
            assert!(composer.set_payload(payload).is_err(), "{}", &payload[..payload.len().min(20)]);
        }
        assert!(composer.subscribe().borrow().alive.contains(r#""payload":7,"#));
    }

    #[test]
    fn the_same_payload_again_is_sent_again() {
        let composer = composer();
        let mut texts = composer.subscribe();
        composer.set_payload("7").unwrap();
        let before = texts.borrow_and_update().alive.clone();
        composer.set_payload("7").unwrap();
        assert!(texts.has_changed().unwrap());
        assert_eq!(before, texts.borrow().alive);
    }
}
