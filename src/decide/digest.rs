//! The digest: MD5 of the exact bytes of `PODS`, for compatibility with Kontrol's callbacks.
//!
//! It only distinguishes states and has no security function, so that MD5's weakness does not matter.

use std::fmt;

use md5::{Digest as _, Md5};
use serde::{Serialize, Serializer};

/// Bytes between two kept states of a hash.
const STRIDE: usize = 16 << 10;

/// 16 bytes, displayed as hex pairs with colons: `ab:cd:...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }

    /// The digest of `bytes`, of which `states` knows the beginning, and all states of its hash.
    pub fn resume(bytes: &[u8], states: &HashStates) -> (Self, HashStates) {
        let mut states = states.clone();
        let known = states.0.len() * STRIDE;
        let mut hash = states.0.last().cloned().unwrap_or_default();
        for part in bytes.get(known..).unwrap_or_default().chunks(STRIDE) {
            hash.update(part);
            if part.len() == STRIDE {
                states.0.push(hash.clone());
            }
        }
        (Self(hash.finalize().into()), states)
    }
}

/// The states of a hash every 16 KiB, 0.5 % of the bytes: bytes with the same beginning need not be hashed from their start.
#[derive(Clone, Debug, Default)]
pub struct HashStates(Vec<Md5>);

impl HashStates {
    /// The states within the first `bytes`.
    pub fn within(&self, bytes: usize) -> Self {
        Self(self.0.iter().take(bytes / STRIDE).cloned().collect())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_written_as_sixteen_hex_pairs() {
        assert_eq!(Digest::of(b"[]").to_string(), "d7:51:71:39:88:98:7e:93:31:98:03:63:e2:41:89:ce");
    }

    #[test]
    fn a_hash_that_goes_on_after_an_equal_beginning_gives_the_same_digest() {
        let before: Vec<u8> = (0..5 * STRIDE + 77).map(|at| (at % 251) as u8).collect();
        let (digest, states) = Digest::resume(&before, &HashStates::default());
        assert_eq!((digest, states.0.len()), (Digest::of(&before), 5));
        for length in [0, 1, STRIDE - 1, STRIDE, 3 * STRIDE, before.len() - 1, before.len()] {
            for same in [0, 1, STRIDE, 2 * STRIDE + 5, before.len()] {
                let mut bytes = before[..length].to_vec();
                bytes.iter_mut().skip(same).for_each(|byte| *byte ^= 1);
                let (digest, all) = Digest::resume(&bytes, &states.within(same.min(length)));
                assert_eq!((digest, all.0.len()), (Digest::of(&bytes), length / STRIDE), "{length} {same}");
            }
        }
    }
}
