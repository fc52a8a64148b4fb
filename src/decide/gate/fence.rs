//! The fence on each pod: a value that is never written twice.
//!
//! A random epoch and a serial. A plain counter restarts when the resource is created again, so that
//! the test of an old write passes. *Newer* is the same epoch and a greater serial; "different" would
//! accept the old fence of a late write.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Random; drawn by the caller when a ledger begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(pub u64);

/// `<epoch>.<serial>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fence {
    /// The ledger's epoch.
    pub epoch: Epoch,
    /// The serial of the ledger's write that made it.
    pub serial: u64,
}

/// A text that cannot be parsed as a fence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no fence: expected 16 hexadecimal digits, a dot and a number")]
pub struct FenceError {
    text: String,
}

impl Fence {
    /// Same epoch and greater serial.
    pub fn newer(self, than: Self) -> bool {
        self.epoch == than.epoch && self.serial > than.serial
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.serial)
    }
}

impl FromStr for Epoch {
    type Err = FenceError;

    fn from_str(text: &str) -> Result<Self, FenceError> {
        let exact = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = if exact { u64::from_str_radix(text, 16).ok() } else { None };
        value.map(Self).ok_or_else(|| FenceError { text: text.chars().take(64).collect() })
    }
}

impl FromStr for Fence {
    type Err = FenceError;

    fn from_str(text: &str) -> Result<Self, FenceError> {
        let refuse = || FenceError { text: text.chars().take(64).collect() };
        let (epoch, serial) = text.split_once('.').ok_or_else(refuse)?;
        if !serial.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse());
        }
        Ok(Self { epoch: epoch.parse()?, serial: serial.parse().map_err(|_| refuse())? })
    }
}

string_conversions!(Epoch: FenceError, Fence: FenceError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_means_the_same_epoch_and_a_greater_serial() {
        let fence = |epoch, serial| Fence { epoch: Epoch(epoch), serial };
        assert!(fence(1, 2).newer(fence(1, 1)));
        assert!(!fence(1, 1).newer(fence(1, 1)));
        assert!(!fence(1, 1).newer(fence(1, 2)));
        assert!(!fence(2, 9).newer(fence(1, 1)), "another epoch is not newer");
    }

    #[test]
    fn a_fence_round_trips_and_anything_else_is_refused() {
        let fence = Fence { epoch: Epoch(0xab), serial: 7 };
        assert_eq!(fence.to_string(), "00000000000000ab.7");
        assert_eq!(fence.to_string().parse::<Fence>().unwrap(), fence);
        for text in ["", "7", "ab.7", "00000000000000ab.", "00000000000000ab.+7", "00000000000000AB.7"] {
            assert!(text.parse::<Fence>().is_err(), "{text}");
        }
    }
}
