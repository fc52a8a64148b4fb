//! The bytes that were captured from Python's zerorpc 0.6.3 with pyzmq 27, and ours.

use crate::house::{House, client_hello, message};

#[tokio::test]
async fn the_handshake_has_the_captured_bytes_and_does_not_wait() {
    let house = House::open();
    let mut raw = house.raw().await;
    // libzmq sends ten bytes of its greeting and then waits for ours.
    raw.send(&client_hello()[..10]).await;
    let mut ours = raw.read_some().await;
    while ours.len() < 64 + 43 {
        ours.extend(raw.read_some().await);
    }
    let mut wanted = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".to_vec();
    wanted.resize(64, 0);
    wanted.extend(b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0");
    assert_eq!(ours, wanted);
    raw.send(&client_hello()[10..11]).await;
    raw.send(&client_hello()[11..]).await;
    house.still_serves().await;
}

#[tokio::test]
async fn a_ping_and_its_answer_have_the_captured_bytes() {
    let house = House::open();
    let mut raw = house.greeted().await;
    let id = b"\xc4\x200123456789abcdef0123456789abcdef";
    let mut request = b"\x93\x82\xaamessage_id".to_vec();
    request.extend(id);
    request.extend(b"\xa1v\x03\xa4ping\x91\xa2{}");
    raw.send(&message(&request)).await;
    let answer = raw.read_some().await;
    // The answer's own id is new: 32 hex digits after the header of the bin.
    let mut wanted = b"\x93\x83\xaamessage_id\xc4\x20".to_vec();
    let at = 4 + wanted.len();
    assert!(answer[at..at + 32].iter().all(u8::is_ascii_hexdigit));
    wanted.extend(&answer[at..at + 32]);
    wanted.extend(b"\xa1v\x03\xabresponse_to");
    wanted.extend(id);
    wanted.extend(b"\xa2OK\x91\xc0");
    assert_eq!(answer, message(&wanted));
}

#[tokio::test]
async fn an_id_that_is_a_str_comes_back_as_a_str_and_leading_frames_come_back_as_they_are() {
    let house = House::open();
    let mut raw = house.greeted().await;
    let mut bytes = b"\x01\x03abc\x01\x00\x00".to_vec();
    let payload = b"\x92\x81".to_vec();
    drop(payload);
    let request = b"\x93\x81\xaamessage_id\xa2id\xc4\x04ping\x91\xc4\x02{}";
    bytes.push(request.len() as u8);
    bytes.extend(request);
    raw.send(&bytes).await;
    let answer = raw.read_some().await;
    assert!(answer.starts_with(b"\x01\x03abc\x01\x00\x00"), "{answer:?}");
    assert!(answer.windows(15).any(|bytes| bytes == b"\xabresponse_to\xa2id"), "{answer:?}");
}

#[tokio::test]
async fn a_zmtp_ping_gets_its_pong_and_unknown_commands_are_ignored() {
    let house = House::open();
    let mut raw = house.greeted().await;
    raw.send(b"\x04\x06\x05OTHER").await;
    raw.send(b"\x04\x0a\x04PING\x00\x0aabc").await;
    assert_eq!(raw.read_some().await, b"\x04\x08\x04PONGabc");
}
