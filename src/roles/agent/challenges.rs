//! Challenges that were given out and not yet used. Time is an argument: the agent's own monotonic clock.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::{adapters::signing::Challenge, decide::time::Moment};

/// How long a challenge is good for.
pub(super) const VALID: Duration = Duration::from_secs(30);
/// Outstanding ones in all.
const MOST: usize = 1024;
/// Outstanding ones of one peer: asking for another forgets its oldest, so that nobody can use up everybody's.
const MOST_PER_PEER: usize = 16;

struct Given {
    challenge: Challenge,
    peer: IpAddr,
    at: Moment,
}

/// Oldest first.
#[derive(Default)]
pub(super) struct Challenges {
    given: VecDeque<Given>,
}

/// There are too many outstanding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Challenges {
    /// Remembers that `challenge` was given to `peer`.
    pub(super) fn give(&mut self, challenge: Challenge, peer: IpAddr, now: Moment) -> Result<(), TooMany> {
        self.forget_expired(now);
        let mut counts = HashMap::<IpAddr, usize>::new();
        self.given.iter().for_each(|given| *counts.entry(given.peer).or_default() += 1);
        if counts.get(&peer).is_some_and(|&count| count >= MOST_PER_PEER)
            && let Some(oldest) = self.given.iter().position(|given| given.peer == peer)
        {
            self.given.remove(oldest);
        }
        if self.given.len() >= MOST {
            return Err(TooMany);
        }
        self.given.push_back(Given { challenge, peer, at: now });
        Ok(())
    }

    /// Takes `challenge` back, whatever comes of it: true if it was outstanding and still valid.
    pub(super) fn redeem(&mut self, challenge: &Challenge, now: Moment) -> bool {
        self.forget_expired(now);
        let found = self.given.iter().position(|given| given.challenge == *challenge);
        found.and_then(|at| self.given.remove(at)).is_some()
    }

    fn forget_expired(&mut self, now: Moment) {
        while self.given.front().is_some_and(|given| now.since(given.at) > VALID) {
            self.given.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::after_origin(Duration::from_secs_f64(seconds))
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_challenge_is_good_once_and_for_thirty_seconds() {
        let mut challenges = Challenges::default();
        challenges.give([1; 32], peer(1), at(0.0)).unwrap();
        challenges.give([2; 32], peer(1), at(1.0)).unwrap();
        assert!(!challenges.redeem(&[9; 32], at(2.0)));
        assert!(challenges.redeem(&[1; 32], at(30.0)));
        assert!(!challenges.redeem(&[1; 32], at(30.0)));
        assert!(!challenges.redeem(&[2; 32], at(31.1)));
    }

    #[test]
    fn one_peer_cannot_use_up_everybodys() {
        let mut challenges = Challenges::default();
        challenges.give([0; 32], peer(1), at(0.0)).unwrap();
        for n in 1..=200 {
            challenges.give([n; 32], peer(2), at(0.1)).unwrap();
        }
        assert_eq!(challenges.given.len(), 1 + MOST_PER_PEER);
        assert!(challenges.redeem(&[0; 32], at(1.0)));
        assert!(!challenges.redeem(&[1; 32], at(1.0)));
        assert!(challenges.redeem(&[200; 32], at(1.0)));
    }

    #[test]
    fn there_is_a_bound_over_all_peers_that_time_frees() {
        let mut challenges = Challenges::default();
        let many =
            |n: usize| IpAddr::from([10, 1, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()]);
        for n in 0..MOST {
            challenges.give([7; 32], many(n), at(0.0)).unwrap();
        }
        assert_eq!(challenges.give([8; 32], peer(1), at(1.0)), Err(TooMany));
        assert_eq!(challenges.give([8; 32], peer(1), at(30.5)), Ok(()));
    }
}
