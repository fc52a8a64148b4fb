//! Whatever a keepalive's text is: it is taken or refused, and what is taken is JSON.
#![no_main]

use kubervisor_fuzz::decide::keepalive::Keepalive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if Keepalive::parse(bytes).is_ok() {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).expect("what is taken is JSON");
    }
});
