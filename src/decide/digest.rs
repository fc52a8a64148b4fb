//! The digest: MD5 of the exact bytes of `PODS`, for compatibility with Kontrol's callbacks.
//!
//! It only distinguishes states and has no security function, so that MD5's weakness does not matter.

use std::fmt;

use md5::{Digest as _, Md5};
use serde::{Serialize, Serializer};

/// 16 bytes, displayed as hex pairs with colons: `ab:cd:...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
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
}
