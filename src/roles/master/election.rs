//! Follows the election: begins a reign when we lead, ends it before anybody else may, forwards when somebody else does.
//!
//! Every reign starts from the store, also when the same process leads again: what was confirmed is
//! there, what was not is kept at the desk or comes again with the next ping.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Shared, forward::Forwarder, reign};
use crate::{
    adapters::{
        store::{Leader, Leadership, Member},
        wire::Answer,
    },
    config::{Dialect, MasterTarget},
};

/// How often what a leader has not taken is sent on.
const ROUND: Duration = Duration::from_millis(500);

/// How often the members are read again although nothing asks for it.
const CENSUS: Duration = Duration::from_secs(30);

/// Between two readings of the members, and before a reign that ended by itself begins again.
const BREATH: Duration = Duration::from_millis(100);

/// A reign under way.
struct Reign {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs until `stop`; then the reign has ended and the lead is handed over.
pub(crate) async fn follow_election(shared: Arc<Shared>, stop: CancellationToken) {
    let mut leadership = shared.store.leadership();
    let mut reign: Option<Reign> = None;
    // On tasks of their own: a store that does not answer must not hold up the end of a reign.
    let _census = AbortOnDropHandle::new(tokio::spawn(count_members(Arc::clone(&shared))));
    let _rounds = AbortOnDropHandle::new(tokio::spawn(make_rounds(Arc::clone(&shared))));
    leadership.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = leadership.changed() => if changed.is_err() { break },
            () = over(&mut reign) => {
                // Deposed, and the store shows it next; or broken, and then it begins again with what is stored.
                tracing::warn!("the reign ended by itself");
                tokio::time::sleep(BREATH).await;
            }
        }
        let now = leadership.borrow_and_update().clone();
        shared.saw(&now);
        end(&mut reign).await;
        reign = take_posture(&shared, now);
    }
    end(&mut reign).await;
    shared.desk.leave();
    shared.store.resign().await;
}

fn take_posture(shared: &Arc<Shared>, leadership: Leadership) -> Option<Reign> {
    tracing::info!(?leadership, "leadership");
    shared.metrics.leading.set(i64::from(matches!(leadership, Leadership::Leading { .. })));
    shared.alarms.set("store_away", leadership == Leadership::Unknown, || {
        "the store does not answer: the ensemble is frozen, nothing expires and nothing is decided".to_owned()
    });
    match leadership {
        Leadership::Leading { term } => {
            let stop = CancellationToken::new();
            let task = tokio::spawn(reign::reign(Arc::clone(shared), term, stop.clone()));
            Some(Reign { stop, task })
        }
        Leadership::Follower { leader: Some(leader) } => {
            follow(shared, &leader);
            None
        }
        Leadership::Follower { leader: None } | Leadership::Unknown => {
            shared.desk.wait();
            None
        }
    }
}

/// The end of a reign that nobody asked to end; never, when there is none.
async fn over(reign: &mut Option<Reign>) {
    let Some(Reign { task, .. }) = reign else { return std::future::pending().await };
    if let Err(error) = task.await {
        tracing::error!(%error, "a reign broke");
    }
    *reign = None;
}

/// Ends a reign and waits until none of its tasks can act any more.
async fn end(reign: &mut Option<Reign>) {
    let Some(Reign { stop, task }) = reign.take() else { return };
    stop.cancel();
    if let Err(error) = task.await {
        tracing::error!(%error, "a reign ended badly");
    }
}

fn follow(shared: &Arc<Shared>, leader: &Leader) {
    let Some(target) = target(&leader.member) else {
        tracing::error!(
            address = leader.member.address,
            "the leader's address cannot be read; keepalives are kept"
        );
        return shared.desk.wait();
    };
    let forwarder = Forwarder::new(target, shared.source, Arc::downgrade(&shared.desk));
    let kept = shared.desk.follow(forwarder.clone());
    send_on(&forwarder, kept);
}

fn send_on(forwarder: &Forwarder, kept: Vec<super::desk::KeptPing>) {
    for ping in kept {
        match forwarder.forward(ping) {
            Answer::Now(_) => {}
            // It runs on a task of its own; nobody waits for this answer any more.
            Answer::Later(sent) => drop(sent),
        }
    }
}

