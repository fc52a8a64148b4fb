//! Limits of the keepalive port, for HTTP and ZeroRPC alike: sizes, deadlines, connections. A resource is counted before
//! it is used.
//!
//! Every bound is a field, so that a test can lower it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::Listen;

/// The limits; [`Default`] gives the values that are not configurable.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections in total.
    pub connections: usize,
    /// Open connections per peer address.
    pub per_peer: usize,
    /// Networks that are exempt from the limit per peer.
    pub trusted: Vec<IpNet>,
    /// Time without traffic after which a connection is closed.
    pub idle: Duration,
    /// Time from the first byte to the end of a handshake or of an HTTP request.
    pub handshake: Duration,
    /// Bytes of one message with all its frames.
    pub message: usize,
    /// Calls in flight per connection; at the limit nothing more is read until one is answered.
    pub calls: usize,
    /// Bytes of unfinished messages and queued commands, over all connections.
    pub held: usize,
    /// Time that calls in flight have to finish after a shutdown began.
    pub drain: Duration,
    /// Interval of the heartbeats for a call in flight; clients give up after three missed ones.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            per_peer: 4096,
            trusted: Vec::new(),
            idle: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            message: 1 << 20,
            calls: 1024,
            held: 64 << 20,
            drain: Duration::from_secs(3),
            heartbeat: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The limits of the configuration.
    pub fn of(listen: &Listen) -> Self {
        Self {
            connections: listen.max_connections,
            per_peer: listen.max_per_peer,
            trusted: listen.trusted.clone(),
            idle: listen.idle,
            ..Self::default()
        }
    }
}

/// The limit that refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// [`Limits::connections`].
    Server,
    /// [`Limits::per_peer`].
    Peer,
}

#[derive(Default)]
struct ConnectionCounts {
    total: usize,
    peers: HashMap<IpAddr, usize>,
}

/// Bounds the open connections, in total and per peer.
pub(super) struct ConnectionLimiter {
    counts: Arc<Mutex<ConnectionCounts>>,
    connections: usize,
    per_peer: usize,
    trusted: Vec<IpNet>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            counts: Arc::default(),
            connections: limits.connections,
            per_peer: limits.per_peer,
            trusted: limits.trusted.clone(),
        }
    }

    /// Counts a connection until the permit is dropped.
    pub(super) fn enter(&self, peer: IpAddr) -> Result<ConnectionPermit, LimitReached> {
        let mut counts = self.counts.lock();
        if counts.total >= self.connections {
            return Err(LimitReached::Server);
        }
        let counted = !self.trusted.iter().any(|net| net.contains(&peer));
        if counted {
            let held = counts.peers.entry(peer).or_default();
            if *held >= self.per_peer {
                return Err(LimitReached::Peer);
            }
            *held += 1;
        }
        counts.total += 1;
        Ok(ConnectionPermit { counts: Arc::clone(&self.counts), peer: counted.then_some(peer) })
    }
}

/// A counted connection.
pub(super) struct ConnectionPermit {
    counts: Arc<Mutex<ConnectionCounts>>,
    peer: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        let Some(peer) = self.peer else { return };
        if let Some(held) = counts.peers.get_mut(&peer) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                counts.peers.remove(&peer);
            }
        }
    }
}

/// Bounds the bytes that all connections together hold.
#[derive(Clone)]
pub(super) struct ByteLimiter {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl ByteLimiter {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    /// A share of 0 bytes.
    pub(super) fn open(&self) -> ByteShare {
        ByteShare { limiter: self.clone(), bytes: 0 }
    }
}

/// The bytes that one connection or command holds of a [`ByteLimiter`]; released when dropped.
pub(super) struct ByteShare {
    limiter: ByteLimiter,
    bytes: usize,
}

impl ByteShare {
    /// Sets the share to `bytes`; false, without a change, if that exceeds the limit.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.limiter.held.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > self.limiter.limit {
                self.limiter.held.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else if bytes < self.bytes {
            self.limiter.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn connections_are_limited_in_total_and_per_peer_until_they_end() {
        let limits = Limits { connections: 3, per_peer: 2, ..Limits::default() };
        let limiter = ConnectionLimiter::new(&limits);
        let first = limiter.enter(peer(1)).ok();
        let _second = limiter.enter(peer(1)).ok().unwrap();
        assert_eq!(limiter.enter(peer(1)).err(), Some(LimitReached::Peer));
        let _third = limiter.enter(peer(2)).ok().unwrap();
        assert_eq!(limiter.enter(peer(3)).err(), Some(LimitReached::Server));
        drop(first.unwrap());
        assert!(limiter.enter(peer(1)).is_ok());
        assert_eq!(limiter.counts.lock().peers.len(), 2);
    }

    #[test]
    fn a_trusted_peer_is_bound_by_the_total_only() {
        let limits = Limits {
            connections: 3,
            per_peer: 1,
            trusted: vec!["127.0.0.0/30".parse().unwrap()],
            ..Limits::default()
        };
        let limiter = ConnectionLimiter::new(&limits);
        let permits: Vec<_> = (0..3).map(|_| limiter.enter(peer(1)).ok().unwrap()).collect();
        assert_eq!(limiter.enter(peer(1)).err(), Some(LimitReached::Server));
        drop(permits);
        let _one = limiter.enter(peer(9)).ok().unwrap();
        assert_eq!(limiter.enter(peer(9)).err(), Some(LimitReached::Peer));
    }

    #[test]
    fn held_bytes_are_bounded_over_all_connections_and_released() {
        let limiter = ByteLimiter::new(100);
        let (mut one, mut two) = (limiter.open(), limiter.open());
        assert!(one.set(80));
        assert!(!two.set(30));
        assert!(one.set(60));
        assert!(two.set(40));
        drop(one);
        assert!(two.set(100));
        assert!(!two.set(101));
    }
}
