//! A short soak for every test run: a real master, thousands of pods that ping in time, none of which may expire.
//! `make soak` does the same with 50 000 pods for minutes.
//!
//! `SOAK_SLICE` sets the seconds (default 12).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::time::{Duration, Instant};

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/running.rs"]
mod running;

use fleet::{Link, Pod};
use running::Recipe;

const PODS: u32 = 5000;
const LINKS: u32 = 50;
const TTL: u32 = 5;

#[test]
fn of_thousands_of_pods_that_ping_in_time_none_expires() {
    let slice = std::env::var("SOAK_SLICE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(12);
    let master = Recipe::master("soak")
        .with("KONTROL_TTL", TTL.to_string())
        .with("KONTROL_DAMPER", "0.2")
        .start()
        .unwrap();
    let mut links: Vec<Link> = (0..LINKS).map(|_| Link::zerorpc(master.port).unwrap()).collect();
    let everybody_pings = |links: &mut [Link]| {
        for (at, link) in (0..).zip(links) {
            let mine = (at..PODS).step_by(LINKS as usize);
            link.ping_all(mine.map(|number| Pod::new(number).keepalive())).unwrap();
        }
    };
    everybody_pings(&mut links);
    master.wait_for("ensemble_pods", f64::from(PODS), Duration::from_secs(20)).unwrap();
    let began = Instant::now();
    let mut rounds = 0_u32;
    while began.elapsed() < Duration::from_secs(slice) {
        everybody_pings(&mut links);
        rounds += 1;
        // The default ping interval; a round may take a part of it on a busy machine.
        let due = Duration::from_secs_f64(f64::from(rounds * TTL) / 3.0);
        running::pause(due.saturating_sub(began.elapsed()));
    }
    assert!(rounds > 1, "the machine was too busy for two rounds");
    assert_eq!(master.metric("pods_expired_total").unwrap(), 0.0);
    assert_eq!(master.metric("ensemble_pods").unwrap(), f64::from(PODS));
    assert_eq!(master.metric("keepalives_refused_total").unwrap(), 0.0);
    let refreshed = master.metric("heartbeats_total").unwrap();
    assert!(refreshed >= f64::from(rounds * PODS), "{refreshed} heartbeats in {rounds} rounds");
}

#[test]
fn pods_that_fall_silent_expire_and_those_that_ping_stay() {
    let master =
        Recipe::master("soak").with("KONTROL_TTL", "2").with("KONTROL_DAMPER", "0.05").start().unwrap();
    let mut link = Link::zerorpc(master.port).unwrap();
    let all = 100;
    link.ping_all((0..all).map(|number| Pod::new(number).keepalive())).unwrap();
    master.wait_for("ensemble_pods", f64::from(all), Duration::from_secs(20)).unwrap();
    let began = Instant::now();
    while master.metric("pods_expired_total").unwrap() < f64::from(all / 2) {
        assert!(began.elapsed() < Duration::from_secs(20), "the silent half did not expire");
        link.ping_all((0..all / 2).map(|number| Pod::new(number).keepalive())).unwrap();
        running::pause(Duration::from_millis(100));
    }
    assert_eq!(master.metric("pods_expired_total").unwrap(), f64::from(all / 2));
}
