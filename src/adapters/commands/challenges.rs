//! Challenges that were issued and not yet used. Time is an argument: the agent's monotonic clock.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use super::signing::Challenge;
use crate::decide::time::Moment;

/// How long a challenge is valid.
pub(super) const VALID: Duration = Duration::from_secs(30);
/// The most outstanding challenges in all.
const LIMIT: usize = 1024;
/// The most of one peer; another one drops its oldest, so that one peer cannot use up the limit of all.
const LIMIT_PER_PEER: usize = 16;

struct IssuedChallenge {
    challenge: Challenge,
    peer: IpAddr,
    at: Moment,
}

/// Oldest first.
#[derive(Default)]
pub(super) struct Challenges {
    issued: VecDeque<IssuedChallenge>,
}

/// [`LIMIT`] challenges are outstanding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyChallenges;

impl Challenges {
    /// Records that `challenge` was issued to `peer`.
    pub(super) fn issue(
        &mut self,
        challenge: Challenge,
        peer: IpAddr,
        now: Moment,
    ) -> Result<(), TooManyChallenges> {
        self.drop_expired(now);
        let mut counts = HashMap::<IpAddr, usize>::new();
        self.issued.iter().for_each(|issued| *counts.entry(issued.peer).or_default() += 1);
        if counts.get(&peer).is_some_and(|&count| count >= LIMIT_PER_PEER)
            && let Some(oldest) = self.issued.iter().position(|issued| issued.peer == peer)
        {
            self.issued.remove(oldest);
        }
        if self.issued.len() >= LIMIT {
            return Err(TooManyChallenges);
        }
        self.issued.push_back(IssuedChallenge { challenge, peer, at: now });
        Ok(())
    }

    /// Uses `challenge` up; true if it was outstanding and valid.
    pub(super) fn redeem(&mut self, challenge: &Challenge, now: Moment) -> bool {
        self.drop_expired(now);
        let found = self.issued.iter().position(|issued| issued.challenge == *challenge);
        found.and_then(|at| self.issued.remove(at)).is_some()
    }

    fn drop_expired(&mut self, now: Moment) {
        while self.issued.front().is_some_and(|issued| now.since(issued.at) > VALID) {
            self.issued.pop_front();
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
    fn a_challenge_is_valid_once_and_for_thirty_seconds() {
        let mut challenges = Challenges::default();
        challenges.issue([1; 32], peer(1), at(0.0)).unwrap();
        challenges.issue([2; 32], peer(1), at(1.0)).unwrap();
        assert!(!challenges.redeem(&[9; 32], at(2.0)));
        assert!(challenges.redeem(&[1; 32], at(30.0)));
        assert!(!challenges.redeem(&[1; 32], at(30.0)));
        assert!(!challenges.redeem(&[2; 32], at(31.1)));
    }

    #[test]
    fn one_peer_cannot_use_up_the_limit_of_all() {
        let mut challenges = Challenges::default();
        challenges.issue([0; 32], peer(1), at(0.0)).unwrap();
        for n in 1..=200 {
            challenges.issue([n; 32], peer(2), at(0.1)).unwrap();
        }
        assert_eq!(challenges.issued.len(), 1 + LIMIT_PER_PEER);
        assert!(challenges.redeem(&[0; 32], at(1.0)));
        assert!(!challenges.redeem(&[1; 32], at(1.0)));
        assert!(challenges.redeem(&[200; 32], at(1.0)));
    }

    #[test]
    fn there_is_a_bound_over_all_peers_that_time_frees() {
        let mut challenges = Challenges::default();
        let many =
            |n: usize| IpAddr::from([10, 1, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()]);
        for n in 0..LIMIT {
            challenges.issue([7; 32], many(n), at(0.0)).unwrap();
        }
        assert_eq!(challenges.issue([8; 32], peer(1), at(1.0)), Err(TooManyChallenges));
        assert_eq!(challenges.issue([8; 32], peer(1), at(30.5)), Ok(()));
    }
}
