//! Fingerprints: how a repeated keepalive is recognized without keeping its bytes.
//!
//! 128 bits of SipHash-1-3, the keyed hash of std's own maps, under a key drawn at the start. Who
//! does not know the key cannot find two keepalives with the same fingerprint by anything better
//! than chance, and chance needs 2^64 of them. Keeping the bytes instead would cost 200 bytes a
//! pod, and the most that a collision could do is keep a pod alive with its last payload. The
//! key decides nothing else: no result of the core depends on it.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// 128 bits that stand for the bytes of one keepalive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint([u64; 2]);

/// One number, and not the bytes of an array: [`IdentityHasher`] takes nothing else.
impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// The key of this process's fingerprints.
#[derive(Clone, Debug)]
pub(super) struct Fingerprints(RandomState);

impl Fingerprints {
    pub(super) fn new() -> Self {
        Self(RandomState::new())
    }

    /// Two halves from one keyed hash: the first byte tells them apart, so they are independent.
    pub(super) fn of(&self, raw: &[u8]) -> Fingerprint {
        let half = |side: u8| {
            let mut hasher = self.0.build_hasher();
            hasher.write_u8(side);
            hasher.write(raw);
            hasher.finish()
        };
        Fingerprint([half(0), half(1)])
    }

    /// 64 bits that stand for a name; who uses them compares the names too.
    pub(super) fn of_name(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

/// A fingerprint is random already: its map takes the first half as it is.
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
