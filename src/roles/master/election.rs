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
mod tests;
