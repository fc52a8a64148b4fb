//! A leader's term that ends, fails, and what it raises and stores meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;

use super::{super::periodic::INTERVAL, *};
use crate::{
    adapters::{
        store::{Batch, MemberState, MemberStatus, RecordKey, Records, Store, StoreError, Term},
        wire::Answer,
    },
    alarms::Alarms,
    clock::Clock,
    decide::{ensemble::Settings, key::Key},
    roles::master::{
        gate::GateHandle,
        ingest::{AddressPolicy, Ingest},
        metrics::{IngestMetrics, MasterMetrics},
        reader::EnsembleReader,
    },
};

/// Refuses the first commit although leadership goes on.
struct FailOnceStore {
    leadership: watch::Sender<Leadership>,
    commits: AtomicUsize,
    panics: bool,
    resigned: AtomicBool,
}

#[async_trait::async_trait]
impl Store for FailOnceStore {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn membership(&self) -> watch::Receiver<Arc<Vec<MemberState>>> {
        watch::Sender::default().subscribe()
    }

    async fn publish(&self, _status: MemberStatus) -> Result<(), StoreError> {
        Ok(())
    }

    async fn set_cordoned(&self, _member: &str, _cordoned: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn load(&self) -> Result<Records, StoreError> {
        Ok(Records::new())
    }

    async fn commit(&self, term: Term, _batch: Batch) -> Result<(), StoreError> {
        match self.commits.fetch_add(1, Ordering::Relaxed) {
            _ if self.panics => panic!("the store's own bug"),
            0 => Err(StoreError::LeadershipLost(term)),
            _ => Ok(()),
        }
    }

    fn follow(&self, _record: RecordKey) -> watch::Receiver<Option<Bytes>> {
        watch::Sender::new(None).subscribe()
    }

    async fn resign(&self) {
        self.resigned.store(true, Ordering::Relaxed);
    }
}

fn shared(store: Arc<FailOnceStore>) -> Arc<Shared> {
    let clock = Clock::start();
    let alarms = Alarms::new(clock);
    let ingest = Arc::new(Ingest::new(
        clock,
        alarms.clone(),
        IngestMetrics::register(&mut prometheus_client::registry::Registry::default()),
        AddressPolicy::Any,
    ));
    Arc::new(Shared {
        clock,
        alarms: alarms.clone(),
        metrics: MasterMetrics::register(&mut prometheus_client::registry::Registry::default()),
        store,
        reader: Arc::new(EnsembleReader::new(Arc::clone(&ingest))),
        ingest,
        settings: Settings::new(Duration::from_secs(20), Duration::from_secs(6)),
        damper: Duration::ZERO,
        callback: None,
        source: None,
        led_before: false.into(),
        digest: parking_lot::Mutex::default(),
        gate: GateHandle::none(alarms),
        cluster: String::new(),
    })
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "never: {what}");
}

fn lead() -> (Arc<FailOnceStore>, Arc<Shared>) {
    lead_with(false)
}

fn lead_with(panics: bool) -> (Arc<FailOnceStore>, Arc<Shared>) {
    let leadership = watch::Sender::new(Leadership::Leading { term: Term(1) });
    let (commits, resigned) = (AtomicUsize::new(0), AtomicBool::new(false));
    let store = Arc::new(FailOnceStore { leadership, commits, panics, resigned });
    let shared = shared(Arc::clone(&store));
    (store, shared)
}

