//! What is stored before it is seen, and what the next leader makes of it.

use super::*;

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
