//! One behaviour of the ensemble per test; `tests/properties/ensemble.rs` checks every order of events.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{
    BATCH_RECORDS, CanonicalPod, Ensemble, EnsembleRestoreError, KeepaliveEffect, LifeStatus, RecordChanges,
    Rejection, Settings, StoredPod,
};
use crate::decide::{digest::Digest, key::Key, sequence::Sequence, time::Moment};

const TTL: u64 = 30;
const NO_NONCE: &str = "";

fn at(seconds: u64) -> Moment {
    Moment::after_origin(Duration::from_secs(seconds))
}

fn settings() -> Settings {
    Settings::new(Duration::from_secs(TTL), Duration::from_secs(TTL / 3))
}

fn key(host: u8) -> Key {
    Key::of(Ipv4Addr::new(10, 0, 0, host))
}

/// A keepalive of `id` on 10.0.0.`host`.
fn beat(host: u8, id: &str, nonce: &str, more: &str) -> Vec<u8> {
    let nonce = if nonce.is_empty() { String::new() } else { format!(r#""nonce":"{nonce}","#) };
    let (ip, key) = (key(host).address(), key(host));
    format!(r#"{{"app":"web","id":"{id}","ip":"{ip}","key":"{key}",{nonce}"role":"front"{more}}}"#)
        .into_bytes()
}

/// A keepalive of `web-<host>`, nonce `n1`.
fn pod(host: u8) -> Vec<u8> {
    beat(host, &format!("web-{host}"), "n1", "")
}

fn down(host: u8, nonce: &str) -> Vec<u8> {
    beat(host, &format!("web-{host}"), nonce, r#","down":true"#)
}

fn store(ensemble: &mut Ensemble) -> Vec<RecordChanges> {
    std::iter::from_fn(|| {
        let changes = ensemble.take_changes()?;
        ensemble.confirm(changes.ticket);
        Some(changes)
    })
    .collect()
}

fn see(ensemble: &mut Ensemble, seconds: u64, raw: &[u8]) -> Result<KeepaliveEffect, Rejection> {
    let seen = ensemble.observe(at(seconds), raw, None);
    store(ensemble);
    seen
}

/// Ensemble with 10.0.0.1 and 10.0.0.2, seen at second 0.
fn pair() -> Ensemble {
    let mut ensemble = Ensemble::new(settings());
    assert_eq!(see(&mut ensemble, 0, &pod(1)).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(see(&mut ensemble, 0, &pod(2)).unwrap(), KeepaliveEffect::Joined);
    ensemble
}

/// (id, seq) in the order of the snapshot.
fn shown(ensemble: &mut Ensemble) -> Vec<(String, u64)> {
    ensemble.snapshot().members().map(|member| (member.id.into_owned(), member.seq)).collect()
}

fn names(shown: &[(&str, u64)]) -> Vec<(String, u64)> {
    shown.iter().map(|(id, seq)| ((*id).to_owned(), *seq)).collect()
}

/// [`Ensemble::awake`] at every quarter of a ping from `from` up to `to`, in seconds.
fn run(ensemble: &mut Ensemble, from: u64, to: u64) {
    let step = settings().awake_every();
    let mut now = at(from);
    while now <= at(to) {
        assert_eq!(ensemble.awake(now), None, "not late at {now:?}");
        now = now + step;
    }
}

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

#[test]
fn a_snapshot_is_the_exact_bytes_and_their_digest_in_order_of_arrival() {
    let mut ensemble = Ensemble::new(settings());
    assert_eq!(&**ensemble.snapshot().pods(), b"[]");
    see(&mut ensemble, 0, &beat(9, "b", NO_NONCE, r#","payload":[1.50]"#)).unwrap();
    see(&mut ensemble, 0, &beat(1, "a", "n", r#","seq":99"#)).unwrap();
    let snapshot = ensemble.snapshot();
    let (nine, one) = (key(9), key(1));
    let expected = format!(
        r#"[{{"app":"web","id":"b","ip":"10.0.0.9","key":"{nine}","payload":[1.50],"role":"front","seq":0}},{{"app":"web","id":"a","ip":"10.0.0.1","key":"{one}","nonce":"n","payload":"","role":"front","seq":1}}]"#
    );
    assert_eq!(String::from_utf8_lossy(snapshot.pods()), expected);
    assert_eq!(snapshot.digest(), Digest::of(expected.as_bytes()));
    assert_eq!((snapshot.len(), snapshot.members().count()), (2, 2));
    assert!(Arc::ptr_eq(&snapshot, &ensemble.snapshot()));
}

#[test]
fn a_heartbeat_changes_nothing_and_is_never_stored() {
    let mut ensemble = pair();
    let revision = ensemble.revision();
    for second in 1..20 {
        assert_eq!(ensemble.observe(at(second), &pod(1), None).unwrap(), KeepaliveEffect::Heartbeat);
        let respelt = [b" ", &pod(2)[..]].concat();
        assert_eq!(ensemble.observe(at(second), &respelt, None).unwrap(), KeepaliveEffect::Heartbeat);
    }
    assert!(ensemble.take_changes().is_none());
    assert_eq!(ensemble.revision(), revision);
}

#[test]
fn a_pod_is_out_at_its_ttl_and_not_before() {
    let mut ensemble = pair();
    see(&mut ensemble, 10, &pod(1)).unwrap();
    assert_eq!(ensemble.next_wakeup(), Some(at(TTL)));
    let almost = Moment::after_origin(Duration::from_secs(TTL) - Duration::from_nanos(1));
    assert_eq!(ensemble.expire(almost), []);
    assert_eq!(ensemble.expire(at(TTL)), [key(2)]);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0)]));
    assert_eq!(ensemble.next_wakeup(), Some(at(TTL + 10)));
    let changes = store(&mut ensemble);
    assert_eq!((changes.len(), &changes[0].delete), (1, &vec![key(2)]));
    assert_eq!(see(&mut ensemble, TTL + 1, &pod(2)).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0), ("web-2", 2)]));
}

#[test]
fn a_new_pod_is_seen_only_after_its_seq_is_stored() {
    let mut ensemble = Ensemble::new(settings());
    ensemble.observe(at(0), &pod(1), None).unwrap();
    let revision = ensemble.revision();
    let first = ensemble.take_changes().unwrap();
    assert!(ensemble.take_changes().is_none(), "one batch at a time");
    assert_eq!((first.put.len(), first.sequence), (1, Sequence::starting_at(1)));
    assert!(shown(&mut ensemble).is_empty() && ensemble.known_pods(at(0)).count() == 0);
    ensemble.fail(first.ticket);
    let again = ensemble.take_changes().unwrap();
    assert_eq!(again.put, first.put);
    ensemble.confirm(first.ticket);
    assert!(shown(&mut ensemble).is_empty(), "the old ticket confirms nothing");
    ensemble.confirm(again.ticket);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0)]));
    assert!(ensemble.revision() > revision);
}

