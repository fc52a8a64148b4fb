//! Follows the election: begins a term when this master leads, ends it before another may lead, forwards when another
//! leads.
//!
//! Every term starts from the store, also when the same process leads again: what was confirmed is stored, the rest is
//! kept by the ingest or comes again with the next ping.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    context::Shared,
    ingest::{Forwarder, PendingPing},
    periodic::run_periodic_work,
    term,
};
use crate::{
    adapters::store::{Leader, Leadership, Member},
    config::{Dialect, MasterTarget},
    core_task::{self, until_stopped},
    decide::alarm_reason::AlarmReason,
};

/// Delay before a term that ended by itself begins again.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A term under way.
struct LeadershipTerm {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs until `stop`; then ends the term and resigns.
///
/// # Panics
/// When a term has, after it has resigned: another master may be luckier.
pub(crate) async fn follow_election(shared: Arc<Shared>, stop: CancellationToken) {
    let mut leadership = shared.store.leadership();
    let mut term: Option<LeadershipTerm> = None;
    // On tasks of their own: a store that does not answer does not delay the end of a term.
    let spawn = |name: &str, task: BoxFuture<'static, ()>| {
        let task = until_stopped(&shared.alarms, name, &stop, task);
        AbortOnDropHandle::new(tokio::spawn(task))
    };
    let _members = spawn("the list of masters", follow_members(Arc::clone(&shared)).boxed());
    let _periodic = spawn("the periodic work", run_periodic_work(Arc::clone(&shared)).boxed());
    leadership.mark_changed();
    let mut panicked = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = leadership.changed() => if changed.is_err() { break },
            ended = ended(&mut term) => {
                if let Err(error) = ended {
                    panicked = Some(error);
                    break;
                }
                // Leadership is lost, and the store shows it next; or a record was refused, and the term begins again.
                tracing::warn!("the term ended by itself");
                tokio::time::sleep(MIN_INTERVAL).await;
            }
        }
        let now = leadership.borrow_and_update().clone();
        shared.note_leadership(&now);
        panicked = end(&mut term).await.err();
        if panicked.is_some() {
            break;
        }
        term = enter_mode(&shared, now);
    }
    panicked = panicked.or(end(&mut term).await.err());
    shared.ingest.stop();
    shared.store.resign().await;
    if let Some(error) = panicked {
        core_task::resume(error);
    }
}

fn enter_mode(shared: &Arc<Shared>, leadership: Leadership) -> Option<LeadershipTerm> {
    tracing::info!(?leadership, "leadership");
    shared.metrics.leading.set(i64::from(matches!(leadership, Leadership::Leading { .. })));
    shared.alarms.set(AlarmReason::StoreAway, leadership == Leadership::Unknown, || {
        "the store does not answer: the ensemble is frozen, nothing expires and nothing is decided".to_owned()
    });
    match leadership {
        Leadership::Leading { term } => {
            let stop = CancellationToken::new();
            let task = tokio::spawn(term::run_term(Arc::clone(shared), term, stop.clone()));
            return Some(LeadershipTerm { stop, task });
        }
        Leadership::Follower { leader: Some(leader) } => follow(shared, &leader),
        Leadership::Follower { leader: None } | Leadership::Unknown => shared.ingest.hold(),
    }
    None
}

/// Waits for a term to end by itself; forever when there is none.
async fn ended(term: &mut Option<LeadershipTerm>) -> Result<(), JoinError> {
    let Some(LeadershipTerm { task, .. }) = term else { return std::future::pending().await };
    let ended = task.await;
    *term = None;
    ended
}

/// Ends a term and waits until none of its tasks can act any more.
async fn end(term: &mut Option<LeadershipTerm>) -> Result<(), JoinError> {
    let Some(LeadershipTerm { stop, task }) = term.take() else { return Ok(()) };
    stop.cancel();
    task.await
}

fn follow(shared: &Shared, leader: &Leader) {
    let Some(target) = target(&leader.member) else {
        tracing::error!(
            address = leader.member.address,
            "the leader's address cannot be read; keepalives are kept"
        );
        return shared.ingest.hold();
    };
    let ingest = Arc::downgrade(&shared.ingest);
    let keep = move |ping: PendingPing| ingest.upgrade().map_or(Ok(()), |ingest| ingest.keep(ping));
    shared.ingest.follow(Forwarder::new(target, shared.source, keep));
}

/// Hands the members' addresses to the ingest as they change.
async fn follow_members(shared: Arc<Shared>) {
    let mut membership = shared.store.membership();
    loop {
        let members = Arc::clone(&membership.borrow_and_update());
        shared
            .ingest
            .members
            .send_replace(members.iter().filter_map(|state| address(&state.member)).collect());
        shared.metrics.members.set(i64::try_from(members.len()).unwrap_or(i64::MAX));
        if membership.changed().await.is_err() {
            return;
        }
    }
}

fn address(member: &Member) -> Option<Ipv4Addr> {
    member.address.rsplit_once(':')?.0.parse().ok()
}

fn target(member: &Member) -> Option<MasterTarget> {
    let (host, port) = member.address.rsplit_once(':')?;
    Some(MasterTarget { host: host.to_owned(), port: port.parse().ok()?, dialect: Dialect::ZeroRpc })
}

#[cfg(test)]
mod tests {
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

    fn ping(shared: &Shared) {
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        let keepalive =
            json!({"app": "shop", "id": "a", "ip": ip, "key": Key::of(ip), "role": "web"}).to_string();
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
}
