//! ZeroRPC events: `[header, name, args]` in msgpack, read in place and written by hand.
//!
//! A message id is echoed as raw msgpack: a client that sent it as bin does not find an answer with a str.

use rmp::encode;

use super::msgpack::{Cursor, MsgpackError};

/// Bytes of a message id, at most; real ones have 34.
const MAX_ID: usize = 256;

/// A payload that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Invalid msgpack.
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    /// Not an array of three.
    #[error("an event is an array of three: header, name, arguments")]
    Shape,
    /// No usable message id.
    #[error("an event's header holds a message_id of at most {MAX_ID} bytes")]
    MessageId,
    /// Bytes after the event.
    #[error("bytes after the event")]
    Trailing,
}

/// An event, as slices of the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroRpcEvent<'a> {
    /// The message id, raw msgpack.
    pub id: &'a [u8],
    /// The id of the request, raw msgpack; `None` in a request.
    pub response_to: Option<&'a [u8]>,
    /// The header says that the caller takes a refusal as an error; clients of the original get `None` in any case.
    pub takes_refusals: bool,
    /// The method, or `OK`, `ERR`, `_zpc_hb`, ...
    pub name: &'a [u8],
    /// The arguments, raw msgpack.
    pub args: &'a [u8],
}

impl<'a> ZeroRpcEvent<'a> {
    /// Parses a payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, EventError> {
        let mut cursor = Cursor::new(payload);
        if cursor.array()? != 3 {
            return Err(EventError::Shape);
        }
        let (mut id, mut response_to, mut takes_refusals) = (None, None, false);
        for _ in 0..cursor.map()? {
            // Keys that are no text are skipped.
            let key = cursor.value()?;
            let value = cursor.value()?;
            match Cursor::new(key).text() {
                Ok(b"message_id") => id = Some(value),
                Ok(b"kubervisor") => takes_refusals = true,
                Ok(b"response_to") => response_to = Some(value).filter(|value| *value != [NIL]),
                _ => {}
            }
        }
        let id = id.filter(|id| id.len() <= MAX_ID).ok_or(EventError::MessageId)?;
        let name = cursor.text()?;
        let args = cursor.value()?;
        if !cursor.rest().is_empty() {
            return Err(EventError::Trailing);
        }
        Ok(Self { id, response_to, takes_refusals, name, args })
    }

    /// The only argument, if there is exactly one and it is a str or bin.
    pub fn sole_text(&self) -> Option<&'a [u8]> {
        let mut cursor = self.arguments(1)?;
        cursor.text().ok()
    }

    /// The first of exactly `count` arguments.
    pub fn arguments(&self, count: usize) -> Option<Cursor<'a>> {
        let mut cursor = Cursor::new(self.args);
        (cursor.array() == Ok(count)).then_some(cursor)
    }
}

const NIL: u8 = 0xc0;

/// Generates message ids: 16 hex digits of the connection, 16 of a counter.
#[derive(Clone, Copy, Debug)]
pub struct MessageIds {
    prefix: u64,
    count: u64,
}

impl MessageIds {
    /// Ids that begin with `prefix`.
    pub fn new(prefix: u64) -> Self {
        Self { prefix, count: 0 }
    }

    /// A new id and its counter value.
    pub fn make(&mut self) -> ([u8; 32], u64) {
        self.count += 1;
        (self.id_of(self.count), self.count)
    }

    /// The id of a counter value.
    pub fn id_of(&self, count: u64) -> [u8; 32] {
        let mut id = [0; 32];
        hex(self.prefix, &mut id[..16]);
        hex(count, &mut id[16..]);
        id
    }

    /// The counter value of one of our ids; `raw` is msgpack, str or bin.
    pub fn count_of(&self, raw: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(Cursor::new(raw).text().ok()?).ok()?;
        let (prefix, count) = text.split_at_checked(16)?;
        let ours = u64::from_str_radix(prefix, 16).ok()? == self.prefix;
        u64::from_str_radix(count, 16).ok().filter(|_| ours)
    }
}

fn hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Writes an event, a request that takes refusals without `response_to`; `write_args` writes the arguments as one msgpack array.
pub fn write_event(
    out: &mut Vec<u8>,
    id: &[u8; 32],
    response_to: Option<&[u8]>,
    name: &str,
    write_args: impl FnOnce(&mut Vec<u8>),
) {
    out.push(0x93);
    out.push(0x83);
    out.extend_from_slice(b"\xaamessage_id\xc4\x20");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\xa1v\x03");
    match response_to {
        Some(request) => {
            out.extend_from_slice(b"\xabresponse_to");
            out.extend_from_slice(request);
        }
        // A peer of the original ignores it.
        None => out.extend_from_slice(b"\xaakubervisor\x01"),
    }
    write_str(out, name);
    write_args(out);
}

