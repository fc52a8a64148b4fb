//! ZMTP 3: greeting, READY, frames. Pure parsing and encoding, without I/O.
//!
//! An announced length allocates nothing: it is compared with the limit before the frame's bytes are awaited,
//! and a message is a slice of the buffer that it arrived in.

/// Bytes of a greeting.
pub const GREETING_LEN: usize = 64;

/// Leading frames per message, at most; ZeroRPC uses one.
const MAX_LEADING_FRAMES: usize = 8;

/// Bytes of a command during the handshake, at most.
const MAX_HANDSHAKE_COMMAND: usize = 2048;

const MORE: u8 = 0x01;
const LONG: u8 = 0x02;
const COMMAND: u8 = 0x04;

/// A violation of the protocol, which ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZmtpError {
    /// The first byte or byte 9 is no ZMTP signature.
    #[error("no ZMTP signature")]
    Signature,
    /// A version before 3.
    #[error("ZMTP {0}.x is not supported, only 3.x")]
    Version(u8),
    /// A security mechanism other than `NULL`.
    #[error("a security mechanism other than NULL")]
    Mechanism,
    /// READY is missing or malformed.
    #[error("a malformed READY command")]
    Ready,
    /// A socket type that cannot be connected with ours.
    #[error("a socket type that does not match ours")]
    SocketType,
    /// The peer sent ERROR.
    #[error("the peer refused the handshake")]
    Refused,
    /// Reserved frame flags, or MORE and COMMAND together.
    #[error("invalid frame flags {0:#04x}")]
    Flags(u8),
    /// A message over the limit.
    #[error("a message over the limit")]
    TooLong,
    /// A message with more than 8 leading frames.
    #[error("a message of too many frames")]
    TooManyFrames,
}

impl ZmtpError {
    /// The metric's label.
    pub fn category(self) -> &'static str {
        match self {
            Self::Signature | Self::Version(_) | Self::Mechanism => "greeting",
            Self::Ready | Self::SocketType | Self::Refused => "ready",
            Self::Flags(_) => "frame",
            Self::TooLong | Self::TooManyFrames => "too_much",
        }
    }
}

/// Our side of a connection, which gives the socket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSide {
    /// ROUTER.
    Server,
    /// DEALER.
    Client,
}

impl LocalSide {
    fn socket_type(self) -> &'static [u8] {
        match self {
            Self::Server => b"ROUTER",
            Self::Client => b"DEALER",
        }
    }

    fn accepts(self, socket_type: &[u8]) -> bool {
        match self {
            Self::Server => matches!(socket_type, b"DEALER" | b"REQ"),
            Self::Client => matches!(socket_type, b"ROUTER" | b"REP" | b"DEALER"),
        }
    }
}

/// Our greeting.
pub fn greeting() -> [u8; GREETING_LEN] {
    let mut greeting = [0; GREETING_LEN];
    greeting[0] = 0xff;
    greeting[8] = 0x01;
    greeting[9] = 0x7f;
    greeting[10..12].copy_from_slice(&[3, 1]);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// Our READY command, as a frame.
pub fn ready(side: LocalSide) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [(&b"Socket-Type"[..], side.socket_type()), (b"Identity", b"")] {
        body.push(u8::try_from(name.len()).unwrap_or(0));
        body.extend_from_slice(name);
        body.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut frame = vec![COMMAND, u8::try_from(body.len()).unwrap_or(0)];
    frame.extend(body);
    frame
}

/// Checks the bytes of a peer's greeting that have arrived; true when it is complete.
///
/// libzmq sends its greeting in stages and waits in between, so this is called at every stage and fails at
/// the first byte that is wrong.
pub fn check_greeting(bytes: &[u8]) -> Result<bool, ZmtpError> {
    let at = |index: usize| bytes.get(index).copied();
    if at(0).is_some_and(|byte| byte != 0xff) || at(9).is_some_and(|byte| byte & 1 == 0) {
        return Err(ZmtpError::Signature);
    }
    if let Some(major) = at(10).filter(|major| *major < 3) {
        return Err(ZmtpError::Version(major));
    }
    let mechanism = bytes.get(12..).unwrap_or_default();
    let wanted = &greeting()[12..32];
    let arrived = mechanism.len().min(wanted.len());
    if mechanism[..arrived] != wanted[..arrived] {
        return Err(ZmtpError::Mechanism);
    }
    Ok(bytes.len() >= GREETING_LEN)
}

/// Checks the body of the peer's READY command.
pub fn check_ready(body: &[u8], side: LocalSide) -> Result<(), ZmtpError> {
    if body.starts_with(b"\x05ERROR") {
        return Err(ZmtpError::Refused);
    }
    let mut rest = body.strip_prefix(b"\x05READY").ok_or(ZmtpError::Ready)?;
    let mut accepted = false;
    while !rest.is_empty() {
        let (name, value, after) = property(rest).ok_or(ZmtpError::Ready)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            accepted = side.accepts(value);
        }
        rest = after;
    }
    if accepted { Ok(()) } else { Err(ZmtpError::SocketType) }
}

