//! One behaviour of the ensemble per test; `tests/properties/ensemble.rs` checks every order of events.

mod durability;
mod pauses;

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
fn a_digest_that_goes_on_from_the_snapshot_before_is_that_of_all_bytes() {
    let mut ensemble = Ensemble::new(settings());
    let pad = "x".repeat(2000);
    let payload = |value: u32| format!(r#","payload":"{value} {pad}""#);
    for host in 1..100 {
        see(&mut ensemble, 0, &beat(host, &format!("web-{host}"), NO_NONCE, &payload(0))).unwrap();
    }
    let mut random = 7_u32;
    let mut draw = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    for round in 1..300 {
        let host = u8::try_from(1 + draw(110)).unwrap();
        let more = if draw(6) == 0 { r#","down":true"#.to_owned() } else { payload(round) };
        // Without a nonce a pod may come back after its `down`.
        see(&mut ensemble, 0, &beat(host, &format!("web-{host}"), NO_NONCE, &more)).unwrap();
        let snapshot = ensemble.snapshot();
        // Some snapshots are never hashed.
        if draw(3) > 0 {
            assert_eq!(snapshot.digest(), Digest::of(snapshot.pods()), "round {round}");
        }
    }
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
