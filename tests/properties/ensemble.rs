//! The ensemble under any order of keepalives, silence, lost writes, freezes and fail-overs, checked against an oracle
//! that records only what was sent, stored and shown.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use kubervisor::decide::{
    digest::Digest,
    ensemble::{CanonicalPod, Ensemble, KeepaliveEffect, LifeStatus, RecordChanges, Settings, StoredPod},
    key::Key,
    sequence::Sequence,
    time::Moment,
};
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum Event {
    /// A keepalive; a nonce of 0 is none.
    Beat { host: u8, id: u8, nonce: u8, payload: u8, down: bool },
    /// Time passes.
    Wait { millis: u64 },
    /// One `expire` with a moment in the past.
    Lag { millis: u64 },
    /// A batch is written and confirmed.
    Store,
    /// A batch fails: it was lost, or written without a confirmation.
    Lose { written: bool },
    /// The next leader restores from the store.
    FailOver,
}

fn event() -> impl Strategy<Value = Event> {
    let beat = (0..4_u8, 0..4_u8, 0..3_u8, 0..3_u8, prop::bool::weighted(0.15));
    let beat =
        beat.prop_map(|(host, id, nonce, payload, down)| Event::Beat { host, id, nonce, payload, down });
    // Most keepalives repeat the pod's last one.
    let usual = (0..4_u8).prop_map(|host| Event::Beat { host, id: host, nonce: 1, payload: 0, down: false });
    prop_oneof![
        6 => beat,
        6 => usual,
        4 => (0..6000_u64).prop_map(|millis| Event::Wait { millis }),
        1 => (0..20_000_u64).prop_map(|millis| Event::Lag { millis }),
        5 => Just(Event::Store),
        2 => any::<bool>().prop_map(|written| Event::Lose { written }),
        1 => Just(Event::FailOver),
    ]
}