fn property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((name, value, rest))
}

/// A command or message of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A command's body.
    Command(&'a [u8]),
    /// A message.
    Message {
        /// All frames but the last, verbatim: an answer begins with them.
        envelope: &'a [u8],
        /// The content of its last frame.
        payload: &'a [u8],
    },
}

struct Frame<'a> {
    flags: u8,
    body: &'a [u8],
    end: usize,
}

/// The frame at `start`; `None` while it is incomplete.
fn frame(bytes: &[u8], start: usize, limit: usize) -> Result<Option<Frame<'_>>, ZmtpError> {
    let Some(&flags) = bytes.get(start) else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
        return Err(ZmtpError::Flags(flags));
    }
    let (length, body) = if flags & LONG == 0 {
        let Some(&length) = bytes.get(start + 1) else { return Ok(None) };
        (u64::from(length), start + 2)
    } else {
        let Some(length) = bytes.get(start + 1..start + 9) else { return Ok(None) };
        (length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)), start + 9)
    };
    let length = usize::try_from(length).map_err(|_| ZmtpError::TooLong)?;
    if body.saturating_add(length) > limit {
        return Err(ZmtpError::TooLong);
    }
    let end = body + length;
    Ok(bytes.get(body..end).map(|body| Frame { flags, body, end }))
}

/// The first command or message in `bytes` and its length in bytes; `None` while it is incomplete.
///
/// `limit` bounds the message with all its frames and their headers.
pub fn next(bytes: &[u8], limit: usize) -> Result<Option<(Received<'_>, usize)>, ZmtpError> {
    let mut start = 0;
    for _ in 0..=MAX_LEADING_FRAMES {
        let Some(Frame { flags, body, end }) = frame(bytes, start, limit)? else { return Ok(None) };
        if flags & COMMAND != 0 {
            // A command must not come between the frames of one message.
            return if start == 0 {
                Ok(Some((Received::Command(body), end)))
            } else {
                Err(ZmtpError::Flags(flags))
            };
        }
        if flags & MORE == 0 {
            return Ok(Some((Received::Message { envelope: &bytes[..start], payload: body }, end)));
        }
        start = end;
    }
    Err(ZmtpError::TooManyFrames)
}

