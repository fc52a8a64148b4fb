//! Sequence numbers: one per new pod, never assigned twice.
//!
//! The next number is stored in the same transaction as the pod with the last one, and a pod is visible only after
//! that. A number lost in a crash was therefore never visible.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stored sequence that is not a number.
#[derive(Debug, thiserror::Error)]
#[error("the stored sequence {text:?} is no number: the record `seq` was written by something else")]
pub struct SequenceError {
    text: String,
}

/// The number of the next new pod, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// A sequence whose next number is `next`.
    pub const fn starting_at(next: u64) -> Self {
        Self(next)
    }

    /// The next number, without taking it.
    pub const fn next(self) -> u64 {
        self.0
    }

    /// Takes the next number.
    pub fn take(&mut self) -> u64 {
        let given = self.0;
        self.0 = self.0.saturating_add(1);
        given
    }

    /// Advances beyond `given`, the number of an existing pod.
    pub fn skip_past(&mut self, given: u64) {
        self.0 = self.0.max(given.saturating_add(1));
    }

    /// The stored form: decimal digits.
    pub fn encode(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Decodes the stored form.
    ///
    /// # Errors
    /// [`SequenceError`] if it is not a `u64`.
    pub fn decode(stored: &[u8]) -> Result<Self, SequenceError> {
        let text = String::from_utf8_lossy(stored);
        text.parse().map(Self).map_err(|_| SequenceError { text: text.chars().take(32).collect() })
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_zero_and_are_assigned_once() {
        let mut sequence = Sequence::default();
        assert_eq!([sequence.take(), sequence.take()], [0, 1]);
        sequence.skip_past(7);
        sequence.skip_past(3);
        assert_eq!(sequence.take(), 8);
    }

    #[test]
    fn the_stored_form_round_trips_and_anything_else_is_refused() {
        let sequence = Sequence::starting_at(42);
        assert_eq!(Sequence::decode(&sequence.encode()).unwrap(), sequence);
        for stored in [&b""[..], b"-1", b"x", b"99999999999999999999"] {
            assert!(Sequence::decode(stored).is_err());
        }
    }
}
