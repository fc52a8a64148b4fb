//! A TCP connection from the pod's own address, which a master compares with the keepalive's.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::net::{TcpSocket, TcpStream};

use super::ClientError;
use crate::{adapters::addresses, config::MasterTarget};

/// The IPv4 addresses of the target, with `failed` behind the others.
pub(super) async fn resolve(
    target: &MasterTarget,
    failed: Option<SocketAddrV4>,
) -> Result<Vec<SocketAddrV4>, ClientError> {
    let resolve = |source| ClientError::Resolve(target.host.clone(), source);
    let all = addresses::resolve(&target.host, target.port).await.map_err(resolve)?;
    let v4 = |address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    };
    let mut all: Vec<_> = all.into_iter().filter_map(v4).collect();
    if all.is_empty() {
        return Err(resolve(io::Error::other("it has none (IPv6 is not supported)")));
    }
    all.sort_by_key(|address| Some(*address) == failed);
    Ok(all)
}

/// Connects to one address, from `from` if this host has it.
pub(super) async fn dial(
    target: &MasterTarget,
    address: SocketAddrV4,
    from: Option<Ipv4Addr>,
) -> Result<TcpStream, ClientError> {
    let named = || match target.host == address.ip().to_string() {
        true => address.to_string(),
        false => format!("{}:{} ({})", target.host, target.port, address.ip()),
    };
    open(address, from).await.map_err(|source| ClientError::Connect(named(), source))
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