/// As [`next`] during the handshake, where only a command is allowed.
pub fn next_handshake_command(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, ZmtpError> {
    match next(bytes, MAX_HANDSHAKE_COMMAND) {
        Ok(Some((Received::Command(body), end))) => Ok(Some((body, end))),
        Ok(None) => Ok(None),
        Ok(Some((Received::Message { .. }, _))) | Err(_) => Err(ZmtpError::Ready),
    }
}

/// Answers PING with PONG; other commands need no answer.
pub fn answer_command(body: &[u8], out: &mut Vec<u8>) {
    // PING: a time to live of two bytes, then a context of at most 16 bytes that PONG returns.
    let Some(context) = body.strip_prefix(b"\x04PING").and_then(|rest| rest.get(2..)) else { return };
    let context = &context[..context.len().min(16)];
    out.extend_from_slice(&[COMMAND, 5 + u8::try_from(context.len()).unwrap_or(0)]);
    out.extend_from_slice(b"\x04PONG");
    out.extend_from_slice(context);
}

/// The delimiter frame that opens every message of a client.
pub const DELIMITER: [u8; 2] = [MORE, 0];

/// Appends a message: the envelope verbatim, then one frame with the output of `write`.
pub fn write_message(out: &mut Vec<u8>, envelope: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(envelope);
    let head = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    let length = out.len() - head - 2;
    if let Ok(short) = u8::try_from(length) {
        out[head + 1] = short;
    } else {
        let mut long = [LONG; 9];
        long[1..].copy_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
        out.splice(head..head + 2, long);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn a_greeting_is_judged_at_every_stage() {
        let ours = greeting();
        for arrived in 0..GREETING_LEN {
            assert_eq!(check_greeting(&ours[..arrived]), Ok(false));
        }
        assert_eq!(check_greeting(&ours), Ok(true));
        let with = |index: usize, byte: u8| {
            let mut other = ours;
            other[index] = byte;
            check_greeting(&other[..=index])
        };
        assert_eq!(with(0, b'G'), Err(ZmtpError::Signature));
        assert_eq!(with(9, 0x7e), Err(ZmtpError::Signature));
        assert_eq!(with(10, 1), Err(ZmtpError::Version(1)));
        assert_eq!(with(12, b'C'), Err(ZmtpError::Mechanism));
        assert_eq!(with(16, b'X'), Err(ZmtpError::Mechanism));
    }

    #[test]
    fn a_ready_must_be_well_formed_and_of_a_type_that_fits() {
        let dealer = ready(LocalSide::Client);
        let router = ready(LocalSide::Server);
        assert_eq!(check_ready(&dealer[2..], LocalSide::Server), Ok(()));
        assert_eq!(check_ready(&router[2..], LocalSide::Client), Ok(()));
        assert_eq!(check_ready(&router[2..], LocalSide::Server), Err(ZmtpError::SocketType));
        assert_eq!(check_ready(b"\x05READY", LocalSide::Server), Err(ZmtpError::SocketType));
        assert_eq!(check_ready(&dealer[2..dealer.len() - 1], LocalSide::Server), Err(ZmtpError::Ready));
        assert_eq!(check_ready(b"\x05READY\xff", LocalSide::Server), Err(ZmtpError::Ready));
        assert_eq!(check_ready(b"\x05HELLO", LocalSide::Server), Err(ZmtpError::Ready));
        assert_eq!(check_ready(b"\x05ERROR\x03bad", LocalSide::Client), Err(ZmtpError::Refused));
        let huge = b"\x05READY\x0bSocket-Type\xff\xff\xff\xffDEALER";
        assert_eq!(check_ready(huge, LocalSide::Server), Err(ZmtpError::Ready));
    }

    #[test]
    fn a_frame_of_two_to_the_sixty_is_refused_by_its_head() {
        let head = [LONG, 0x10, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(next(&head, LIMIT), Err(ZmtpError::TooLong));
        let most = [LONG, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(next(&most, LIMIT), Err(ZmtpError::TooLong));
    }

    #[test]
    fn endless_more_frames_are_refused() {
        assert_eq!(next(&DELIMITER.repeat(100), LIMIT), Err(ZmtpError::TooManyFrames));
        assert_eq!(next(&DELIMITER.repeat(3), LIMIT), Ok(None));
    }

    #[test]
    fn frames_that_together_pass_the_limit_are_refused() {
        let mut bytes = vec![MORE, 200];
        bytes.extend([0; 200]);
        bytes.extend([0, 100]);
        assert_eq!(next(&bytes, 303), Err(ZmtpError::TooLong));
        assert_eq!(next(&bytes, 304), Ok(None));
    }

    #[test]
    fn flags_that_do_not_exist_are_refused() {
        assert_eq!(next(&[8, 0], LIMIT), Err(ZmtpError::Flags(8)));
        assert_eq!(next(&[MORE | COMMAND, 0], LIMIT), Err(ZmtpError::Flags(5)));
        assert_eq!(next(&[MORE, 0, COMMAND, 0], LIMIT), Err(ZmtpError::Flags(4)));
    }

    #[test]
    fn a_ping_is_answered_with_its_context_and_other_commands_are_not() {
        let mut out = Vec::new();
        answer_command(b"\x04PING\x00\x0aabc", &mut out);
        assert_eq!(out, b"\x04\x08\x04PONGabc");
        out.clear();
        answer_command(b"\x05OTHER", &mut out);
        answer_command(b"\x04PING\x00", &mut out);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn a_message_is_read_back_once_it_is_complete(
            payload in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut bytes = Vec::new();
            write_message(&mut bytes, &DELIMITER, |out| out.extend_from_slice(&payload));
            for arrived in 0..bytes.len() {
                prop_assert_eq!(next(&bytes[..arrived], LIMIT), Ok(None));
            }
            let whole = bytes.len();
            bytes.extend([1, 2, 3]);
            prop_assert_eq!(
                next(&bytes, LIMIT),
                Ok(Some((Received::Message { envelope: &DELIMITER, payload: &payload }, whole)))
            );
        }

        #[test]
        fn arbitrary_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = next(&bytes, LIMIT);
            let _ = check_greeting(&bytes);
            let _ = check_ready(&bytes, LocalSide::Server);
        }
    }
}