#[test]
fn a_confirmation_that_comes_late_does_not_count_for_the_next_pod_on_the_key() {
    let mut ensemble = Ensemble::new(settings());
    ensemble.observe(at(0), &pod(1), None).unwrap();
    let batch = ensemble.take_changes().unwrap();
    ensemble.expire(at(TTL));
    ensemble.observe(at(TTL), &pod(1), None).unwrap();
    ensemble.confirm(batch.ticket);
    assert!(shown(&mut ensemble).is_empty());
    store(&mut ensemble);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 1)]));
}

#[test]
fn a_changed_payload_is_seen_at_once_and_stored_after() {
    let mut ensemble = pair();
    let before = ensemble.snapshot();
    let changed = beat(1, "web-1", "n1", r#","payload":{"load":1}"#);
    assert_eq!(ensemble.observe(at(1), &changed, None).unwrap(), KeepaliveEffect::Changed);
    let after = ensemble.snapshot();
    assert_ne!(before.digest(), after.digest());
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0), ("web-2", 1)]));
    assert_eq!(store(&mut ensemble)[0].put.len(), 1);
    assert_eq!(ensemble.observe(at(1), &changed, None).unwrap(), KeepaliveEffect::Heartbeat);
    assert_eq!(
        ensemble.observe(at(2), &pod(1), None).unwrap(),
        KeepaliveEffect::Changed,
        "the bytes before are news again"
    );
}

#[test]
fn a_restart_keeps_the_seq_changes_the_digest_and_silences_the_former_process() {
    let mut ensemble = pair();
    let before = ensemble.snapshot().digest();
    let restarted = beat(1, "web-1", "n2", "");
    assert_eq!(see(&mut ensemble, 1, &restarted).unwrap(), KeepaliveEffect::Changed);
    assert_ne!(ensemble.snapshot().digest(), before);
    assert_eq!(shown(&mut ensemble)[0].1, 0);
    for late in [pod(1), down(1, "n1")] {
        assert!(matches!(see(&mut ensemble, 2, &late), Err(Rejection::Stale { .. })));
    }
    assert_eq!(see(&mut ensemble, 3, &restarted).unwrap(), KeepaliveEffect::Heartbeat);
}

