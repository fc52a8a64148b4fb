//! What happens to the replicas in one run: drawn from the seed.

use std::time::Duration;

use crate::api_server::Faults;

/// Names of the replicas' hosts.
pub const HOSTS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Before this no fault begins: the replicas find each other.
const QUIET: u64 = 2_000;

/// One replica's machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub host: &'static str,
    /// How far its wall clock is ahead, in ms.
    pub wall_ahead: i64,
    /// Speed of its clock in percent.
    pub percent: u32,
}

/// What happens to one replica, and ends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between it and the API server.
    CutOff,
    /// Nothing passes from it to the API server.
    Mute,
    /// Nothing passes from the API server to it.
    Blind,
    /// What it asks for is done and never answered.
    Deaf,
    /// Everything is delayed until the end of this.
    Delayed,
    /// Its process dies.
    Killed,
    /// Its process ends in order.
    Stopped,
    /// Its machine is suspended for an hour by its own clock, which is no time to the others.
    Jumped,
    /// The API server answers none of the replicas as it should.
    Storm,
}

/// A fault of one replica, from `begin` to `end`.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    pub host: &'static str,
    pub fault: Fault,
    pub begin: Duration,
    pub end: Duration,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub machines: Vec<Machine>,
    pub incidents: Vec<Incident>,
    /// How the API server misbehaves all the time.
    pub usual: Faults,
    /// How it misbehaves in a storm.
    pub storm: Faults,
}

impl Plan {
    /// The plan of this seed; all incidents are over at `until`.
    pub fn draw(seed: u64, until: Duration) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let count = dice.usize(3..=HOSTS.len());
        let odd = dice.bool().then(|| (dice.usize(0..count), if dice.bool() { 200 } else { 50 }));
        let machines: Vec<Machine> = HOSTS[..count]
            .iter()
            .enumerate()
            .map(|(number, host)| Machine {
                host,
                wall_ahead: dice.i64(-3_600_000..3_600_000),
                percent: odd.filter(|(at, _)| *at == number).map_or(100, |(_, percent)| percent),
            })
            .collect();
        let mut incidents: Vec<Incident> = Vec::new();
        for _ in 0..dice.usize(2..=6) {
            let drawn = Incident::draw(&mut dice, count, until);
            let clashes = |other: &Incident| {
                other.host == drawn.host && other.begin <= drawn.end && drawn.begin <= other.end
            };
            if !incidents.iter().any(clashes) {
                incidents.push(drawn);
            }
        }
        let usual = Faults {
            late: Duration::from_millis(dice.u64(0..200)),
            twice: dice.f64() * 0.3,
            unanswered: dice.f64() * 0.03,
            busy: dice.f64() * 0.1,
        };
        let storm = Faults {
            late: Duration::from_millis(dice.u64(500..2_000)),
            twice: dice.f64(),
            unanswered: dice.f64() * 0.5,
            busy: dice.f64() * 0.5,
        };
        Self { machines, incidents, usual, storm }
    }

    /// Whether all clocks run at one speed.
    pub fn clocks_agree(&self) -> bool {
        self.machines.iter().all(|machine| machine.percent == 100)
    }
}

impl Incident {
    fn draw(dice: &mut fastrand::Rng, hosts: usize, until: Duration) -> Self {
        let all = [
            Fault::CutOff,
            Fault::Mute,
            Fault::Blind,
            Fault::Deaf,
            Fault::Delayed,
            Fault::Killed,
            Fault::Stopped,
            Fault::Jumped,
            Fault::Storm,
        ];
        let fault = all[dice.usize(0..all.len())];
        let last = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        let begin = dice.u64(QUIET..last - 500);
        let length = if dice.bool() { dice.u64(100..2_000) } else { dice.u64(2_000..9_000) };
        let end = (begin + length).min(last);
        let (begin, end) = (Duration::from_millis(begin), Duration::from_millis(end));
        let host = if fault == Fault::Storm { "api" } else { HOSTS[dice.usize(0..hosts)] };
        Self { host, fault, begin, end }
    }
}
