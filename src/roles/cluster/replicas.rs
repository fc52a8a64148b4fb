//! This process among the replicas that share the work: which services are its own, and what it publishes about them.
//!
//! The decisions are [`Ownership`]'s. The caller ends and begins the work, and tells what runs; see
//! `docs/clustering.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{metrics::ClusterMetrics, page::cluster_page};
use crate::{
    adapters::store::{Leadership, Member, MemberState, MemberStatus, Store, StoreError},
    admin::MemberControl,
    clock::Clock,
    decide::{
        assignment::{MembershipView, Ownership, Replica},
        time::Moment,
    },
};

/// A load that has changed is published after this time at the latest and not more often, so that the number of writes
/// does not grow with the number of services.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The replicas of one cluster name.
pub struct Replicas {
    name: String,
    store: Arc<dyn Store>,
    member: Member,
    clock: Clock,
    metrics: ClusterMetrics,
    state: Mutex<ReplicaState>,
}

struct ReplicaState {
    ownership: Ownership,
    status: MemberStatus,
    /// When the status was published last.
    published: Moment,
    /// When the present view began, until this replica has begun what is newly its own.
    handing_over: Option<Moment>,
}

/// Wakes when members or leadership change.
pub struct ReplicaChanges {
    membership: watch::Receiver<Arc<Vec<MemberState>>>,
    leadership: watch::Receiver<Leadership>,
}