/// Reads the members when somebody begins to lead, when a stranger forwards something, and now and then.
async fn count_members(shared: Arc<Shared>) {
    let mut leadership = shared.store.leadership();
    loop {
        let read = shared.store.members().await;
        let next = if read.is_ok() { CENSUS } else { ROUND };
        match read {
            Ok(members) => {
                shared.desk.admit_members(members.iter().filter_map(address).collect());
                shared.metrics.members.set(i64::try_from(members.len()).unwrap_or(i64::MAX));
            }
            Err(error) => tracing::debug!(%error, "the members cannot be read now"),
        }
        tokio::time::sleep(BREATH).await;
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = shared.desk.strangers() => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// What needs a look from time to time and no store.
async fn make_rounds(shared: Arc<Shared>) {
    let mut round = tokio::time::interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        if let Some((forwarder, kept)) = shared.desk.overdue() {
            send_on(&forwarder, kept);
        }
        shared.desk.review_collisions(shared.settings.ttl);
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use serde_json::json;
    use tokio::sync::watch;

    use super::*;
    use crate::{
        adapters::store::{Batch, RecordKey, Records, Store, StoreError, Term},
        alarms::Alarms,
        clock::Clock,
        decide::{ensemble::Settings, key::Key},
        roles::master::{
            desk::{Desk, Speakers},
            gate::Gatekeeping,
            metrics::{DeskMetrics, MasterMetrics},
        },
    };

    /// Refuses the first write under a lead that goes on, as no store should.
    struct Fickle {
        leadership: watch::Sender<Leadership>,
        commits: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Store for Fickle {
        fn leadership(&self) -> watch::Receiver<Leadership> {
            self.leadership.subscribe()
        }

        async fn members(&self) -> Result<Vec<Member>, StoreError> {
            // It takes its time, and nobody may wait for it.
            std::future::pending().await
        }

        async fn load(&self) -> Result<Records, StoreError> {
            Ok(Records::new())
        }

        async fn commit(&self, term: Term, _batch: Batch) -> Result<(), StoreError> {
            match self.commits.fetch_add(1, Ordering::Relaxed) {
                0 => Err(StoreError::Deposed { ours: term }),
                _ => Ok(()),
            }
        }

        fn follow(&self, _record: RecordKey) -> watch::Receiver<Option<Bytes>> {
            watch::Sender::new(None).subscribe()
        }

        async fn resign(&self) {}
    }

    fn shared(store: Arc<Fickle>) -> Arc<Shared> {
        let clock = Clock::start();
        let alarms = Alarms::new(clock);
        let desk = Desk::new(clock, alarms.clone(), DeskMetrics::default(), Speakers::Anyone);
        Arc::new(Shared {
            clock,
            alarms: alarms.clone(),
            metrics: MasterMetrics::default(),
            store,
            desk: Arc::new(desk),
            settings: Settings::new(Duration::from_secs(20), Duration::from_secs(6)),
            damper: Duration::ZERO,
            callback: None,
            source: None,
            led_before: false.into(),
            digest: std::sync::Mutex::default(),
            gatekeeping: Gatekeeping::none(alarms),
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

    fn lead() -> (Arc<Fickle>, Arc<Shared>) {
        let leadership = watch::Sender::new(Leadership::Leading { term: Term(1) });
        let store = Arc::new(Fickle { leadership, commits: AtomicUsize::new(0) });
        let shared = shared(Arc::clone(&store));
        (store, shared)
    }

    #[tokio::test]
    async fn a_reign_that_ends_by_itself_begins_again_and_loses_nothing() {
        let (_store, shared) = lead();
        let stop = CancellationToken::new();
        let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        let keepalive =
            json!({"app": "shop", "id": "a", "ip": ip, "key": Key::of(ip), "role": "web"}).to_string();
        let peer = "127.0.0.9:1".parse().unwrap();
        let Answer::Now(Ok(())) = shared.desk.ping(peer, keepalive.as_bytes()) else { panic!("taken") };
        until("it is stored and seen", || {
            shared.desk.with_ensemble(|ensemble, _| ensemble.snapshot().len()) == Some(1)
        })
        .await;
        stop.cancel();
        election.await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_lease_ends_the_reign_while_the_store_does_not_answer() {
        let (store, shared) = lead();
        let stop = CancellationToken::new();
        let election = tokio::spawn(follow_election(Arc::clone(&shared), stop.clone()));
        until("it leads", || shared.desk.with_ensemble(|_, _| ()).is_some()).await;
        store.leadership.send_replace(Leadership::Unknown);
        until("it leads no more", || shared.desk.with_ensemble(|_, _| ()).is_none()).await;
        stop.cancel();
        election.await.unwrap();
    }
}
