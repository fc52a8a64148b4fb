//! The request of `invoke` and `/script`. Its members stay JSON text, so that the command gets, and the
//! signature covers, exactly the bytes that were sent.

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

/// A JSON object as members in order, with values as text; a repeated name is an error.
#[derive(Debug, Default)]
pub struct InvokeRequest<'a> {
    /// Names and values.
    pub members: Vec<(String, &'a RawValue)>,
}

/// `kubervisor: {v, challenge, sig}`; without the last two it only asks for a structured [`Reply`].
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

/// A command's result, for requests with a `kubervisor` member.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The stdout without the last newline.
    pub stdout: String,
    /// The exit code; 128 plus the signal's number after a signal, 124 after a timeout.
    pub exit: i32,
    /// Whether the output was longer.
    pub truncated: bool,
}

/// An agent's answer to the request for a challenge.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    /// [`VERSION`].
    pub v: u8,
    /// 32 random bytes, base64.
    pub challenge: String,
}

impl<'a> InvokeRequest<'a> {
    /// Parses a request.
    ///
    /// # Errors
    /// Not a JSON object, a repeated name, or more than 256 members.
    pub fn read(raw: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(raw)
    }

    /// The JSON text of a member.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// The members besides `cmd` that a signature covers.
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
                    if members.len() == MAX_MEMBERS || members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a member is repeated, or there are too many"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(InvokeRequest { members })
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Bounds the cost of the search for repeated names.
const MAX_MEMBERS: usize = 256;

impl InvokeProof {
    /// Asks for a structured reply, without a signature.
    pub fn unsigned() -> Self {
        Self { v: VERSION, challenge: None, sig: None }
    }

    /// With a signature.
    pub fn signed(challenge: &Challenge, signature: &[u8; 64]) -> Self {
        let text = |bytes: &[u8]| Some(BASE64_STANDARD.encode(bytes));
        Self { v: VERSION, challenge: text(challenge), sig: text(signature) }
    }

    /// Challenge and signature, if both are present and well-formed.
    pub fn parts(&self) -> Option<(Challenge, [u8; 64])> {
        Some((decoded(self.challenge.as_deref()?)?, decoded(self.sig.as_deref()?)?))
    }
}

impl Offer {
    /// An offer of `challenge`.
    pub fn of(challenge: &Challenge) -> Self {
        Self { v: VERSION, challenge: BASE64_STANDARD.encode(challenge) }
    }

    /// The challenge, if version and length are right.
    pub fn challenge(&self) -> Option<Challenge> {
        decoded(&self.challenge).filter(|_| self.v == VERSION)
    }
}

fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
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
    fn a_repeated_name_is_refused() {
        for raw in [r#"{"cmd":"a","cmd":"b"}"#, r#"{"cmd":"a","\u0063md":"b"}"#, "[]", "{", r#""x""#] {
            assert!(InvokeRequest::read(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_proof_is_encoded_and_decoded() {
        let proof = InvokeProof::signed(&[3; 32], &[9; 64]);
        let text = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<InvokeProof>(&text).unwrap().parts(), Some(([3; 32], [9; 64])));
        assert_eq!(Offer::of(&[3; 32]).challenge(), Some([3; 32]));
    }
}
