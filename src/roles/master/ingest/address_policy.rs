//! Which addresses a client may send keepalives for; one for another address is refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

/// Which addresses a client may send keepalives for.
#[derive(Clone, Debug)]
pub(crate) enum AddressPolicy {
    /// Any, because no traffic follows from keepalives.
    Any,
    /// Its own; clients in the `trusted` networks may relay for others.
    OwnAddress { trusted: Vec<IpNet> },
}

impl AddressPolicy {
    /// The address that a keepalive from `peer` must carry; `None`: any.
    pub(super) fn required(&self, peer: SocketAddr) -> Option<Ipv4Addr> {
        let Self::OwnAddress { trusted } = self else { return None };
        let peer = peer.ip().to_canonical();
        let IpAddr::V4(address) = peer else { return Some(Ipv4Addr::UNSPECIFIED) };
        (!trusted.iter().any(|net| net.contains(&peer))).then_some(address)
    }
}