fn raw(host: u8, id: u8, nonce: u8, payload: u8, down: bool) -> Vec<u8> {
    let ip = Ipv4Addr::new(10, 0, 0, host);
    let nonce = if nonce == 0 { String::new() } else { format!(r#""nonce":"n{nonce}","#) };
    let down = if down { r#","down":true"# } else { "" };
    let key = Key::of(ip);
    format!(
        r#"{{"app":"a","id":"web-{id}","ip":"{ip}","key":"{key}",{nonce}"payload":{payload},"role":"r"{down}}}"#
    )
    .into_bytes()
}

struct Oracle {
    ensemble: Ensemble,
    now: Moment,
    /// The last accepted keepalive of each key.
    last_seen: HashMap<Key, Moment>,
    grace: Moment,
    stored: BTreeMap<Key, Vec<u8>>,
    sequence: Sequence,
    /// The key and id to which each seq was assigned.
    owners: HashMap<u64, (Key, String)>,
    shown: (u64, Vec<u8>),
}

impl Oracle {
    fn new() -> Self {
        Self {
            ensemble: Ensemble::new(settings()),
            now: Moment::ORIGIN,
            last_seen: HashMap::new(),
            grace: Moment::ORIGIN,
            stored: BTreeMap::new(),
            sequence: Sequence::default(),
            owners: HashMap::new(),
            shown: (0, b"[]".to_vec()),
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Beat { host, id, nonce, payload, down } => {
                self.observe(Key::of(Ipv4Addr::new(10, 0, 0, host)), &raw(host, id, nonce, payload, down));
            }
            Event::Wait { millis } => self.now = self.now + Duration::from_millis(millis),
            Event::Lag { millis } => {
                let lagging = self.now.since(Moment::after_origin(Duration::from_millis(millis)));
                self.expire(Moment::after_origin(lagging));
            }
            Event::Store => {
                if let Some(changes) = self.ensemble.take_changes() {
                    self.write(&changes);
                    self.ensemble.confirm(changes.ticket);
                }
            }
            Event::Lose { written } => {
                if let Some(changes) = self.ensemble.take_changes() {
                    if written {
                        self.write(&changes);
                    }
                    self.ensemble.fail(changes.ticket);
                }
            }
            Event::FailOver => self.fail_over(),
        }
        self.expire(self.now);
    }

    fn observe(&mut self, key: Key, raw: &[u8]) {
        let before = self.ensemble.revision();
        let effect = self.ensemble.observe(self.now, raw, None);
        if effect.is_ok() {
            self.last_seen.insert(key, self.now);
        }
        if matches!(effect, Ok(KeepaliveEffect::Heartbeat) | Err(_)) {
            assert_eq!(self.ensemble.revision(), before, "a revision without a change");
        }
    }

    fn expire(&mut self, now: Moment) {
        for key in self.ensemble.expire(now) {
            assert!(self.deadline(key) <= self.now, "{key} expired early");
        }
        let wakeup = self.ensemble.next_wakeup();
        assert!(wakeup.is_none_or(|wakeup| wakeup > self.now));
    }

    fn deadline(&self, key: Key) -> Moment {
        self.last_seen.get(&key).copied().unwrap_or_default().max(self.grace) + TTL
    }

    fn write(&mut self, changes: &RecordChanges) {
        assert!(changes.sequence >= self.sequence, "the stored sequence went back");
        self.sequence = changes.sequence;
        self.stored.extend(changes.put.iter().cloned());
        for key in &changes.delete {
            self.stored.remove(key);
        }
    }

    fn fail_over(&mut self) {
        let stored = self.stored.clone();
        self.ensemble = Ensemble::restore(settings(), self.now, stored, self.sequence).unwrap();
        self.grace = self.now;
        self.shown = (u64::MAX, Vec::new());
        let expected = self.stored.values().map(|record| StoredPod::decode(record).unwrap());
        let mut expected: Vec<_> = expected.filter(|pod| !pod.down).map(|pod| pod.seq).collect();
        expected.sort_unstable();
        let snapshot = self.ensemble.snapshot();
        assert_eq!(snapshot.members().map(|member| member.seq).collect::<Vec<_>>(), expected);
        assert!(self.ensemble.take_changes().is_none(), "reading alone writes nothing");
    }

    /// After all writes, the store holds exactly the known pods.
    fn settle(&mut self) {
        while let Some(changes) = self.ensemble.take_changes() {
            self.write(&changes);
            self.ensemble.confirm(changes.ticket);
        }
        let stored = self.stored.values().map(|record| StoredPod::decode(record).unwrap());
        let mut stored: Vec<_> = stored.map(|pod| (pod.seq, pod.down)).collect();
        stored.sort_unstable();
        let known = self.known_seqs().into_iter().filter(|(_, status)| *status != LifeStatus::Expired);
        let known: Vec<_> = known.map(|(seq, status)| (seq, status == LifeStatus::Down)).collect();
        assert_eq!(stored, known);
    }

    /// (seq, status) of the known pods, by seq.
    fn known_seqs(&self) -> Vec<(u64, LifeStatus)> {
        let known = self.ensemble.known_pods(self.now);
        let mut seqs: Vec<_> =
            known.map(|pod| (CanonicalPod::read(pod.text).unwrap().seq, pod.status)).collect();
        seqs.sort_unstable_by_key(|(seq, _)| *seq);
        seqs
    }

    fn check(&mut self) {
        let snapshot = self.ensemble.snapshot();
        assert_eq!(snapshot.digest(), Digest::of(snapshot.pods()));
        let (revision, bytes) = (self.ensemble.revision(), snapshot.pods().to_vec());
        assert!(self.shown.0 != revision || self.shown.1 == bytes, "another snapshot at the same revision");
        let array: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((array.len(), snapshot.members().count()), (snapshot.len(), snapshot.len()));
        let mut last = None;
        for member in snapshot.members() {
            assert!(last < Some(member.seq), "out of order");
            last = Some(member.seq);
            let owner = (member.key, member.id.to_string());
            assert_eq!(
                self.owners.entry(member.seq).or_insert_with(|| owner.clone()),
                &owner,
                "a seq assigned twice"
            );
            assert!(member.seq < self.sequence.next(), "seq {} is not durable", member.seq);
            assert!(self.deadline(member.key) > self.now, "an expired pod is visible");
        }
        let live = self.known_seqs().into_iter().filter(|(_, status)| *status == LifeStatus::Live);
        let live: Vec<_> = live.map(|(seq, _)| seq).collect();
        assert_eq!(live, snapshot.members().map(|member| member.seq).collect::<Vec<_>>());
        self.shown = (revision, bytes);
    }
}

fn settings() -> Settings {
    Settings::new(TTL, TTL / 3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_the_invariants(events in prop::collection::vec((event(), any::<bool>()), 0..120)) {
        let mut oracle = Oracle::new();
        for (event, check) in &events {
            oracle.apply(event);
            // A snapshot moves the pods' bytes: results must not depend on when one is taken.
            if *check {
                oracle.check();
            }
        }
        oracle.settle();
        oracle.check();
    }

    #[test]
    fn snapshots_in_between_change_nothing(events in prop::collection::vec((event(), any::<bool>()), 0..80)) {
        let (mut checked, mut unchecked) = (Oracle::new(), Oracle::new());
        for (event, check) in &events {
            checked.apply(event);
            unchecked.apply(event);
            if *check {
                checked.check();
            }
        }
        let (checked, unchecked) = (checked.ensemble.snapshot(), unchecked.ensemble.snapshot());
        prop_assert_eq!(checked.pods(), unchecked.pods());
    }
}
