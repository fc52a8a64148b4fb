//! Late keepalives: our own pause, and pods that ping less often than the TTL.

use super::*;

#[test]
fn after_our_own_pause_everybody_has_a_full_ttl_and_keeps_its_number() {
    let mut ensemble = pair();
    run(&mut ensemble, 0, 5);
    assert_eq!(ensemble.awake(at(100)), Some(Duration::from_secs(95)));
    assert_eq!(ensemble.expire(at(100)), []);
    see(&mut ensemble, 101, &pod(2)).unwrap();
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0), ("web-2", 1)]));
    run(&mut ensemble, 100, 130);
    assert_eq!(ensemble.expire(at(130)), [key(1)], "silent for a TTL in which we were awake");
}

#[test]
fn a_wakeup_that_is_late_by_less_than_a_ping_prolongs_nothing() {
    let mut ensemble = pair();
    run(&mut ensemble, 0, 20);
    assert_eq!(ensemble.awake(at(30)), None, "10 s after the last one, 7.5 s late");
    assert_eq!(ensemble.expire(at(30)), [key(1), key(2)]);
}

#[test]
fn a_silence_begins_at_the_end_of_our_own_pause_and_an_age_does_not() {
    let mut ensemble = pair();
    run(&mut ensemble, 0, 0);
    ensemble.awake(at(100));
    let known: Vec<_> =
        ensemble.known_pods(at(103)).map(|pod| (pod.age.as_secs(), pod.silence.as_secs())).collect();
    assert_eq!(known, [(103, 3), (103, 3)]);
    let taken = see(&mut ensemble, 104, &beat(1, "newcomer", "n2", ""));
    assert!(
        matches!(taken, Err(Rejection::KeyTaken { .. })),
        "its holder may have pinged meanwhile: {taken:?}"
    );
}

/// `pod` pings every `apart` seconds, `count` times from `from` on; the ensemble expires in between. Returns the end.
fn flap(ensemble: &mut Ensemble, from: u64, apart: u64, count: u64, pod: &[u8]) -> u64 {
    for round in 0..count {
        see(ensemble, from + round * apart, pod).unwrap();
        ensemble.expire(at(from + (round + 1) * apart - 1));
        store(ensemble);
    }
    from + count * apart
}

#[test]
fn a_pod_that_keeps_expiring_and_coming_back_is_named_with_its_interval_until_it_stays() {
    let mut ensemble = Ensemble::new(settings());
    let now = flap(&mut ensemble, 0, TTL + 10, 3, &pod(1));
    assert_eq!(ensemble.slow_pods(at(now)), None, "two comebacks may be an accident");
    let now = flap(&mut ensemble, now, TTL + 10, 1, &pod(1));
    let slow = ensemble.slow_pods(at(now)).unwrap();
    assert_eq!((slow.id.as_str(), slow.interval.as_secs(), slow.others), ("web-1", TTL + 10, 0));
    let now = flap(&mut ensemble, now, TTL - 5, 13, &pod(1));
    assert_eq!(ensemble.slow_pods(at(now)), None, "ten TTLs without an expiry");
}

#[test]
fn restarts_and_pods_that_are_in_time_are_not_slow() {
    let mut ensemble = Ensemble::new(settings());
    let mut now = 0;
    for nonce in ["a", "b", "c", "d", "e"] {
        now = flap(&mut ensemble, now, TTL + 10, 1, &beat(1, "web-1", nonce, ""));
    }
    assert_eq!(ensemble.slow_pods(at(now)), None, "another process each time");
    let now = flap(&mut ensemble, now, TTL - 1, 9, &pod(2));
    assert_eq!(ensemble.slow_pods(at(now)), None);
}
