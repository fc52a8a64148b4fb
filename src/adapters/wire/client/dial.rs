//! A TCP connection from the pod's own address, which a master compares with the keepalive's.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::ClientError;
use crate::config::MasterTarget;

/// Resolves the target and connects to its first IPv4 address that answers.
pub(super) async fn dial(target: &MasterTarget, from: Option<Ipv4Addr>) -> Result<TcpStream, ClientError> {
    let resolve = |source| ClientError::Resolve(target.host.clone(), source);
    let addresses = lookup_host((target.host.as_str(), target.port)).await.map_err(resolve)?;
    let mut failed = None;
    for address in addresses {
        let SocketAddr::V4(address) = address else { continue };
        match open(address, from).await {
            Ok(stream) => return Ok(stream),
            Err(source) => failed = Some(source),
        }
    }
    Err(match failed {
        Some(source) => ClientError::Connect(format!("{}:{}", target.host, target.port), source),
        None => resolve(io::Error::other("it has none (IPv6 is not supported)")),
    })
}

async fn open(address: SocketAddrV4, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // A loopback address can reach loopback only.
    if let Some(from) = from.filter(|from| !from.is_loopback() || address.ip().is_loopback()) {
        match socket.bind(SocketAddr::from((from, 0))) {
            // Not an address of this host (behind NAT, for example): the kernel chooses one.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            bound => bound?,
        }
    }
    let stream = socket.connect(address.into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
