//! A TCP connection from our own address: a master that checks peers against keepalives must see the pod's.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::ClientError;
use crate::config::MasterTarget;

/// Connects to the first address of the target that answers; resolved anew each time.
pub(super) async fn dial(target: &MasterTarget, from: Option<Ipv4Addr>) -> Result<TcpStream, ClientError> {
    let resolve = |source| ClientError::Resolve { host: target.host.clone(), source };
    let addresses = lookup_host((target.host.as_str(), target.port)).await.map_err(resolve)?;
    let mut failed = None;
    for address in addresses.filter_map(v4) {
        match open(address, from).await {
            Ok(stream) => return Ok(stream),
            Err(source) => failed = Some(source),
        }
    }
    Err(match failed {
        Some(source) => ClientError::Connect { target: format!("{}:{}", target.host, target.port), source },
        None => resolve(io::Error::other("it has none (IPv6 is not supported)")),
    })
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

async fn open(address: SocketAddrV4, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // From a loopback address only loopback can be reached.
    if let Some(from) = from.filter(|from| !from.is_loopback() || address.ip().is_loopback()) {
        match socket.bind(SocketAddr::from((from, 0))) {
            // Not an address of this host: behind a translation, say. The kernel picks one.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            bound => bound?,
        }
    }
    let stream = socket.connect(address.into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
