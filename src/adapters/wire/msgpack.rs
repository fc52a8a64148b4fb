//! Reads msgpack in place, without building a tree.
//!
//! A value is skipped with a stack of [`DEPTH`] entries: neither deep nesting nor an announced length of
//! 4 billion costs memory or recursion.

use rmp::Marker;

/// Levels of nesting, at most.
pub const DEPTH: usize = 32;

/// Bytes that are no acceptable msgpack value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// The bytes end inside a value.
    #[error("the msgpack value is cut off")]
    Truncated,
    /// Nested deeper than [`DEPTH`].
    #[error("msgpack nested deeper than {DEPTH} levels")]
    TooDeep,
    /// The marker 0xC1, which msgpack never uses.
    #[error("a reserved msgpack marker")]
    Reserved,
    /// Another type was expected.
    #[error("a msgpack value of another type than expected")]
    WrongType,
}

/// A position in a msgpack document.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that have not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn marker(&mut self) -> Result<Marker, MsgpackError> {
        Ok(Marker::from_u8(self.take(1)?[0]))
    }

    fn length(&mut self, width: usize) -> Result<usize, MsgpackError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    /// The number of items of the array that begins here.
    pub fn array(&mut self) -> Result<usize, MsgpackError> {
        match self.marker()? {
            Marker::FixArray(count) => Ok(usize::from(count)),
            Marker::Array16 => self.length(2),
            Marker::Array32 => self.length(4),
            _ => Err(MsgpackError::WrongType),
        }
    }

    /// The number of pairs of the map that begins here.
    pub fn map(&mut self) -> Result<usize, MsgpackError> {
        match self.marker()? {
            Marker::FixMap(count) => Ok(usize::from(count)),
            Marker::Map16 => self.length(2),
            Marker::Map32 => self.length(4),
            _ => Err(MsgpackError::WrongType),
        }
    }

    /// The content of the str or bin that begins here: clients in Python 2 send either.
    pub fn text(&mut self) -> Result<&'a [u8], MsgpackError> {
        let length = match self.marker()? {
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 | Marker::Bin8 => self.length(1)?,
            Marker::Str16 | Marker::Bin16 => self.length(2)?,
            Marker::Str32 | Marker::Bin32 => self.length(4)?,
            _ => return Err(MsgpackError::WrongType),
        };
        self.take(length)
    }

    /// Skips the value that begins here and returns its bytes.
    pub fn value(&mut self) -> Result<&'a [u8], MsgpackError> {
        let start = self.rest;
        let mut open = [0_usize; DEPTH];
        let mut depth = 0;
        loop {
            let inside = self.head()?;
            if inside > 0 {
                *open.get_mut(depth).ok_or(MsgpackError::TooDeep)? = inside;
                depth += 1;
            } else {
                while depth > 0 {
                    open[depth - 1] -= 1;
                    if open[depth - 1] > 0 {
                        break;
                    }
                    depth -= 1;
                }
            }
            if depth == 0 {
                return Ok(&start[..start.len() - self.rest.len()]);
            }
        }
    }

    /// Skips a scalar, or the head of a collection; returns the number of values in it.
    fn head(&mut self) -> Result<usize, MsgpackError> {
        let scalar = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 | Marker::Bin8 => self.length(1)?,
            Marker::Str16 | Marker::Bin16 => self.length(2)?,
            Marker::Str32 | Marker::Bin32 => self.length(4)?,
            Marker::Ext8 => self.length(1)? + 1,
            Marker::Ext16 => self.length(2)? + 1,
            Marker::Ext32 => self.length(4)? + 1,
            Marker::FixArray(count) => return Ok(usize::from(count)),
            Marker::Array16 => return self.length(2),
            Marker::Array32 => return self.length(4),
            Marker::FixMap(count) => return Ok(2 * usize::from(count)),
            Marker::Map16 => return Ok(2 * self.length(2)?),
            Marker::Map32 => return Ok(2 * self.length(4)?),
            Marker::Reserved => return Err(MsgpackError::Reserved),
        };
        self.take(scalar)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,40}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
            (any::<i8>(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(t, d)| Value::Ext(t, d)),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_skipped_value_has_the_length_of_another_encoder(value in value(), tail in any::<[u8; 3]>()) {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).unwrap();
            let whole = bytes.len();
            bytes.extend(tail);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.value().unwrap(), &bytes[..whole]);
            prop_assert_eq!(cursor.rest(), &tail[..]);
            prop_assert_eq!(Cursor::new(&bytes[..whole - 1]).value(), Err(MsgpackError::Truncated));
        }

        #[test]
        fn arbitrary_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Cursor::new(&bytes).value();
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut fits = vec![0x91; DEPTH];
        fits.push(0xc0);
        assert!(Cursor::new(&fits).value().is_ok());
        let bomb = vec![0x91; 1 << 20];
        assert_eq!(Cursor::new(&bomb).value(), Err(MsgpackError::TooDeep));
    }

    #[test]
    fn an_announced_length_of_four_billion_costs_nothing() {
        assert_eq!(Cursor::new(&[0xdd, 0xff, 0xff, 0xff, 0xff]).value(), Err(MsgpackError::Truncated));
        assert_eq!(Cursor::new(&[0xdb, 0xff, 0xff, 0xff, 0xff]).text(), Err(MsgpackError::Truncated));
    }
}
