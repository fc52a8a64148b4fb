//! The background task: renews our Leases, follows those of the others and the head of the records, campaigns.

mod own;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{
    KubernetesShared, SessionRequest,
    feed::{self, FeedEvent},
    leases::{SeenLease, name_of},
    names::{ObjectRole, object_name, selector},
    requests::RequestFailure,
};
use crate::{
    adapters::store::{
        Leader, MemberState, MemberStatus, Operation, StoreError, Term,
        layout::{LEADER, MEMBERS, SINGLES},
        membership::MemberRecord,
    },
    clock::backoff,
    decide::{alarm_reason::AlarmReason, time::Moment},
};

/// How long who has handed over, or cannot read the records, leaves the lead to the others.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Delay before a campaign or a take-over that failed is tried again.
const CAMPAIGN_RETRY: Duration = Duration::from_millis(200);

pub(super) struct KubernetesSession {
    shared: Arc<KubernetesShared>,
    /// By name; ours among them.
    leases: BTreeMap<String, SeenLease>,
    leader_key: String,
    member_key: String,
    status: MemberStatus,
    /// The term under which we lead.
    term: Option<u64>,
    /// The highest term seen.
    highest: u64,
    renew_at: Moment,
    delays: ExponentialBackoff,
    /// No campaign and no take-over before.
    campaign_at: Moment,
    leases_known: bool,
    head_known: bool,
    lease_events: mpsc::UnboundedReceiver<FeedEvent<Lease>>,
    head_events: mpsc::UnboundedReceiver<FeedEvent<ConfigMap>>,
    _feeds: [AbortOnDropHandle<()>; 2],
}

impl KubernetesSession {
    pub(super) fn new(shared: Arc<KubernetesShared>) -> Self {
        let membership = &shared.membership;
        let (prefix, now) = (&membership.prefix, shared.clock.now());
        let (leader_key, member_key) =
            (format!("{prefix}{LEADER}"), format!("{prefix}{MEMBERS}{}", membership.member.id));
        let (lease_sender, lease_events) = mpsc::unbounded_channel();
        let (head_sender, head_events) = mpsc::unbounded_channel();
        let requests = || shared.requests.clone();
        // Our own renewals are seen in the feed of Leases, so that a feed without any is dead.
        let leases = feed::follow(requests(), selector(prefix, None), Some(membership.lease), lease_sender);
        let heads = feed::follow(requests(), selector(prefix, Some(ObjectRole::Head)), None, head_sender);
        let _feeds = [tokio::spawn(leases), tokio::spawn(heads)].map(AbortOnDropHandle::new);
        Self {
            leases: BTreeMap::new(),
            leader_key,
            member_key,
            status: MemberStatus::default(),
            term: None,
            highest: 0,
            renew_at: now,
            delays: delays(membership.lease),
            campaign_at: now,
            leases_known: false,
            head_known: false,
            lease_events,
            head_events,
            _feeds,
            shared,
        }
    }

    /// Runs for ever.
    pub(super) async fn run(&mut self, asked: &mut mpsc::UnboundedReceiver<SessionRequest>) {
        loop {
            self.act().await;
            let (clock, due) = (self.shared.clock, self.due());
            tokio::select! {
                Some(event) = self.lease_events.recv() => self.see(event),
                Some(event) = self.head_events.recv() => self.read_head(event).await,
                Some(request) = asked.recv() => self.answer(request).await,
                () = clock.sleep_until(Some(due)) => {}
            }
        }
    }

    /// When there is something to do without an event.
    fn due(&self) -> Moment {
        let now = self.shared.clock.now();
        let lease = self.shared.membership.lease;
        let ends = self.leases.values().map(|seen| seen.ends(lease)).filter(|end| *end > now);
        let campaign = (self.campaign_at > now).then_some(self.campaign_at);
        ends.chain(campaign).fold(self.renew_at, Ord::min)
    }

    async fn act(&mut self) {
        if self.shared.clock.now() >= self.renew_at {
            self.renew().await;
        }
        self.publish_members();
        if self.leases_known && self.head_known {
            self.follow_election().await;
        }
    }

    fn id(&self) -> &str {
        &self.shared.membership.member.id
    }

    fn leader_lease(&self) -> Option<&SeenLease> {
        self.leases.get(&object_name(&self.leader_key))
    }

