//! The key of a pod: its IPv4 address as a big-endian number in base 62, 1 to 6 characters.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A pod's key; ordered like the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(u32);

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no key: expected 1 to 6 characters of 0-9a-zA-Z that spell an IPv4 address in base 62")]
pub struct KeyError {
    text: String,
}

impl Key {
    /// The key of `address`.
    pub fn of(address: Ipv4Addr) -> Self {
        Self(address.to_bits())
    }

    /// The key's address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; 6];
        let (mut rest, mut start) = (self.0, digits.len());
        loop {
            start -= 1;
            digits[start] = ALPHABET[(rest % 62) as usize];
            rest /= 62;
            if rest == 0 {
                break;
            }
        }
        // Always text: the alphabet is ASCII.
        f.write_str(std::str::from_utf8(&digits[start..]).unwrap_or_default())
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let refuse = || KeyError { text: text.chars().take(32).collect() };
        if text.is_empty() || text.len() > 6 {
            return Err(refuse());
        }
        let value = text.bytes().try_fold(0_u64, |value, byte| {
            let digit = ALPHABET.iter().position(|&d| d == byte).ok_or_else(refuse)?;
            Ok(value * 62 + digit as u64)
        })?;
        u32::try_from(value).map(Self).map_err(|_| refuse())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

string_conversions!(Key: KeyError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_address_has_a_six_character_key() {
        let key = Key::of(Ipv4Addr::new(172, 16, 123, 1));
        assert_eq!(key.to_string().len(), 6);
        assert_eq!(key.to_string().parse::<Key>().unwrap().address(), Ipv4Addr::new(172, 16, 123, 1));
    }

    #[test]
    fn the_ends_of_the_address_space_round_trip() {
        for address in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST] {
            assert_eq!(Key::of(address).to_string().parse::<Key>().unwrap().address(), address);
        }
        assert_eq!(Key::of(Ipv4Addr::UNSPECIFIED).to_string(), "0");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "1234567", "ab-c", "ZZZZZZ", "é"] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
