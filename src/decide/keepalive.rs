//! Keepalives: parsing, validation and the canonical form.
//!
//! Address, key, identity and labels are validated strictly; any JSON is a valid payload, and unknown members are
//! kept. The canonical form of a keepalive is the pod's element in `PODS`.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
};

use crate::decide::{
    canonical::{self, CanonicalError, JsonNode},
    key::Key,
};

/// The largest keepalive, as sent and in canonical form, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// The longest `app`, `id`, `role` and `nonce`, in bytes: a Kubernetes name has at most 253.
pub const MAX_NAME: usize = 253;

/// Why a keepalive is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepaliveError {
    /// More than [`MAX_SIZE`] bytes, as sent or in canonical form.
    #[error("the keepalive has {0} bytes; at most {MAX_SIZE} are taken")]
    TooLarge(usize),
    /// Not JSON, or without a canonical form.
    #[error("the keepalive cannot be read: {0}")]
    ReadJson(#[from] CanonicalError),
    /// JSON, but not an object.
    #[error("the keepalive is JSON, but no object: send {{\"app\": ..., \"id\": ..., \"ip\": ..., ...}}")]
    NotAnObject,
    /// A required member is missing or `null`.
    #[error("the keepalive has no member `{0}`; app, id, ip, key and role are needed")]
    Missing(&'static str),
    /// A member has the wrong type.
    #[error("the member `{member}` must be {expected}")]
    WrongType {
        /// Its name.
        member: &'static str,
        /// The valid type.
        expected: &'static str,
    },
    /// A name beyond [`MAX_NAME`] bytes.
    #[error("the member `{member}` has {size} bytes; at most {MAX_NAME} are taken")]
    NameTooLong {
        /// Its name.
        member: &'static str,
        /// Its size.
        size: usize,
    },
    /// A character that no terminal, log or file should get: a control character, or one that turns the direction of text.
    #[error(
        "the member `{0}` is {1:?}: names have printable characters only, and none that turns the direction of text"
    )]
    NotPrintable(&'static str, String),
    /// An IPv6 address.
    #[error(
        "`ip` is the IPv6 address {0}: keys are made from IPv4 addresses, IPv6-only pods are not supported"
    )]
    Ipv6(IpAddr),
    /// Not an IP address.
    #[error("`ip` is {0:?}, which is no IPv4 address in dotted decimal")]
    NotAnAddress(String),
    /// The key is not that of the address.
    #[error("`key` is {key:?}, but the key of {ip} is {expected}")]
    WrongKey {
        /// The value sent, cut to 48 characters.
        key: String,
        /// The address in the keepalive.
        ip: Ipv4Addr,
        /// The address's key.
        expected: Key,
    },
}

impl KeepaliveError {
    /// The kind, for a metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::ReadJson(CanonicalError::NestTooDeep) => "too_deep",
            Self::ReadJson(_) | Self::NotAnObject => "not_json",
            Self::Missing { .. } => "missing_member",
            Self::WrongType { .. } | Self::NameTooLong { .. } | Self::NotPrintable(..) => "bad_member",
            Self::Ipv6 { .. } | Self::NotAnAddress { .. } => "bad_address",
            Self::WrongKey { .. } => "wrong_key",
        }
    }
}

/// A value that JSON has not, or a number beyond a double, in a member that is no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddValue {
    /// JSON pointer into the keepalive.
    pub place: String,
    /// Its source text, cut to 48 characters.
    pub text: String,
}

/// Members that name the pod or its state: an odd value in one of them refuses the keepalive.
const IDENTITY: [&str; 8] = ["app", "down", "id", "ip", "key", "nonce", "role", "seq"];

/// A valid keepalive; borrows from the received bytes.
#[derive(Clone, Debug)]
pub struct Keepalive<'a> {
    id: Cow<'a, str>,
    nonce: Option<Cow<'a, str>>,
    key: Key,
    down: bool,
    odd: Option<OddValue>,
    /// All members but `seq` and `down`, sorted by name.
    members: Vec<(Cow<'a, str>, JsonNode<'a>)>,
}