/// Writes a str. (Writing into a `Vec` cannot fail.)
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    let _ = encode::write_str(out, text);
}

/// Writes the arguments `[nil]`: the result of what returns nothing.
pub fn write_nil_result(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x91, NIL]);
}

/// Writes the arguments `[0]`: a heartbeat's.
pub fn write_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x91, 0]);
}

/// Writes the arguments `[text]`.
pub fn write_text_result(out: &mut Vec<u8>, text: &str) {
    out.push(0x91);
    write_str(out, text);
}

/// Writes the arguments of an `ERR`: the error's name, its message, and no traceback.
pub fn write_error(out: &mut Vec<u8>, name: &str, message: &str) {
    out.push(0x93);
    write_str(out, name);
    write_str(out, message);
    write_str(out, "");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn event(header: Vec<(Value, Value)>, name: Value, args: Value) -> Vec<u8> {
        encoded(&Value::Array(vec![Value::Map(header), name, args]))
    }

    #[test]
    fn names_and_arguments_may_be_str_or_bin() {
        let id = Value::Binary(b"0123".to_vec());
        for (name, raw) in [
            (Value::from("ping"), Value::from("{}")),
            (Value::Binary(b"ping".to_vec()), Value::Binary(b"{}".to_vec())),
        ] {
            let header = vec![("v".into(), 3.into()), ("message_id".into(), id.clone())];
            let bytes = event(header, name, Value::Array(vec![raw]));
            let event = ZeroRpcEvent::parse(&bytes).unwrap();
            assert_eq!(event.name, b"ping");
            assert_eq!(event.sole_text(), Some(&b"{}"[..]));
            assert_eq!(event.id, b"\xc4\x040123", "the id keeps its msgpack type");
            assert_eq!(event.response_to, None);
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_a_reason() {
        let id = || vec![("message_id".into(), Value::from("x"))];
        assert_eq!(ZeroRpcEvent::parse(b""), Err(EventError::Msgpack(MsgpackError::Truncated)));
        assert_eq!(ZeroRpcEvent::parse(&encoded(&Value::Array(vec![]))), Err(EventError::Shape));
        let no_id = event(vec![], "a".into(), Value::Array(vec![]));
        assert_eq!(ZeroRpcEvent::parse(&no_id), Err(EventError::MessageId));
        let long = vec![("message_id".into(), Value::from("x".repeat(MAX_ID)))];
        let long = event(long, "a".into(), Value::Array(vec![]));
        assert_eq!(ZeroRpcEvent::parse(&long), Err(EventError::MessageId));
        let mut trailing = event(id(), "a".into(), Value::Array(vec![]));
        trailing.push(0);
        assert_eq!(ZeroRpcEvent::parse(&trailing), Err(EventError::Trailing));
        let mut bomb = event(id(), "a".into(), Value::Nil);
        bomb.pop();
        bomb.extend(vec![0x91; 100_000]);
        assert_eq!(ZeroRpcEvent::parse(&bomb), Err(EventError::Msgpack(MsgpackError::TooDeep)));
    }

    #[test]
    fn an_answer_carries_the_request_id_verbatim() {
        let mut ids = MessageIds::new(7);
        let (id, count) = ids.make();
        let mut out = Vec::new();
        write_event(&mut out, &id, Some(b"\xc4\x02ab"), "OK", write_nil_result);
        let read = ZeroRpcEvent::parse(&out).unwrap();
        assert_eq!(read.response_to, Some(&b"\xc4\x02ab"[..]));
        assert_eq!(read.args, b"\x91\xc0");
        assert_eq!(ids.count_of(read.id), Some(count));
        assert_eq!(MessageIds::new(8).count_of(read.id), None);
    }

    #[test]
    fn an_error_is_a_name_a_message_and_a_traceback() {
        let mut out = Vec::new();
        write_error(&mut out, "NameError", "nope");
        let read = rmpv::decode::read_value(&mut &out[..]).unwrap();
        assert_eq!(read, Value::Array(vec!["NameError".into(), "nope".into(), "".into()]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ZeroRpcEvent::parse(&bytes).map(|event| event.sole_text());
        }
    }
}
