//! What a peer may use, counted before it is used: connections, bytes that wait for their rest, time.
//!
//! Every bound is a field, so that a test can lower it and reach it in milliseconds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;

use crate::config::Listen;

/// The server's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one peer address.
    pub per_peer: usize,
    /// Peers that the per-peer limit does not count.
    pub trusted: Vec<IpNet>,
    /// A connection without traffic is closed after this.
    pub idle: Duration,
    /// From the first byte to the end of a handshake, or of an HTTP request.
    pub handshake: Duration,
    /// Bytes of one message, all its frames together.
    pub message: usize,
    /// Calls in flight on one connection; more are not read until one is answered.
    pub calls: usize,
    /// Bytes that all connections together may hold of unfinished messages and queued commands.
    pub held: usize,
    /// How long calls in flight may take to finish after a shutdown began.
    pub drain: Duration,
    /// Time between heartbeats of a call in flight; clients give up after three.
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
    /// The limits that the configuration asks for.
    #[must_use]
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

/// Why a connection was turned away at the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// The server has as many connections as it may have.
    Server,
    /// This peer has.
    Peer,
}

#[derive(Default)]
struct Counts {
    all: usize,
    peers: HashMap<IpAddr, usize>,
}

/// Counts connections, in all and per peer.
pub(super) struct ConnectionLimiter {
    counts: Arc<Mutex<Counts>>,
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

    /// Counts one more connection, until the permit is dropped.
    pub(super) fn enter(&self, peer: IpAddr) -> Result<ConnectionPermit, LimitReached> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.connections {
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
        counts.all += 1;
        Ok(ConnectionPermit { counts: Arc::clone(&self.counts), peer: counted.then_some(peer) })
    }
}

/// A counted connection.
pub(super) struct ConnectionPermit {
    counts: Arc<Mutex<Counts>>,
    peer: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        let Some(peer) = self.peer else { return };
        if let Some(held) = counts.peers.get_mut(&peer) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                counts.peers.remove(&peer);
            }
        }
    }
}

/// The bytes that all connections together hold of what cannot be worked off yet.
#[derive(Clone)]
pub(super) struct ByteLimiter {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl ByteLimiter {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    /// An account with nothing on it.
    pub(super) fn open(&self) -> ByteShare {
        ByteShare { hold: self.clone(), bytes: 0 }
    }
}

/// One connection's or one command's share of [`ByteLimiter`]; returned when dropped.
pub(super) struct ByteShare {
    hold: ByteLimiter,
    bytes: usize,
}

impl ByteShare {
    /// Sets the share to `bytes`; false, and nothing changed, if that is more than there is.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.hold.held.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > self.hold.limit {
                self.hold.held.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else if bytes < self.bytes {
            self.hold.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
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
    fn the_door_counts_in_all_and_per_peer_and_forgets_who_left() {
        let limits = Limits { connections: 3, per_peer: 2, ..Limits::default() };
        let limiter = ConnectionLimiter::new(&limits);
        let first = limiter.enter(peer(1)).ok();
        let _second = limiter.enter(peer(1)).ok().unwrap();
        assert_eq!(limiter.enter(peer(1)).err(), Some(LimitReached::Peer));
        let _third = limiter.enter(peer(2)).ok().unwrap();
        assert_eq!(limiter.enter(peer(3)).err(), Some(LimitReached::Server));
        drop(first.unwrap());
        assert!(limiter.enter(peer(1)).is_ok());
        assert_eq!(limiter.counts.lock().unwrap().peers.len(), 2);
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
    fn held_bytes_are_bounded_over_all_connections_and_given_back() {
        let hold = ByteLimiter::new(100);
        let (mut one, mut two) = (hold.open(), hold.open());
        assert!(one.set(80));
        assert!(!two.set(30));
        assert!(one.set(60));
        assert!(two.set(40));
        drop(one);
        assert!(two.set(100));
        assert!(!two.set(101));
    }
}
