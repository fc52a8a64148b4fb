//! Whatever a payload holds: an event's parts are msgpack values of it, and an answer to it can be read.
#![no_main]

use kubervisor_fuzz::{
    msgpack::Cursor,
    zerorpc::{self, MessageIds, ZeroRpcEvent},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = ZeroRpcEvent::parse(bytes) else { return };
    assert_eq!(Cursor::new(event.id).value(), Ok(event.id));
    assert_eq!(Cursor::new(event.args).value(), Ok(event.args));
    let _ = event.sole_text();
    let mut ids = MessageIds::new(1);
    let _ = ids.count_of(event.id);
    let (id, _) = ids.make();
    let mut answer = Vec::new();
    zerorpc::write_event(&mut answer, &id, Some(event.id), "OK", zerorpc::write_nil_result);
    let read = ZeroRpcEvent::parse(&answer).expect("our own answer");
    // An id of nil is a header without one.
    assert!(read.response_to == Some(event.id) || event.id == [0xc0]);
});
