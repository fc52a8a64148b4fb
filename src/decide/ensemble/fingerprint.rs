//! Fingerprints: a repeated keepalive is recognised without keeping its bytes (about 200 bytes a pod).
//!
//! 128 bits of SipHash-1-3 under a random key of this process. Without the key, a collision can only be found by
//! chance, after about 2^64 keepalives; its only effect would be a pod kept alive with its last payload. No other
//! result of the core depends on the key.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// The 128-bit keyed hash of one keepalive's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint([u64; 2]);

/// Hashes as one `u64`, the only input that [`IdentityHasher`] takes.
impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// The random hash key of this process.
#[derive(Clone, Debug)]
pub(super) struct Fingerprints(RandomState);

impl Fingerprints {
    pub(super) fn new() -> Self {
        Self(RandomState::new())
    }

    /// Two hashes under one key; the prefix byte makes them independent.
    pub(super) fn of(&self, raw: &[u8]) -> Fingerprint {
        let half = |side: u8| {
            let mut hasher = self.0.build_hasher();
            hasher.write_u8(side);
            hasher.write(raw);
            hasher.finish()
        };
        Fingerprint([half(0), half(1)])
    }

    /// The 64-bit hash of an id; callers compare the ids as well.
    pub(super) fn of_name(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

/// Returns the first half of a fingerprint unchanged, because it is a hash already.
#[derive(Clone, Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasherDefault};

    use super::*;

    #[test]
    fn fingerprints_differ_and_spread_over_their_map() {
        let prints = Fingerprints::new();
        let all: HashSet<_> = (0..1000_u32).map(|n| prints.of(&n.to_be_bytes())).collect();
        assert_eq!(all.len(), 1000);
        let spread: HashSet<_> =
            all.iter().map(|print| BuildHasherDefault::<IdentityHasher>::default().hash_one(print)).collect();
        assert_eq!(spread.len(), 1000, "a map whose hashes are equal is a list");
        assert_eq!(prints.of(b"x"), prints.of(b"x"));
        assert_ne!(prints.of(b"x"), Fingerprints::new().of(b"x"), "the key is this process's own");
    }
}
