//! One session over an in-memory pipe, in virtual time.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::adapters::wire::{
    Answer, Handler, Limits, Refusal, RefusalKind, WireMetrics,
    zerorpc::{self, ZeroRpcEvent},
};

/// A command takes 20 s less 1 ms.
struct Slow;

impl Handler for Slow {
    fn ping(&self, _: SocketAddr, _: &[u8]) -> Answer<Result<(), Refusal>> {
        Answer::Now(Ok(()))
    }

    fn forwarded(&self, _: SocketAddr, _: &[u8]) -> Answer<Result<(), Refusal>> {
        Answer::Now(Ok(()))
    }

    fn invoke(&self, _: SocketAddr, _: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(20) - Duration::from_millis(1)).await;
            Ok(Some("done".into()))
        })
    }

    fn challenge(&self, _: SocketAddr) -> Result<String, Refusal> {
        Err(Refusal { kind: RefusalKind::NotServed, message: "none here".into() })
    }

    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>> {
        Box::pin(async { Ok(None) })
    }

    fn down(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

fn shared() -> Arc<ServerState> {
    let metrics = WireMetrics::register(&mut Registry::default());
    Arc::new(ServerState::new(Arc::new(Slow), Limits::default(), metrics))
}

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn start(shared: &Arc<ServerState>) -> (DuplexStream, tokio::task::JoinHandle<ConnectionEnd>) {
    let (ours, theirs) = duplex(1 << 20);
    let served = tokio::spawn(serve(theirs, peer(), Arc::clone(shared), CancellationToken::new()));
    (ours, served)
}

async fn shake_hands(socket: &mut DuplexStream) {
    let mut hello = zmtp::greeting().to_vec();
    hello.extend(zmtp::ready(LocalSide::Client));
    socket.write_all(&hello).await.unwrap();
    let mut theirs = vec![0; hello.len()];
    socket.read_exact(&mut theirs).await.unwrap();
}

async fn call(socket: &mut DuplexStream, method: &str) {
    let mut bytes = Vec::new();
    let (id, _) = MessageIds::new(1).make();
    zmtp::write_message(&mut bytes, &zmtp::DELIMITER, |out| {
        zerorpc::write_event(out, &id, None, method, |out| zerorpc::write_text_result(out, "{}"));
    });
    socket.write_all(&bytes).await.unwrap();
}

async fn next_name(socket: &mut DuplexStream) -> String {
    let mut bytes = vec![0; 4096];
    let count = socket.read(&mut bytes).await.unwrap();
    let received = zmtp::next(&bytes[..count], 4096).unwrap();
    let Some((Received::Message { payload, .. }, _)) = received else { panic!("{received:?}") };
    String::from_utf8(ZeroRpcEvent::parse(payload).unwrap().name.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_of_twenty_seconds_gets_a_heartbeat_every_five() {
    let (mut socket, _served) = start(&shared());
    shake_hands(&mut socket).await;
    call(&mut socket, "invoke").await;
    let began = Instant::now();
    for seconds in [5, 10, 15] {
        assert_eq!(next_name(&mut socket).await, "_zpc_hb");
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    assert_eq!(next_name(&mut socket).await, "OK");
    assert_eq!(began.elapsed().as_millis().div_ceil(1000), 20);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_slow_and_silence_after_it_is_idle() {
    let shared = shared();
    let began = Instant::now();
    let (mut socket, served) = start(&shared);
    socket.write_all(&zmtp::greeting()[..11]).await.unwrap();
    assert!(matches!(served.await.unwrap(), ConnectionEnd::Slow));
    assert_eq!(began.elapsed().as_secs(), 10);
    let began = Instant::now();
    let (mut socket, served) = start(&shared);
    shake_hands(&mut socket).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    call(&mut socket, "ping").await;
    assert_eq!(next_name(&mut socket).await, "OK");
    assert!(matches!(served.await.unwrap(), ConnectionEnd::Idle));
    assert_eq!(began.elapsed().as_secs(), 90);
}

#[tokio::test]
async fn an_idle_session_has_no_buffers() {
    let (shared, (io, mut socket)) = (shared(), duplex(1 << 20));
    let mut session = Session::new(io, peer(), shared);
    shake_hands_with(&mut session, &mut socket).await;
    call(&mut socket, "ping").await;
    let _ = turn(&mut session).await;
    assert_eq!(next_name(&mut socket).await, "OK");
    let buffers = session.partial.capacity() + session.out.capacity();
    assert_eq!(buffers, 0);
    let whole = serve(duplex(1).0, peer(), Arc::clone(&session.shared), CancellationToken::new());
    assert!(size_of_val(&whole) < 600, "{}", size_of_val(&whole));
}

async fn turn<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>) -> Poll<ConnectionEnd> {
    std::future::poll_fn(|cx| Poll::Ready(session.poll(cx))).await
}

async fn shake_hands_with(session: &mut Session<DuplexStream>, socket: &mut DuplexStream) {
    let hands = shake_hands(socket);
    let mut hands = std::pin::pin!(hands);
    while futures::future::poll_immediate(&mut hands).await.is_none() {
        let _ = turn(session).await;
    }
    let _ = turn(session).await;
    assert!(matches!(session.phase, SessionPhase::Open));
}
