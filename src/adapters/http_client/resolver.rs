//! Addresses of HTTP services: after an exchange that failed, the next one begins with another address of the host.
//!
//! The connection is made by the client, which tells nobody which address it used; so the order is turned by one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::adapters::addresses;

/// Failed exchanges by host; bounded, because hosts come from manifests only.
type Turns = HashMap<String, usize>;

#[derive(Clone, Debug, Default)]
pub(super) struct TurningResolver {
    turns: Arc<Mutex<Turns>>,
}

impl TurningResolver {
    /// The process's: what one client has learnt of a host is true for all.
    pub(super) fn shared() -> &'static Self {
        static SHARED: LazyLock<TurningResolver> = LazyLock::new(TurningResolver::default);
        &SHARED
    }

    /// Begins an exchange with `host`.
    pub(super) fn exchange(&self, host: &str) -> Exchange {
        Exchange { resolver: self.clone(), host: host.to_owned(), failed: true }
    }

    fn ordered(&self, host: &str, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let turn = self.turns.lock().get(host).copied().unwrap_or(0);
        if !addresses.is_empty() {
            let by = turn % addresses.len();
            addresses.rotate_left(by);
        }
        addresses
    }
}

impl Resolve for TurningResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            // The client sets the port.
            let addresses = addresses::resolve(name.as_str(), 0).await?;
            let ordered: Addrs = Box::new(resolver.ordered(name.as_str(), addresses).into_iter());
            Ok(ordered)
        })
    }
}

/// An exchange that has failed unless it is told otherwise; also when it is dropped at a deadline.
pub(super) struct Exchange {
    resolver: TurningResolver,
    host: String,
    failed: bool,
}

impl Exchange {
    /// The service has answered.
    pub(super) fn answered(mut self) {
        self.failed = false;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.failed {
            *self.resolver.turns.lock().entry(std::mem::take(&mut self.host)).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_exchange_another_address_is_first_and_stays_so_while_it_answers() {
        let resolver = TurningResolver::default();
        let addresses: Vec<SocketAddr> =
            ["10.0.0.1:0", "10.0.0.2:0"].map(|text| text.parse().unwrap()).into();
        let first = |host: &str| resolver.ordered(host, addresses.clone())[0];
        assert_eq!(first("a"), addresses[0]);
        drop(resolver.exchange("a"));
        assert_eq!((first("a"), first("b")), (addresses[1], addresses[0]));
        resolver.exchange("a").answered();
        assert_eq!(first("a"), addresses[1]);
        drop(resolver.exchange("a"));
        assert_eq!(first("a"), addresses[0]);
    }
}
