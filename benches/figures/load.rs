//! The load of a fleet: in each round every pod pings, and a few change, restart, leave or are replaced.
//!
//! An hour at TTL 25 is 432 rounds of TTL/3. In that hour 4 % of the pods per minute change their
//! payload, 1 % restart, 1 % leave (half of them say `down`) and are replaced by pods on new addresses.

use crate::fleet::Pod;

/// Rounds of an hour.
pub(crate) const ROUNDS: u32 = 432;

/// Rounds of a minute, about.
const MINUTE: usize = 7;

/// The pods, by the connection slots that they use.
pub(crate) struct Load {
    pods: Vec<Pod>,
    born: u32,
    round: usize,
}

impl Load {
    pub(crate) fn new(size: u32) -> Self {
        Self { pods: (0..size).map(Pod::new).collect(), born: size, round: 0 }
    }

    pub(crate) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The next round: who changed has changed; returns those that say `down`, with their slots.
    pub(crate) fn churn(&mut self) -> Vec<(usize, Pod)> {
        self.round += 1;
        let share = |percent: usize, size: usize| (size * percent / 100 / MINUTE).max(1);
        let size = self.pods.len();
        let (change, restart, leave) = (share(4, size), share(1, size), share(1, size));
        let start = self.round * (change + restart + leave);
        let mut leaving = Vec::new();
        for step in 0..change + restart + leave {
            let slot = (start + step) * 7919 % size;
            let pod = self.pods[slot];
            self.pods[slot] = if step < change {
                Pod { load: pod.load + 1, ..pod }
            } else if step < change + restart {
                Pod { life: pod.life + 1, ..pod }
            } else {
                if step % 2 == 0 {
                    leaving.push((slot, pod));
                }
                self.born += 1;
                Pod::new(self.born)
            };
        }
        leaving
    }
}