impl<'a> Keepalive<'a> {
    /// Parses and validates one keepalive.
    ///
    /// # Errors
    /// See [`KeepaliveError`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, KeepaliveError> {
        if raw.len() > MAX_SIZE {
            return Err(KeepaliveError::TooLarge(raw.len()));
        }
        let (node, odd) = match JsonNode::parse(raw) {
            Ok(node) => (node, None),
            Err(error) => without_odd_values(raw, error)?,
        };
        let JsonNode::Object(mut members) = node else { return Err(KeepaliveError::NotAnObject) };
        let down = flag(&members, "down")?;
        members.retain(|(name, _)| name != "seq" && name != "down");
        if let Err(at) = members.binary_search_by(|(name, _)| (**name).cmp("payload")) {
            members.insert(at, (Cow::Borrowed("payload"), JsonNode::Text(Cow::Borrowed(""))));
        }
        name(&members, "app")?;
        let id = name(&members, "id")?;
        name(&members, "role")?;
        Ok(Self {
            id,
            nonce: optional_name(&members, "nonce")?,
            key: checked_key(&members)?,
            down,
            odd,
            members,
        })
    }

    /// The first odd value. A payload that JSON has not is replaced by the empty one (no data), another member by `null`;
    /// a number beyond a double keeps its text.
    pub fn odd(&self) -> Option<&OddValue> {
        self.odd.as_ref()
    }

    /// By default the pod's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Random per process; `None` from clients that send none.
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// The pod's address in base 62.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether it has `down: true`, the last keepalive before a graceful stop.
    pub fn is_down(&self) -> bool {
        self.down
    }

    /// The pod's element in `PODS`: canonical JSON with `seq`, without `down`.
    pub fn canonical(&self, seq: u64) -> Vec<u8> {
        let seq = seq.to_string();
        let seq = JsonNode::Scalar(&seq);
        let at = self.members.partition_point(|(name, _)| &**name < "seq");
        let (before, after) = self.members.split_at(at);
        let mut out = Vec::with_capacity(256);
        let members = before.iter().map(borrowed).chain([("seq", &seq)]).chain(after.iter().map(borrowed));
        canonical::write_object(members, &mut out);
        out
    }
}

type JsonMembers<'a> = [(Cow<'a, str>, JsonNode<'a>)];

/// Reads a keepalive that JSON refuses with `error`, and takes its odd values out.
fn without_odd_values(
    raw: &[u8],
    error: CanonicalError,
) -> Result<(JsonNode<'_>, Option<OddValue>), KeepaliveError> {
    let Ok(mut node) = JsonNode::parse_lenient(raw) else { return Err(error.into()) };
    let odd = node.first_odd().map(|(place, text)| OddValue { place, text: shortened(text) });
    if let JsonNode::Object(members) = &mut node {
        if members.iter().any(|(name, value)| IDENTITY.contains(&&**name) && value.first_odd().is_some()) {
            return Err(error.into());
        }
        for (name, value) in members.iter_mut().filter(|(_, value)| value.is_odd()) {
            *value = match &**name {
                "payload" => JsonNode::Text(Cow::Borrowed("")),
                _ => JsonNode::Scalar("null"),
            };
        }
    }
    Ok((node, odd))
}

fn borrowed<'m, 'a>((name, value): &'m (Cow<'a, str>, JsonNode<'a>)) -> (&'m str, &'m JsonNode<'a>) {
    (name, value)
}

fn member<'m, 'a>(members: &'m JsonMembers<'a>, name: &str) -> Option<&'m JsonNode<'a>> {
    let at = members.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
    members.get(at).map(|(_, value)| value)
}

fn flag(members: &JsonMembers<'_>, name: &'static str) -> Result<bool, KeepaliveError> {
    match member(members, name) {
        None | Some(JsonNode::Scalar("false" | "null")) => Ok(false),
        Some(JsonNode::Scalar("true")) => Ok(true),
        Some(_) => Err(KeepaliveError::WrongType { member: name, expected: "true or false" }),
    }
}

