//! The addresses of a host name, so that a dead one among them costs its share of a deadline and not all of it.
//!
//! The order is that of happy eyeballs (RFC 8305): as the resolver gave them, families alternating; the next attempt
//! begins when the one before has failed, or beside it after a while. What failed last is tried last.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::{net::lookup_host, time::sleep};

/// Longest time until the next attempt begins beside the ones under way.
const STEP: Duration = Duration::from_millis(250);

/// All addresses of `host`, families alternating.
///
/// # Errors
/// The resolver's.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(alternate(lookup_host((host, port)).await?))
}

fn alternate(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = addresses.collect();
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut same, mut other) = (0_usize, 0_usize);
    addresses.sort_by_cached_key(|address| {
        let of_first = address.is_ipv4() == first_is_v4;
        let count = if of_first { &mut same } else { &mut other };
        *count += 1;
        (*count, !of_first)
    });
    addresses
}

/// The result of the first attempt that succeeds, within `deadline` of the caller; the others are dropped. `None`
/// without addresses.
///
/// # Errors
/// The last one, when all have failed.
pub(super) async fn first_success<A, T, E, F: Future<Output = Result<T, E>>>(
    addresses: Vec<A>,
    deadline: Duration,
    attempt: impl Fn(A) -> F,
) -> Option<Result<T, E>> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let step = (deadline / count).min(STEP);
    let (mut waiting, mut running, mut failed) = (addresses.into_iter(), FuturesUnordered::new(), None);
    loop {
        match waiting.next() {
            Some(address) => running.push(attempt(address)),
            None if running.is_empty() => return failed.map(Err),
            None => {}
        }
        tokio::select! {
            Some(done) = running.next() => match done {
                Ok(done) => return Some(Ok(done)),
                Err(error) => failed = Some(error),
            },
            () = sleep(step), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(3);

    #[test]
    fn families_alternate_and_each_keeps_its_order() {
        let texts = ["10.0.0.1:1", "10.0.0.2:1", "[::1]:1", "10.0.0.3:1", "[::2]:1"];
        let ordered = alternate(texts.iter().map(|text| text.parse().unwrap()));
        let ordered: Vec<_> = ordered.iter().map(ToString::to_string).collect();
        assert_eq!(ordered, ["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1", "10.0.0.3:1"]);
    }

    /// How an address behaves: fails, answers after so many ms, or never.
    async fn attempt(ms: Option<u64>) -> Result<u64, &'static str> {
        match ms {
            Some(0) => Err("refused"),
            Some(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Ok(ms)
            }
            None => std::future::pending().await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_costs_its_share_and_a_refused_one_nothing() {
        let began = Instant::now();
        assert_eq!(first_success(vec![None, Some(5)], DEADLINE, attempt).await, Some(Ok(5)));
        assert_eq!(began.elapsed(), STEP + Duration::from_millis(5));
        let began = Instant::now();
        assert_eq!(first_success(vec![Some(0), Some(5)], DEADLINE, attempt).await, Some(Ok(5)));
        assert_eq!(began.elapsed(), Duration::from_millis(5));
        let began = Instant::now();
        let dead = vec![None, None, None, Some(5)];
        assert_eq!(first_success(dead, Duration::from_millis(200), attempt).await, Some(Ok(5)));
        assert_eq!(began.elapsed(), Duration::from_millis(155), "a share of 50 ms each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_may_still_win_and_when_all_fail_the_last_reason_is_told() {
        assert_eq!(first_success(vec![Some(900), None], DEADLINE, attempt).await, Some(Ok(900)));
        assert_eq!(first_success(vec![Some(0), Some(0)], DEADLINE, attempt).await, Some(Err("refused")));
        assert_eq!(first_success(vec![], DEADLINE, attempt).await, None);
    }
}