    /// Our leadership has ended.
    fn lose(&mut self) {
        self.term = None;
        self.shared.lease_state.forfeit();
    }

    /// Follows who holds the leader's Lease; campaigns when nobody does.
    async fn follow_election(&mut self) {
        let now = self.shared.clock.now();
        self.highest = self.highest.max(self.leader_lease().map_or(0, SeenLease::term));
        let seen = self.leader_lease().cloned();
        let live =
            seen.filter(|seen| !seen.holder().is_empty() && seen.ends(self.shared.membership.lease) > now);
        match (live, self.term) {
            (Some(seen), Some(term)) if seen.holder() == self.id() => {
                self.shared.lease_state.lead(Term(term))
            }
            (Some(seen), None) if seen.holder() == self.id() => {
                if now >= self.campaign_at {
                    self.take_over(seen.term()).await;
                }
            }
            (Some(seen), term) => {
                let leader =
                    seen.member().map(|record| Leader { member: record.member, term: Term(seen.term()) });
                if term.is_some() {
                    self.lose();
                }
                self.shared.lease_state.follow(leader);
            }
            (None, term) => {
                // Our own Lease may have ended by our clock; a successful renewal proves that nobody was elected.
                if term.is_none() {
                    self.shared.lease_state.follow(None);
                    if now >= self.campaign_at {
                        self.campaign().await;
                    }
                }
            }
        }
    }

    async fn campaign(&mut self) {
        let sent = self.shared.clock.now();
        self.campaign_at = sent + CAMPAIGN_RETRY;
        let term = self.highest + 1;
        let name = object_name(&self.leader_key);
        let before = self.leases.get(&name).map(|seen| seen.lease.clone());
        let written = match self
            .lease_write(&self.leader_key, ObjectRole::Leader, Some(term), true)
            .over(before.as_ref())
        {
            Ok(lease) => self.shared.requests.put(Operation::Campaign, &lease).await,
            Err(error) => Err(RequestFailure::Failed(error)),
        };
        match written {
            Ok(stored) => {
                self.remember(stored);
                self.shared.lease_state.vouch(sent, self.shared.membership.lease);
                self.take_over(term).await;
            }
            // Another one was faster; the feed shows who, or this read does.
            Err(RequestFailure::Conflict) => match self.shared.requests.get::<Lease>(&name).await {
                Ok(Some(found)) => self.remember(found),
                Ok(None) => drop(self.leases.remove(&name)),
                Err(_) => {}
            },
            Err(RequestFailure::Failed(error)) => self.complain(&error),
        }
    }

    /// Makes the records ours, and leads.
    async fn take_over(&mut self, term: u64) {
        let now = self.shared.clock.now();
        match self.shared.writer.take_over(term).await {
            Ok((term, records)) => {
                self.shared.alarms.clear(AlarmReason::StoreUnreadable);
                for record in SINGLES {
                    self.shared.mirror.set(record, records.get(&record).cloned());
                }
                if self.leader_lease().is_some_and(|seen| seen.term() != term) {
                    self.renew_at = now;
                }
                (self.term, self.highest) = (Some(term), term);
                self.shared.lease_state.lead(Term(term));
            }
            Err(RequestFailure::Conflict) => self.campaign_at = now + CAMPAIGN_RETRY,
            Err(RequestFailure::Failed(error)) => {
                self.complain(&error);
                if matches!(error, StoreError::Unusable(_)) {
                    // Another member may know more, for instance a newer schema.
                    let _ = self.write(ObjectRole::Leader, None, false).await;
                    self.campaign_at = now + HAND_OVER.max(self.shared.membership.lease);
                }
            }
        }
    }

    fn complain(&mut self, error: &StoreError) {
        tracing::warn!(%error, "this process cannot lead now");
        self.shared.metrics.failed(error);
        if matches!(error, StoreError::Unusable(_)) {
            self.shared.alarms.raise(AlarmReason::StoreUnreadable, error.to_string());
        }
    }

