//! Whatever a keepalive's text is: it is taken or refused, and what is kept of it is JSON that reads as the same again.
#![no_main]

use kubervisor_fuzz::decide::keepalive::Keepalive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(keepalive) = Keepalive::parse(bytes) {
        let kept = keepalive.canonical(7);
        serde_json::from_slice::<serde::de::IgnoredAny>(&kept).expect("what is kept is JSON");
        let again = Keepalive::parse(&kept).expect("what is kept is taken again").canonical(7);
        assert_eq!(again, kept, "what is kept reads as the same again");
    }
});