#[tokio::test]
async fn a_term_that_ends_by_itself_begins_again_and_loses_nothing() {
    let (_store, shared) = lead();
    let stop = CancellationToken::new();
    let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
    ping(&shared);
    until("it is stored and seen", || {
        shared.ingest.with_ensemble(|ensemble, _| ensemble.snapshot().len()) == Some(1)
    })
    .await;
    stop.cancel();
    election.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_odd_value_in_a_payload_is_an_alarm_with_id_and_place_until_it_is_gone() {
    let (_store, shared) = lead();
    let stop = CancellationToken::new();
    let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
    until("it leads", || shared.ingest.with_ensemble(|_, _| ()).is_some()).await;
    let odd = || shared.alarms.up().into_iter().find(|up| up.reason == AlarmReason::OddPayload);
    let ping = |payload: &str| {
        let raw = format!(
            r#"{{"app":"t","id":"b","ip":"10.0.0.1","key":"blXcB","nonce":"01","role":"r","payload":{payload}}}"#
        );
        let peer = "10.0.0.1:1".parse().unwrap();
        let Answer::Now(Ok(())) = shared.ingest.ping(peer, raw.as_bytes()) else { panic!("taken") };
    };
    // This store loses the first term's first commit, so the keepalive is repeated, as a pod does.
    until("the alarm", || {
        ping(r#"{"ratio":NaN}"#);
        odd().is_some()
    })
    .await;
    let message = odd().unwrap().message;
    assert!(message.contains(r#"pod "b" has "NaN" at "/payload/ratio""#), "{message}");
    ping(r#"{"ratio":0.5}"#);
    until("it is over", || odd().is_none()).await;
    stop.cancel();
    election.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_pings_less_often_than_the_ttl_is_an_alarm_that_says_what_to_set() {
    let (_store, shared) = lead();
    let (stop, ttl) = (CancellationToken::new(), shared.settings.ttl);
    let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
    until("it leads", || shared.ingest.with_ensemble(|_, _| ()).is_some()).await;
    let slow = || shared.alarms.up().into_iter().find(|up| up.reason == AlarmReason::SlowKeepalives);
    for _ in 0..4 {
        assert!(slow().is_none());
        ping(&shared);
        tokio::time::sleep(ttl * 3 / 2).await;
    }
    ping(&shared);
    tokio::time::sleep(INTERVAL * 2).await;
    let message = slow().unwrap().message;
    let expected = "pod a keeps expiring and coming back: it pings every ~30 s, the TTL is 20 s: \
                    raise KONTROL_TTL here or lower it there";
    assert_eq!(message, expected);
    tokio::time::sleep(ttl * 12).await;
    assert!(slow().is_none());
    stop.cancel();
    election.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changed_payloads_are_gathered_into_one_commit_which_a_new_pod_does_not_wait_for() {
    let (store, shared) = lead();
    let stop = CancellationToken::new();
    let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
    ping(&shared);
    let pods = |shared: &Shared| shared.ingest.with_ensemble(|ensemble, _| ensemble.snapshot().len());
    until("it is stored", || pods(&shared) == Some(1)).await;
    let commits = || store.commits.load(Ordering::Relaxed);
    // Lets the tasks work without any time passing.
    let settle = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let before = commits();
    for payload in ["x", "y", "z"] {
        ping_as(&shared, 1, payload);
        settle().await;
    }
    assert_eq!(commits(), before, "they wait for more");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(commits(), before + 1);
    ping_as(&shared, 1, "w");
    ping_as(&shared, 2, "");
    settle().await;
    assert_eq!((commits(), pods(&shared)), (before + 2, Some(2)), "both, at once");
    stop.cancel();
    election.await.unwrap();
}

fn ping(shared: &Shared) {
    ping_as(shared, 1, "");
}

fn ping_as(shared: &Shared, host: u8, payload: &str) {
    let (ip, id) = (Ipv4Addr::new(10, 0, 0, host), char::from(b'`' + host));
    let keepalive =
        json!({"app": "shop", "id": id, "ip": ip, "key": Key::of(ip), "role": "web", "payload": payload})
            .to_string();
    let peer = "127.0.0.9:1".parse().unwrap();
    let Answer::Now(Ok(())) = shared.ingest.ping(peer, keepalive.as_bytes()) else { panic!("taken") };
}

#[tokio::test]
async fn a_panic_in_a_term_resigns_and_is_the_elections_own() {
    let (store, shared) = lead_with(true);
    let election = tokio::spawn(follow_election(Arc::clone(&shared), CancellationToken::new()));
    ping(&shared);
    assert!(election.await.unwrap_err().is_panic());
    assert!(store.resigned.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_lost_lease_ends_the_term_while_the_store_does_not_answer() {
    let (store, shared) = lead();
    let stop = CancellationToken::new();
    let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
    until("it leads", || shared.ingest.with_ensemble(|_, _| ()).is_some()).await;
    store.leadership.send_replace(Leadership::Unknown);
    until("it leads no more", || shared.ingest.with_ensemble(|_, _| ()).is_none()).await;
    stop.cancel();
    election.await.unwrap();
}