impl ReplicaChanges {
    /// Returns at the next change; never once the store has ended.
    pub async fn changed(&mut self) {
        let ended = tokio::select! {
            changed = self.membership.changed() => changed.is_err(),
            changed = self.leadership.changed() => changed.is_err(),
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

impl Replicas {
    /// `store` is open and has registered `member`; `weight` is its share of the work.
    pub fn new(
        name: String,
        store: Arc<dyn Store>,
        member: Member,
        weight: u32,
        clock: Clock,
        metrics: ClusterMetrics,
    ) -> Self {
        let state = ReplicaState {
            ownership: Ownership::new(&member.id),
            status: MemberStatus { weight, ..MemberStatus::default() },
            published: clock.now(),
            handing_over: None,
        };
        Self { name, store, member, clock, metrics, state: Mutex::new(state) }
    }

    /// The changes from now on.
    pub fn changes(&self) -> ReplicaChanges {
        ReplicaChanges { membership: self.store.membership(), leadership: self.store.leadership() }
    }

    /// This process.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The members as they are known now.
    pub fn members(&self) -> Arc<Vec<MemberState>> {
        Arc::clone(&self.store.membership().borrow())
    }

    /// Whether this process leads the cluster: what is to be done once is the leader's.
    pub fn leads(&self) -> bool {
        matches!(*self.store.leadership().borrow(), Leadership::Leading { .. })
    }

    /// Takes the members as they are known now.
    pub fn refresh(&self) {
        // While our lease is not known to hold, others may count us as gone.
        let known = *self.store.leadership().borrow() != Leadership::Unknown;
        let members = self.members();
        // What was acknowledged before it ended says nothing: the others must see first that we are back.
        let known = known && self.published_lapses(&members) == Some(self.store.lapses());
        let mut state = self.state.lock();
        let before = state.ownership.view().map(|view| view.id);
        if known {
            state.ownership.observe(members.iter().map(replica).collect());
        } else {
            state.ownership.lose();
        }
        let after = state.ownership.view().map(|view| view.id);
        if after != before {
            tracing::info!(members = members.len(), view = ?after, "the replicas have changed");
            state.handing_over = after.map(|_| self.clock.now());
        }
        self.metrics.members.set(i64::try_from(members.len()).unwrap_or(i64::MAX));
    }

    /// The lapses that the others know of; `None`: this process is no member for the moment.
    fn published_lapses(&self, members: &[MemberState]) -> Option<u64> {
        let own = members.iter().find(|state| state.member.id == self.member.id)?;
        Some(own.status.lapses)
    }

    /// Whether this process may work on this service now.
    pub fn may_run(&self, service: &str) -> bool {
        self.state.lock().ownership.may_run(service)
    }

    /// The owner of each of these services by the present members; without one where nobody may have any.
    pub fn owners(&self, services: impl Iterator<Item = String>) -> BTreeMap<String, Member> {
        let members = self.members();
        let view = MembershipView::of(members.iter().map(replica).collect());
        let by_id: BTreeMap<&str, &Member> =
            members.iter().map(|state| (state.member.id.as_str(), &state.member)).collect();
        let owner = |service: &str| by_id.get(view.owner(service)?.id.as_str()).copied();
        let owned = |service: String| owner(&service).cloned().map(|owner| (service, owner));
        services.filter_map(owned).collect()
    }

    /// Tells what this process works on by the hash, and how much in all; publishes the present view once everything else
    /// has ended. Returns after what time it is to be called again, because the load is published then.
    ///
    /// # Errors
    /// The store does not answer; to be called again.
    pub async fn publish(
        &self,
        running: BTreeSet<String>,
        load: usize,
    ) -> Result<Option<Duration>, StoreError> {
        let load = u32::try_from(load).unwrap_or(u32::MAX);
        let now = self.clock.now();
        let (due, wait) = {
            let mut state = self.state.lock();
            self.metrics.owned.set(i64::from(load));
            state.ownership.set_running(running);
            if state.ownership.is_settled()
                && let Some(since) = state.handing_over.take()
            {
                self.metrics.hand_over.observe(now.since(since).as_secs_f64());
            }
            let lapses = self.store.lapses();
            let published = self.published_lapses(&self.members());
            let lapsed = published.is_some_and(|published| published != lapses);
            let acknowledged = state.ownership.acknowledgement();
            let wait =
                (load != state.status.load).then(|| LOAD_INTERVAL.saturating_sub(now.since(state.published)));
            let due = acknowledged.is_some() || lapsed || wait == Some(Duration::ZERO);
            let due = due.then(|| {
                let view = if lapsed { acknowledged } else { acknowledged.or(state.status.view) };
                state.status = MemberStatus { view, load, lapses, ..state.status.clone() };
                state.published = now;
                state.status.clone()
            });
            (due, wait)
        };
        match due {
            Some(status) => self.store.publish(status).await.map(|()| None),
            None => Ok(wait),
        }
    }

    /// Counts services that this process has begun or ended to work on.
    pub fn count_moves(&self, began: usize, ended: usize) {
        self.metrics.moved("gained", began);
        self.metrics.moved("lost", ended);
    }

    /// `/cluster`; `owners`: whose each of the shared services is.
    pub fn page(&self, owners: BTreeMap<String, Member>) -> Value {
        let mut by_owner: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (service, owner) in owners {
            by_owner.entry(owner.id).or_default().push(service);
        }
        cluster_page(&self.name, &*self.store, self.clock.now(), |state| {
            json!(by_owner.get(&state.member.id).map_or(&[][..], Vec::as_slice))
        })
    }

    /// Leaves the cluster: the others take over at once.
    pub async fn leave(&self) {
        self.store.resign().await;
    }
}

#[async_trait]
impl MemberControl for Replicas {
    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        self.store.set_cordoned(member, cordoned).await
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        if self.leads() {
            return self.store.hand_over().await;
        }
        let leader = super::leadership(&*self.store);
        Err(StoreError::Unusable(format!("this replica does not lead; ask the leader: {leader}")))
    }
}

fn replica(state: &MemberState) -> Replica {
    let MemberState { member, status, .. } = state;
    let pod = if member.pod.is_empty() { &member.id } else { &member.pod };
    let weight = if status.cordoned { 0 } else { status.weight };
    Replica {
        id: member.id.clone(),
        pod: pod.clone(),
        weight,
        acknowledged: status.view,
        lapses: status.lapses,
    }
}
