//! The request that `invoke` and `script` carry: its members as text, so that a command gets, and a signature
//! covers, exactly what was sent.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::signing::{Challenge, VERSION};

/// The member that carries the signature.
pub const PROOF: &str = "kubervisor";

/// A JSON object as its members in order, values as text; a name that comes twice is an error.
#[derive(Debug, Default)]
pub struct InvokeRequest<'a> {
    /// Name and value.
    pub members: Vec<(String, &'a RawValue)>,
}

/// `kubervisor: {v, challenge, sig}`; without the last two it only asks for an answer in our form.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct InvokeProof {
    /// [`VERSION`].
    pub v: u8,
    /// The agent's challenge, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The signature, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sig: Option<String>,
}

/// What came of a command, for callers that sent a `kubervisor` member.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Its stdout, without the last line's end.
    pub stdout: String,
    /// Its exit code; 128 and the signal's number when a signal ended it, 124 when its time ran out.
    pub exit: i32,
    /// Whether there was more output than fits.
    pub truncated: bool,
}

/// What an agent answers to the question for a challenge.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    /// [`VERSION`].
    pub v: u8,
    /// 32 random bytes, base64.
    pub challenge: String,
}

impl<'a> InvokeRequest<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// When it is no JSON object, or names a member twice.
    pub fn read(raw: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(raw)
    }

    /// The JSON text of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// Those that a signature covers besides `cmd`.
    #[must_use]
    pub fn others(&self) -> Vec<(&str, &'a str)> {
        let covered = self.members.iter().filter(|(name, _)| name != "cmd" && name != PROOF);
        covered.map(|(name, value)| (name.as_str(), value.get())).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for InvokeRequest<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = InvokeRequest<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.len() == MOST_MEMBERS || members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a member comes twice, or there are too many"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(InvokeRequest { members })
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Keeps the search for names that come twice cheap.
const MOST_MEMBERS: usize = 256;

impl InvokeProof {
    /// One that only asks for an answer in our form.
    #[must_use]
    pub fn unsigned() -> Self {
        Self { v: VERSION, challenge: None, sig: None }
    }

    /// One with a signature.
    #[must_use]
    pub fn signed(challenge: &Challenge, signature: &[u8; 64]) -> Self {
        let text = |bytes: &[u8]| Some(BASE64_STANDARD.encode(bytes));
        Self { v: VERSION, challenge: text(challenge), sig: text(signature) }
    }

    /// Challenge and signature, if both are there and well-formed.
    #[must_use]
    pub fn parts(&self) -> Option<(Challenge, [u8; 64])> {
        let challenge = BASE64_STANDARD.decode(self.challenge.as_deref()?).ok()?;
        let signature = BASE64_STANDARD.decode(self.sig.as_deref()?).ok()?;
        Some((challenge.try_into().ok()?, signature.try_into().ok()?))
    }
}

impl Offer {
    /// Offers `challenge`.
    #[must_use]
    pub fn of(challenge: &Challenge) -> Self {
        Self { v: VERSION, challenge: BASE64_STANDARD.encode(challenge) }
    }

    /// The challenge, if it is one of ours.
    #[must_use]
    pub fn challenge(&self) -> Option<Challenge> {
        let bytes = BASE64_STANDARD.decode(&self.challenge).ok()?;
        bytes.try_into().ok().filter(|_| self.v == VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text_and_their_order() {
        let raw = br#"{"b": 1.0e2, "cmd":"x", "a":[ 1 ], "kubervisor":{"v":1}}"#;
        let request = InvokeRequest::read(raw).unwrap();
        assert_eq!(request.others(), [("b", "1.0e2"), ("a", "[ 1 ]")]);
        assert_eq!(request.get("cmd"), Some("\"x\""));
        let proof: InvokeProof = serde_json::from_str(request.get(PROOF).unwrap()).unwrap();
        assert_eq!(proof, InvokeProof::unsigned());
        assert!(proof.parts().is_none());
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        for raw in [r#"{"cmd":"a","cmd":"b"}"#, r#"{"cmd":"a","\u0063md":"b"}"#, "[]", "{", r#""x""#] {
            assert!(InvokeRequest::read(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_proof_survives_the_wire() {
        let proof = InvokeProof::signed(&[3; 32], &[9; 64]);
        let text = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<InvokeProof>(&text).unwrap().parts(), Some(([3; 32], [9; 64])));
        assert_eq!(Offer::of(&[3; 32]).challenge(), Some([3; 32]));
    }
}