fn name<'a>(members: &JsonMembers<'a>, name: &'static str) -> Result<Cow<'a, str>, KeepaliveError> {
    optional_name(members, name)?.ok_or(KeepaliveError::Missing(name))
}

/// Without control characters and without the marks that turn the direction of text (Unicode's bidi controls).
pub fn is_printable(name: &str) -> bool {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !name.chars().any(|c| c.is_control() || turns(c) || matches!(c, '\u{2028}' | '\u{2029}'))
}

fn optional_name<'a>(
    members: &JsonMembers<'a>,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, KeepaliveError> {
    match member(members, name) {
        None | Some(JsonNode::Scalar("null")) => Ok(None),
        Some(JsonNode::Text(text)) if text.len() > MAX_NAME => {
            Err(KeepaliveError::NameTooLong { member: name, size: text.len() })
        }
        Some(JsonNode::Text(text)) if !is_printable(text) => {
            Err(KeepaliveError::NotPrintable(name, shortened(text)))
        }
        Some(JsonNode::Text(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(KeepaliveError::WrongType { member: name, expected: "a string that is not empty" }),
    }
}

fn checked_key(members: &JsonMembers<'_>) -> Result<Key, KeepaliveError> {
    let ip = address(&name(members, "ip")?)?;
    let (key, expected) = (name(members, "key")?, Key::of(ip));
    if expected.to_string() == *key {
        return Ok(expected);
    }
    Err(KeepaliveError::WrongKey { key: shortened(&key), ip, expected })
}

fn address(text: &str) -> Result<Ipv4Addr, KeepaliveError> {
    match text.parse() {
        Ok(IpAddr::V4(ip)) => Ok(ip),
        Ok(ip) => Err(KeepaliveError::Ipv6(ip)),
        Err(_) => Err(KeepaliveError::NotAnAddress(shortened(text))),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(48).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"app":"web","id":"web-1","ip":"10.0.0.1","key":"blXcB","nonce":"00ff","payload":{"b":1.50,"a":[null]},"role":"front","zone":"é","seq":"mine"}"#;

    fn with(name: &str, value: &str) -> String {
        // A later member of the same name wins.
        format!("{},\"{name}\":{value}}}", GOOD.trim_end_matches('}'))
    }

    fn refused(raw: &str) -> KeepaliveError {
        Keepalive::parse(raw.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_canonical_form_has_our_seq_all_members_and_no_down() {
        let raw = with("down", "true");
        let keepalive = Keepalive::parse(raw.as_bytes()).unwrap();
        assert!(keepalive.is_down());
        assert_eq!(keepalive.key().address(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!((keepalive.id(), keepalive.nonce()), ("web-1", Some("00ff")));
        assert_eq!(
            String::from_utf8(keepalive.canonical(7)).unwrap(),
            r#"{"app":"web","id":"web-1","ip":"10.0.0.1","key":"blXcB","nonce":"00ff","payload":{"a":[null],"b":1.50},"role":"front","seq":7,"zone":"\u00e9"}"#
        );
    }

    #[test]
    fn any_json_is_a_payload_and_nonce_and_payload_may_be_left_out() {
        for payload in ["null", "0", "-1.5e3", "\"x\"", "[]", "{}", "true"] {
            let raw = with("payload", payload);
            let pod = Keepalive::parse(raw.as_bytes()).unwrap().canonical(0);
            assert!(
                String::from_utf8(pod).unwrap().contains(&format!("\"payload\":{payload},")),
                "{payload}"
            );
        }
        let bare = br#"{"app":"a","id":"i","ip":"10.0.0.1","key":"blXcB","role":"r"}"#;
        let keepalive = Keepalive::parse(bare).unwrap();
        assert_eq!(keepalive.nonce(), None);
        assert_eq!(
            String::from_utf8(keepalive.canonical(3)).unwrap(),
            r#"{"app":"a","id":"i","ip":"10.0.0.1","key":"blXcB","payload":"","role":"r","seq":3}"#
        );
    }

    #[test]
    fn an_odd_value_costs_the_payload_and_not_the_pod() {
        for odd in ["NaN", "-Infinity", r#""caf\udce9""#] {
            let raw = with("payload", &format!("{{\"ratio\":{odd},\"b\":1}}"));
            let keepalive = Keepalive::parse(raw.as_bytes()).unwrap();
            assert_eq!(
                keepalive.odd().unwrap(),
                &OddValue { place: "/payload/ratio".into(), text: odd.into() }
            );
            assert!(
                String::from_utf8(keepalive.canonical(0)).unwrap().contains("\"payload\":\"\","),
                "{odd}"
            );
            let raw = with("zone", odd);
            let keepalive = Keepalive::parse(raw.as_bytes()).unwrap();
            assert!(String::from_utf8(keepalive.canonical(0)).unwrap().ends_with("\"zone\":null}"), "{odd}");
            assert_eq!(refused(&with("id", odd)).category(), "not_json");
        }
        let (big, raw) = ("9".repeat(400), with("payload", &"9".repeat(400)));
        let keepalive = Keepalive::parse(raw.as_bytes()).unwrap();
        assert_eq!(keepalive.odd().unwrap().place, "/payload");
        let stored = keepalive.canonical(0);
        assert!(String::from_utf8(stored.clone()).unwrap().contains(&big), "its text is kept");
        assert_eq!(Keepalive::parse(&stored).unwrap().canonical(0), stored, "a restart reads it again");
        assert!(Keepalive::parse(with("payload", "7").as_bytes()).unwrap().odd().is_none());
    }

    #[test]
    fn missing_and_misshapen_members_are_refused_by_name() {
        for member in ["app", "id", "ip", "key", "role"] {
            assert!(refused(&with(member, "null")).to_string().contains(&format!("`{member}`")));
            assert_eq!(refused(&with(member, "null")).category(), "missing_member");
            assert_eq!(refused(&with(member, "7")).category(), "bad_member");
            assert_eq!(refused(&with(member, "\"\"")).category(), "bad_member");
        }
        assert_eq!(refused(&with("nonce", "7")).category(), "bad_member");
        assert_eq!(refused(&with("down", "1")).category(), "bad_member");
        for odd in ["\\u0000", "\\u001b[31m", "a\\nb", "\\u202egnp.exe", "\\u2066"] {
            for member in ["app", "id", "role"] {
                let refused = refused(&with(member, &format!("\"{odd}\"")));
                assert!(matches!(refused, KeepaliveError::NotPrintable(..)), "{odd}: {refused}");
                assert!(refused.to_string().chars().all(|c| !c.is_control()), "{refused}");
            }
        }
        let long = format!("\"{}\"", "x".repeat(MAX_NAME + 1));
        assert!(matches!(refused(&with("id", &long)), KeepaliveError::NameTooLong { .. }));
    }

    #[test]
    fn addresses_must_be_ipv4_and_keys_must_spell_them() {
        assert!(refused(&with("ip", "\"fd00::1\"")).to_string().contains("IPv6"));
        for ip in ["\"10.0.0\"", "\"10.0.0.256\"", "\"010.0.0.1\"", "\"web-1\""] {
            assert!(matches!(refused(&with("ip", ip)), KeepaliveError::NotAnAddress { .. }), "{ip}");
        }
        assert_eq!(refused(&with("key", "\"0blXcB\"")).category(), "wrong_key");
        assert_eq!(refused(&with("ip", "\"10.0.0.2\"")).category(), "wrong_key");
    }

    #[test]
    fn what_is_no_small_flat_json_object_is_refused() {
        assert_eq!(refused("{").category(), "not_json");
        assert_eq!(refused("[]").category(), "not_json");
        let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
        assert_eq!(refused(&with("payload", &deep)).category(), "too_deep");
        assert!(Keepalive::parse(with("payload", &deep[1..63]).as_bytes()).is_ok());
        let large = format!("\"{}\"", "x".repeat(MAX_SIZE));
        assert_eq!(refused(&with("payload", &large)).category(), "too_large");
    }
}
