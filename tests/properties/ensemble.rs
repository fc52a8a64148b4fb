//! An ensemble through any order of keepalives, silence, lost writes, freezes and fail-overs, watched by a
//! bookkeeper that knows only what was sent, what was stored and what was shown.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use kubervisor::decide::{
    digest::Digest,
    ensemble::{Ensemble, KeepaliveEffect, RecordChanges, Settings, Status, StoredPod},
    key::Key,
    sequence::Sequence,
    time::Moment,
};
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum Event {
    /// A keepalive; a nonce of 0 is none.
    Beat {
        host: u8,
        id: u8,
        nonce: u8,
        payload: u8,
        down: bool,
    },
    /// Time goes on.
    Wait {
        millis: u64,
    },
    /// One call with a clock that lags.
    Lag {
        millis: u64,
    },
    Freeze,
    Thaw,
    /// A batch is written.
    Store,
    /// A batch is lost, or written without anybody hearing of it.
    Lose {
        written: bool,
    },
    /// The leader dies; the next one reads the store.
    FailOver,
}

fn event() -> impl Strategy<Value = Event> {
    let beat = (0..4_u8, 0..4_u8, 0..3_u8, 0..3_u8, prop::bool::weighted(0.15));
    let beat =
        beat.prop_map(|(host, id, nonce, payload, down)| Event::Beat { host, id, nonce, payload, down });
    // Most pods keep their own name and say the same again.
    let usual = (0..4_u8).prop_map(|host| Event::Beat { host, id: host, nonce: 1, payload: 0, down: false });
    prop_oneof![
        6 => beat,
        6 => usual,
        4 => (0..6000_u64).prop_map(|millis| Event::Wait { millis }),
        1 => (0..20_000_u64).prop_map(|millis| Event::Lag { millis }),
        1 => Just(Event::Freeze),
        1 => Just(Event::Thaw),
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

struct Bookkeeper {
    ensemble: Ensemble,
    now: Moment,
    /// The earliest moment at which a key's TTL may have begun.
    heard: HashMap<Key, Moment>,
    grace: Moment,
    stored: BTreeMap<Key, Vec<u8>>,
    sequence: Sequence,
    /// Whom each seq has ever stood for.
    owners: HashMap<u64, (Key, String)>,
    shown: (u64, Vec<u8>),
}

impl Bookkeeper {
    fn new() -> Self {
        Self {
            ensemble: Ensemble::new(settings()),
            now: Moment::ORIGIN,
            heard: HashMap::new(),
            grace: Moment::ORIGIN,
            stored: BTreeMap::new(),
            sequence: Sequence::default(),
            owners: HashMap::new(),
            shown: (0, b"[]".to_vec()),
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Beat { host, id, nonce, payload, down } => {
                self.hear(Key::of(Ipv4Addr::new(10, 0, 0, host)), &raw(host, id, nonce, payload, down));
            }
            Event::Wait { millis } => self.now = self.now + Duration::from_millis(millis),
            Event::Lag { millis } => {
                let lagging = self.now.since(Moment::after_origin(Duration::from_millis(millis)));
                self.expire(Moment::after_origin(lagging));
            }
            Event::Freeze => self.ensemble.freeze(),
            Event::Thaw => {
                if self.ensemble.is_frozen() {
                    self.grace = self.now;
                }
                self.ensemble.thaw(self.now);
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

    fn hear(&mut self, key: Key, raw: &[u8]) {
        let before = self.ensemble.revision();
        let heard = self.ensemble.observe(self.now, raw, None);
        if heard.is_ok() {
            self.heard.insert(key, self.now);
        }
        if matches!(heard, Ok(KeepaliveEffect::Heartbeat) | Err(_)) {
            assert_eq!(self.ensemble.revision(), before, "nothing new, and yet a change");
        }
    }

    fn expire(&mut self, now: Moment) {
        let frozen = self.ensemble.is_frozen();
        for key in self.ensemble.expire(now) {
            assert!(!frozen, "{key} expired in a freeze");
            assert!(self.deadline(key) <= self.now, "{key} expired early");
        }
        let wakeup = self.ensemble.next_wakeup();
        assert!(wakeup.is_none_or(|wakeup| wakeup > self.now && !frozen));
    }

    fn deadline(&self, key: Key) -> Moment {
        self.heard.get(&key).copied().unwrap_or_default().max(self.grace) + TTL
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

    /// Once the store answers again, it holds exactly what is known, and nobody waits any longer.
    fn settle(&mut self) {
        while let Some(changes) = self.ensemble.take_changes() {
            self.write(&changes);
            self.ensemble.confirm(changes.ticket);
        }
        assert_eq!(self.ensemble.pod_counts().joining, 0, "a pod waits for a write that never comes");
        let stored = self.stored.values().map(|record| StoredPod::decode(record).unwrap());
        let mut stored: Vec<_> = stored.map(|pod| (pod.seq, pod.down)).collect();
        stored.sort_unstable();
        let known = self.ensemble.roster(self.now).filter(|known| known.status != Status::Expired);
        let mut known: Vec<_> = known.map(|known| (known.member.seq, known.status == Status::Down)).collect();
        known.sort_unstable();
        assert_eq!(stored, known);
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
                "a seq given twice"
            );
            assert!(member.seq < self.sequence.next(), "seq {} is not durable", member.seq);
            assert!(self.ensemble.is_frozen() || self.deadline(member.key) > self.now, "a dead pod stays");
        }
        let mut live: Vec<_> = self
            .ensemble
            .roster(self.now)
            .filter(|known| known.status == Status::Live)
            .map(|known| known.member.seq)
            .collect();
        live.sort_unstable();
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
    fn any_order_of_events_keeps_the_promises(events in prop::collection::vec((event(), any::<bool>()), 0..120)) {
        let mut bookkeeper = Bookkeeper::new();
        for (event, look) in &events {
            bookkeeper.happen(event);
            // Snapshots move bytes around inside: the order must not depend on who looks when.
            if *look {
                bookkeeper.check();
            }
        }
        bookkeeper.settle();
        bookkeeper.check();
    }

    #[test]
    fn who_looks_in_between_changes_nothing(events in prop::collection::vec((event(), any::<bool>()), 0..80)) {
        let (mut watched, mut alone) = (Bookkeeper::new(), Bookkeeper::new());
        for (event, look) in &events {
            watched.happen(event);
            alone.happen(event);
            if *look {
                watched.check();
            }
        }
        let (watched, alone) = (watched.ensemble.snapshot(), alone.ensemble.snapshot());
        prop_assert_eq!(watched.pods(), alone.pods());
    }
}
