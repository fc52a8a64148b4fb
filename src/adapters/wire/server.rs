//! The keepalive port: accepts connections, selects the dialect by the first byte, drains on shutdown.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Handler, Limits, WireMetrics,
    connection::{ConnectionEnd, ServerState},
    http,
    limits::{ConnectionLimiter, ConnectionPermit, LimitReached},
    session,
};
use crate::config::Listen;

/// The port cannot be bound: a configuration error.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; is another process on that port? set KONTROL_PORT or KONTROL_BIND"
)]
pub struct BindError {
    /// The address of the configuration.
    pub address: SocketAddr,
    /// The system's error.
    pub source: io::Error,
}

/// A bound port; [`Server::serve`] starts to accept.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    limits: Limits,
    metrics: WireMetrics,
}

impl Server {
    /// Binds the port that the configuration names, with its limits.
    pub fn bind(listen: &Listen, metrics: WireMetrics) -> Result<Self, BindError> {
        Self::bind_with(listen.address, Limits::of(listen), metrics)
    }

    /// Binds a port with the given limits.
    pub fn bind_with(address: SocketAddr, limits: Limits, metrics: WireMetrics) -> Result<Self, BindError> {
        let listener = listen_on(address).map_err(|source| BindError { address, source })?;
        Ok(Self { listener, limits, metrics })
    }

    /// The bound address, with the assigned port where 0 was configured.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then answers the calls in flight (within the drain limit) and returns.
    pub async fn serve(self, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
        let limiter = ConnectionLimiter::new(&self.limits);
        let shared = Arc::new(ServerState::new(handler, self.limits, self.metrics));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let accept = accept(&self.listener, &limiter, &shared, &tasks, &stop);
        let _ = shutdown.run_until_cancelled(accept).await;
        drop(self.listener);
        shared.draining.store(true, Ordering::Release);
        stop.cancel();
        tasks.close();
        let grace = shared.limits.drain + Duration::from_secs(1);
        if timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections are left after the time to drain them");
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart gets the port back while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    listener: &TcpListener,
    limiter: &ConnectionLimiter,
    shared: &Arc<ServerState>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely out of descriptors: open connections go on and free some.
                shared.metrics.refuse("accept");
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match limiter.enter(peer.ip().to_canonical()) {
            Ok(permit) => {
                tasks.spawn(connection(stream, peer, permit, Arc::clone(shared), stop.clone()));
            }
            Err(LimitReached::Server) => shared.metrics.refuse("connections"),
            Err(LimitReached::Peer) => shared.metrics.refuse("connections_of_peer"),
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
    shared: Arc<ServerState>,
    stop: CancellationToken,
) {
    shared.metrics.connections.inc();
    let _open = OpenConnection { shared: Arc::clone(&shared), _permit: permit };
    // Answers are small and complete: Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let ended = match first_byte(&stream, &shared, &stop).await {
        Err(ended) => ended,
        Ok(0xff) => Box::pin(session::serve(stream, peer, Arc::clone(&shared), stop)).await,
        Ok(letter) if letter.is_ascii_alphabetic() => {
            Box::pin(http::serve(stream, peer, Arc::clone(&shared), stop)).await
        }
        Ok(_) => ConnectionEnd::Dialect,
    };
    shared.metrics.close(ended.category());
    tracing::debug!(%peer, reason = %ended, "connection ended");
}

async fn first_byte(
    stream: &TcpStream,
    shared: &ServerState,
    stop: &CancellationToken,
) -> Result<u8, ConnectionEnd> {
    let mut byte = [0];
    let peek = timeout(shared.limits.handshake, stream.peek(&mut byte));
    match stop.run_until_cancelled(peek).await {
        None => Err(ConnectionEnd::Shutdown),
        Some(Err(_)) => Err(ConnectionEnd::Slow),
        Some(Ok(Err(error))) => Err(ConnectionEnd::Io(error.kind())),
        Some(Ok(Ok(0))) => Err(ConnectionEnd::PeerClosed),
        Some(Ok(Ok(_))) => Ok(byte[0]),
    }
}

/// Keeps the gauge of open connections right, also when a task panics.
struct OpenConnection {
    shared: Arc<ServerState>,
    _permit: ConnectionPermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.shared.metrics.connections.dec();
    }
}
