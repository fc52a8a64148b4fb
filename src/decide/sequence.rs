//! Sequence numbers: each key that was not known gets the next one, and none is ever given twice.
//!
//! The number to give next is stored in the same transaction as the pod that got the last one; a
//! pod is shown to nobody before that. So a number that was lost with a crash was never seen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a stored sequence cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the stored sequence {text:?} is no number: the record `seq` was written by something else")]
pub struct SequenceError {
    text: String,
}

/// The number that the next unknown pod gets; from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence that gives `next`.
    #[must_use]
    pub const fn starting_at(next: u64) -> Self {
        Self(next)
    }

    /// The number that [`take`](Self::take) will give.
    #[must_use]
    pub const fn next(self) -> u64 {
        self.0
    }

    /// Gives a number that was never given before.
    pub fn take(&mut self) -> u64 {
        let given = self.0;
        self.0 = self.0.saturating_add(1);
        given
    }

    /// Makes sure that `given`, found on a pod, is never given again.
    pub fn skip_past(&mut self, given: u64) {
        self.0 = self.0.max(given.saturating_add(1));
    }

    /// As it is stored: decimal digits.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`SequenceError`] for anything else.
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
    fn numbers_start_at_zero_and_are_given_once() {
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
