//! Whatever a peer sends: the frames of a message tile the buffer exactly, and nothing panics.
#![no_main]

use kubervisor_fuzz::zmtp::{self, LocalSide, Received};

const LIMIT: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = zmtp::check_greeting(bytes);
    let _ = zmtp::next_handshake_command(bytes);
    let _ = zmtp::check_ready(bytes, LocalSide::Server);
    let mut at = 0;
    while let Ok(Some((received, used))) = zmtp::next(&bytes[at..], LIMIT) {
        assert!(used > 0 && used <= bytes.len() - at);
        match received {
            Received::Command(body) => zmtp::answer_command(body, &mut Vec::new()),
            Received::Message { envelope, payload } => {
                assert!(envelope.len() + payload.len() < used);
                let mut again = Vec::new();
                zmtp::write_message(&mut again, envelope, |out| out.extend_from_slice(payload));
                let (read, whole) = zmtp::next(&again, LIMIT + 16).unwrap().unwrap();
                assert_eq!((read, whole), (received, again.len()));
            }
        }
        // What arrives in pieces means the same: nothing before the last byte is there.
        assert_eq!(zmtp::next(&bytes[at..at + used - 1], LIMIT), Ok(None));
        at += used;
    }
});