#[test]
fn down_is_out_at_once_is_final_for_its_nonce_and_the_next_one_has_the_old_seq() {
    let mut ensemble = pair();
    assert_eq!(see(&mut ensemble, 1, &down(1, "n1")).unwrap(), KeepaliveEffect::Left);
    assert_eq!(shown(&mut ensemble), names(&[("web-2", 1)]));
    assert_eq!(see(&mut ensemble, 2, &down(1, "n1")).unwrap(), KeepaliveEffect::Heartbeat);
    assert!(matches!(see(&mut ensemble, 2, &pod(1)), Err(Rejection::SaidDown { .. })));
    assert_eq!(see(&mut ensemble, 3, &beat(1, "web-1", "n2", "")).unwrap(), KeepaliveEffect::Returned);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0), ("web-2", 1)]));
    assert!(matches!(see(&mut ensemble, 4, &pod(1)), Err(Rejection::Stale { .. })));
}

#[test]
fn down_is_forgotten_after_its_ttl() {
    let mut ensemble = pair();
    see(&mut ensemble, 1, &down(1, "n1")).unwrap();
    assert_eq!(ensemble.expire(at(TTL + 1)), [key(2)], "a pod that sent down is not reported as expired");
    assert_eq!(see(&mut ensemble, TTL + 1, &pod(1)).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 2)]));
}

#[test]
fn a_client_without_a_nonce_is_back_with_any_later_ping() {
    let mut ensemble = Ensemble::new(settings());
    let (ping, last) = (beat(1, "a", NO_NONCE, ""), beat(1, "a", NO_NONCE, r#","down":true"#));
    assert_eq!(see(&mut ensemble, 0, &last).unwrap(), KeepaliveEffect::Left, "of an unknown pod");
    assert_eq!(see(&mut ensemble, 0, &ping).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(see(&mut ensemble, 1, &last).unwrap(), KeepaliveEffect::Left);
    assert!(shown(&mut ensemble).is_empty());
    assert_eq!(see(&mut ensemble, 2, &ping).unwrap(), KeepaliveEffect::Returned);
    assert_eq!(shown(&mut ensemble), names(&[("a", 0)]));
}

#[test]
fn a_ping_that_its_own_down_overtook_is_rejected() {
    let mut ensemble = Ensemble::new(settings());
    assert_eq!(see(&mut ensemble, 0, &down(1, "n1")).unwrap(), KeepaliveEffect::Left);
    assert!(matches!(see(&mut ensemble, 0, &pod(1)), Err(Rejection::SaidDown { .. })));
    assert_eq!(see(&mut ensemble, 1, &beat(1, "web-1", "n2", "")).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 0)]));
}