    /// Takes what the feed of Leases shows.
    fn see(&mut self, event: FeedEvent<Lease>) {
        match event {
            FeedEvent::Listed(listed) => {
                // The list is the truth, also where its versions are older: after a restore from a backup.
                let mut before = std::mem::take(&mut self.leases);
                for lease in listed {
                    let name = name_of(&lease.metadata).to_owned();
                    let kept = before.remove(&name).filter(|seen| seen.lease == lease);
                    let since = kept.map_or_else(|| self.shared.clock.now(), |seen| seen.since);
                    self.leases.insert(name, SeenLease { lease, since });
                }
                self.leases_known = true;
                self.adopt_own();
            }
            FeedEvent::Changed(lease) => self.remember(lease),
            FeedEvent::Deleted(lease) => {
                let name = name_of(&lease.metadata);
                let same =
                    self.leases.get(name).is_some_and(|seen| seen.lease.metadata.uid == lease.metadata.uid);
                if same {
                    self.leases.remove(name);
                    // Ours, or the leader's: written anew.
                    self.renew_at = self.shared.clock.now();
                }
            }
            FeedEvent::Failed(error) => {
                tracing::debug!(%error, "the Leases cannot be seen now");
                self.shared.metrics.failed(&error);
            }
        }
    }

    /// Keeps the newest version of a Lease, and when it was first seen.
    fn remember(&mut self, lease: Lease) {
        let version = |lease: &Lease| lease.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        let name = name_of(&lease.metadata).to_owned();
        let older = self.leases.get(&name).is_some_and(|seen| {
            seen.lease.metadata.uid == lease.metadata.uid && version(&seen.lease) >= version(&lease)
        });
        if !older {
            let since = self.shared.clock.now();
            self.leases.insert(name, SeenLease { lease, since });
        }
        self.adopt_own();
    }

    /// Keeps what others have changed in our own record.
    fn adopt_own(&mut self) {
        let own = self.leases.get(&object_name(&self.member_key));
        if let Some(record) = own.and_then(SeenLease::member) {
            self.status.cordoned = record.status.cordoned;
        }
    }

    /// Publishes the members whose Leases have not ended.
    fn publish_members(&self) {
        let (now, lease) = (self.shared.clock.now(), self.shared.membership.lease);
        let leader = object_name(&self.leader_key);
        let live = self
            .leases
            .iter()
            .filter(|(name, seen)| **name != leader && !seen.holder().is_empty() && seen.ends(lease) > now);
        let states = live.filter_map(|(name, seen)| {
            let MemberRecord { member, status } = seen.member()?;
            Some((name.clone(), MemberState { member, status, renewed: seen.since }))
        });
        self.shared.members.replace(states.collect());
    }

    /// Followers read the small records from the head; a leader knows what it has written.
    async fn read_head(&mut self, event: FeedEvent<ConfigMap>) {
        let head = match event {
            FeedEvent::Listed(heads) => heads.into_iter().next(),
            FeedEvent::Changed(head) => Some(head),
            FeedEvent::Deleted(_) => None,
            FeedEvent::Failed(error) => {
                tracing::debug!(%error, "the records cannot be seen now");
                return self.shared.metrics.failed(&error);
            }
        };
        if self.term.is_some() {
            self.head_known = true;
            return;
        }
        let records = match &head {
            Some(head) => self.shared.writer.followed(head).await,
            None => Ok(BTreeMap::new()),
        };
        match records {
            Ok(records) => {
                for record in SINGLES {
                    self.shared.mirror.set(record, records.get(&record).cloned());
                }
                self.head_known = true;
            }
            // A part is missing while the next version is written: its head comes next.
            Err(StoreError::Unavailable(why)) => tracing::debug!(why, "the records are read again"),
            Err(error) => {
                self.complain(&error);
                self.head_known = true;
            }
        }
    }

    async fn answer(&mut self, request: SessionRequest) {
        let (done, reply) = match request {
            SessionRequest::Publish(status, reply) => {
                // Cordoned by whoever asked for it.
                self.status = MemberStatus { cordoned: self.status.cordoned, ..status };
                (self.write(ObjectRole::Member, None, true).await.map(drop), reply)
            }
            SessionRequest::Cordon(member, cordoned, reply) => {
                (self.set_cordoned(&member, cordoned).await, reply)
            }
            SessionRequest::HandOver(reply) => (self.hand_over().await, reply),
        };
        let _: Result<(), _> = oneshot::Sender::send(reply, done);
    }
}

/// Delays between attempts to renew.
fn delays(lease: Duration) -> ExponentialBackoff {
    backoff(Duration::from_millis(100), (lease / 8).clamp(Duration::from_millis(200), Duration::from_secs(2)))
}
