//! Follows the election: begins a reign when we lead, ends it before anybody else may, forwards when somebody else does.
//!
//! Every reign starts from the store, also when the same process leads again: what was confirmed is
//! there, what was not is kept at the desk or comes again with the next ping.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Shared, forward::Forwarder, reign};
use crate::{
    adapters::{
        store::{Leader, Leadership, Member},
        wire::Answer,
    },
    config::{Dialect, MasterTarget},
};

/// How often the members are read again, and what a leader has not taken is sent on.
const ROUND: Duration = Duration::from_secs(2);

/// A reign under way.
struct Reign {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs until `stop`; then the reign has ended and the lead is handed over.
pub(crate) async fn follow_election(shared: Arc<Shared>, stop: CancellationToken) {
    let mut leadership = shared.store.leadership();
    let mut reign: Option<Reign> = None;
    let mut round = tokio::time::interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = leadership.changed(), if !first => if changed.is_err() { break },
            _ = round.tick() => {
                housekeeping(&shared).await;
                if !first { continue }
            }
        }
        first = false;
        let now = leadership.borrow_and_update().clone();
        shared.saw(&now);
        end(&mut reign).await;
        reign = take_posture(&shared, now);
    }
    end(&mut reign).await;
    shared.desk.wait();
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
        match forwarder.forward(ping.peer, ping.raw) {
            Answer::Now(_) => {}
            // It runs on a task of its own; nobody waits for this answer any more.
            Answer::Later(sent) => drop(sent),
        }
    }
}

async fn housekeeping(shared: &Arc<Shared>) {
    match shared.store.members().await {
        Ok(members) => {
            shared.desk.admit_members(members.iter().filter_map(address).collect());
            shared.metrics.members.set(i64::try_from(members.len()).unwrap_or(i64::MAX));
        }
        Err(error) => tracing::debug!(%error, "the members cannot be read now"),
    }
    if let Some((forwarder, kept)) = shared.desk.overdue() {
        send_on(&forwarder, kept);
    }
}

fn address(member: &Member) -> Option<Ipv4Addr> {
    member.address.rsplit_once(':')?.0.parse().ok()
}

fn target(member: &Member) -> Option<MasterTarget> {
    let (host, port) = member.address.rsplit_once(':')?;
    Some(MasterTarget { host: host.to_owned(), port: port.parse().ok()?, dialect: Dialect::ZeroRpc })
}