#[test]
fn a_newcomer_on_a_live_key_waits_until_its_holder_has_missed_two_pings() {
    let mut ensemble = pair();
    let newcomer = beat(1, "other", "x", "");
    let refused = see(&mut ensemble, 25, &newcomer).unwrap_err();
    assert!(
        matches!(&refused, Rejection::KeyTaken { holder, newcomer, .. } if holder == "web-1" && newcomer == "other")
    );
    assert_eq!(shown(&mut ensemble)[0].0, "web-1");
    assert!(see(&mut ensemble, 26, &beat(1, "other", "x", r#","down":true"#)).is_err());
    assert_eq!(see(&mut ensemble, 26, &newcomer).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-2", 1), ("other", 2)]));
    assert!(matches!(see(&mut ensemble, 27, &pod(1)), Err(Rejection::KeyTaken { .. })));
}

#[test]
fn a_newcomer_on_the_key_of_a_pod_that_said_down_is_taken_at_once() {
    let mut ensemble = pair();
    see(&mut ensemble, 1, &down(1, "n1")).unwrap();
    assert_eq!(see(&mut ensemble, 1, &beat(1, "other", "x", "")).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-2", 1), ("other", 2)]));
}

#[test]
fn the_same_id_on_a_new_key_retires_the_older_entry_for_good() {
    let mut ensemble = pair();
    let moved = beat(7, "web-1", "n2", "");
    assert_eq!(see(&mut ensemble, 1, &moved).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-2", 1), ("web-1", 2)]));
    for second in 2..200 {
        assert!(see(&mut ensemble, second, &moved).is_ok());
        assert!(
            matches!(see(&mut ensemble, second, &pod(1)), Err(Rejection::IdMoved { to, .. }) if to == key(7))
        );
        ensemble.expire(at(second));
    }
    assert_eq!(ensemble.expire(at(199 + TTL)), [key(7)]);
    assert_eq!(
        see(&mut ensemble, 300, &pod(1)).unwrap(),
        KeepaliveEffect::Joined,
        "the other pod with its id has expired"
    );
    assert_eq!(shown(&mut ensemble), names(&[("web-1", 3)]));
}

#[test]
fn a_retired_pod_that_restarts_retires_the_other() {
    let mut ensemble = pair();
    see(&mut ensemble, 1, &beat(7, "web-1", "n2", "")).unwrap();
    assert_eq!(see(&mut ensemble, 2, &beat(1, "web-1", "n3", "")).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut ensemble), names(&[("web-2", 1), ("web-1", 3)]));
}

#[test]
fn a_forged_address_is_refused_on_the_fast_path_too() {
    let mut ensemble = pair();
    let stranger = Some(Ipv4Addr::new(10, 0, 0, 9));
    for raw in [pod(1), beat(1, "web-1", "n2", ""), pod(8)] {
        let refused = ensemble.observe(at(1), &raw, stranger);
        assert!(matches!(refused, Err(Rejection::ForgedAddress { .. })));
    }
    assert!(ensemble.observe(at(1), &pod(1), Some(key(1).address())).is_ok());
    assert_eq!(ensemble.expire(at(TTL)), [key(2)]);
}

#[test]
fn malformed_keepalives_change_nothing() {
    let mut ensemble = pair();
    let large = vec![b' '; (1 << 20) + 1];
    for (raw, category) in [(&b"{"[..], "not_json"), (b"{}", "missing_member"), (&large, "too_large")] {
        assert_eq!(ensemble.observe(at(1), raw, None).unwrap_err().category(), category);
    }
    let grows = beat(1, "web-1", "n1", &format!(r#","payload":"{}""#, "é".repeat(300_000)));
    assert_eq!(ensemble.observe(at(1), &grows, None).unwrap_err().category(), "too_large");
    assert!(ensemble.take_changes().is_none());
}

#[test]
fn a_full_ensemble_refuses_newcomers_and_growth_and_nothing_else() {
    let mut ensemble = Ensemble::new(Settings { max_pods: 2, max_bytes: 400, ..settings() });
    for host in [1, 2] {
        see(&mut ensemble, 0, &pod(host)).unwrap();
    }
    assert!(matches!(see(&mut ensemble, 1, &pod(3)), Err(Rejection::Full { pods: 2, .. })));
    let grown = beat(1, "web-1", "n1", &format!(r#","payload":"{}""#, "x".repeat(200)));
    assert!(matches!(see(&mut ensemble, 1, &grown), Err(Rejection::Full { .. })));
    assert_eq!(see(&mut ensemble, 1, &pod(1)).unwrap(), KeepaliveEffect::Heartbeat);
    assert_eq!(see(&mut ensemble, 1, &beat(2, "web-2", "n2", "")).unwrap(), KeepaliveEffect::Changed);
    ensemble.expire(at(2 * TTL));
    assert_eq!(see(&mut ensemble, 2 * TTL, &grown).unwrap(), KeepaliveEffect::Joined);
}

#[test]
fn a_clock_that_goes_backwards_neither_expires_nor_revives_a_pod() {
    let mut ensemble = pair();
    see(&mut ensemble, 20, &pod(1)).unwrap();
    see(&mut ensemble, 5, &pod(2)).unwrap();
    assert_eq!(ensemble.next_wakeup(), Some(at(20 + TTL)));
    assert_eq!(ensemble.expire(at(3)), []);
    assert_eq!(ensemble.expire(at(20 + TTL)).len(), 2);
}

#[test]
fn the_next_leader_goes_on_with_what_was_stored() {
    let mut ensemble = Ensemble::new(settings());
    let mut stored = std::collections::BTreeMap::new();
    for raw in [pod(3), pod(1), beat(3, "web-3", "n2", r#","payload":"é""#), pod(2), down(2, "n1")] {
        ensemble.observe(at(0), &raw, None).unwrap();
        for changes in store(&mut ensemble) {
            stored.extend(changes.put);
        }
    }
    let before = ensemble.snapshot();
    let mut next = Ensemble::restore(settings(), at(500), stored.clone(), Sequence::starting_at(3)).unwrap();
    assert_eq!(next.snapshot().pods(), before.pods());
    assert!(next.known_pods(at(510)).all(|known| !known.heard && known.age == Duration::from_secs(10)));
    assert_eq!(next.next_wakeup(), Some(at(500 + TTL)));
    assert!(next.take_changes().is_none());
    assert!(
        matches!(see(&mut next, 501, &pod(3)), Err(Rejection::Stale { .. })),
        "replaced nonces are stored"
    );
    assert!(matches!(see(&mut next, 501, &pod(2)), Err(Rejection::SaidDown { .. })), "so is down");
    assert_eq!(see(&mut next, 501, &pod(1)).unwrap(), KeepaliveEffect::Heartbeat);
    assert_eq!(see(&mut next, 501, &pod(4)).unwrap(), KeepaliveEffect::Joined);
    assert_eq!(shown(&mut next), names(&[("web-3", 0), ("web-1", 1), ("web-4", 3)]));
    let lost = Ensemble::restore(settings(), at(0), stored, Sequence::default()).unwrap();
    assert_eq!(lost.sequence, Sequence::starting_at(3), "a lost sequence is found again on the pods");
}

#[test]
fn records_that_cannot_be_read_are_refused_by_key() {
    let restore = |host: u8, record: &[u8]| {
        Ensemble::restore(settings(), at(0), [(key(host), record)], Sequence::default()).unwrap_err()
    };
    let mut ensemble = Ensemble::new(settings());
    ensemble.observe(at(0), &pod(1), None).unwrap();
    let record = ensemble.take_changes().unwrap().put.remove(0).1;
    assert!(StoredPod::decode(&record).is_ok());
    assert!(matches!(restore(2, &record), EnsembleRestoreError::WrongKey(refused) if refused == key(2)));
    let newer = String::from_utf8(record).unwrap().replace(r#""schema":1"#, r#""schema":2"#);
    for bad in [&b"{"[..], newer.as_bytes(), br#"{"schema":1,"seq":0,"pod":{}}"#] {
        assert!(matches!(restore(1, bad), EnsembleRestoreError::ReadPod { .. }));
    }
}

#[test]
fn batches_are_bounded_and_in_order_of_change() {
    let mut ensemble = Ensemble::new(settings());
    for host in 0..=250 {
        ensemble.observe(at(0), &pod(host), None).unwrap();
    }
    let failed = ensemble.take_changes().unwrap();
    ensemble.fail(failed.ticket);
    let batches = store(&mut ensemble);
    assert_eq!(
        batches.iter().map(|batch| batch.put.len()).collect::<Vec<_>>(),
        [BATCH_RECORDS, BATCH_RECORDS, 51]
    );
    let order: Vec<_> = batches.iter().flat_map(|batch| &batch.put).map(|(key, _)| *key).collect();
    assert_eq!(order, (0..=250).map(key).collect::<Vec<_>>());
    assert_eq!(ensemble.snapshot().len(), 251);
}

#[test]
fn known_pods_are_live_down_or_expired_and_pruned_after_ten_ttls() {
    let mut ensemble = pair();
    see(&mut ensemble, 0, &pod(3)).unwrap();
    see(&mut ensemble, 5, &down(3, "n1")).unwrap();
    see(&mut ensemble, 20, &pod(1)).unwrap();
    ensemble.expire(at(TTL));
    let known_pods = |ensemble: &Ensemble, seconds| -> Vec<(String, LifeStatus, u64)> {
        let id = |text| CanonicalPod::read(text).unwrap().id.into_owned();
        let known = ensemble.known_pods(at(seconds));
        known.map(|pod| (id(pod.text), pod.status, pod.age.as_secs())).collect()
    };
    let is = |id: &str, status, age| (id.to_owned(), status, age);
    assert_eq!(
        known_pods(&ensemble, 32),
        [
            is("web-1", LifeStatus::Live, 12),
            is("web-3", LifeStatus::Down, 27),
            is("web-2", LifeStatus::Expired, 32)
        ]
    );
    see(&mut ensemble, 33, &beat(9, "web-2", "x", "")).unwrap();
    assert!(
        known_pods(&ensemble, 33).iter().all(|(_, status, _)| *status != LifeStatus::Expired),
        "it is back elsewhere"
    );
    ensemble.expire(at(1000));
    assert_eq!(known_pods(&ensemble, 1000).len(), 2);
    ensemble.expire(at(1001 + 10 * TTL));
    assert_eq!(known_pods(&ensemble, 1001 + 10 * TTL), []);
}
