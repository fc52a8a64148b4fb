//! The background task: renews our Leases, follows those of the others and the head of the records, campaigns.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{
    KubernetesShared, SessionRequest,
    feed::{self, FeedEvent},
    leases::{LeaseWrite, SeenLease, name_of},
    names::{ObjectRole, object_name, selector},
    requests::Refusal,
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

/// Durations after which the Lease of a member that has gone is removed.
const FORGOTTEN: u32 = 20;

pub(super) struct Session {
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

impl Session {
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

    /// Renews our Leases. The leader's comes first: without it our own does not prolong the leadership.
    async fn renew(&mut self) {
        let (clock, lease) = (self.shared.clock, self.shared.membership.lease);
        let sent = clock.now();
        match self.write_both().await {
            Ok(()) => {
                self.shared.lease_state.vouch(sent, lease);
                (self.renew_at, self.delays) = (sent + lease / 3, delays(lease));
                self.remove_forgotten().await;
            }
            Err(error) => {
                tracing::warn!(%error, "our Lease cannot be renewed now; trying again");
                self.shared.metrics.failed(&error);
                if matches!(error, StoreError::Unusable(_)) {
                    self.shared.lease_state.forfeit();
                }
                self.renew_at = clock.now() + self.delays.next().unwrap_or(lease / 8);
            }
        }
    }

    async fn write_both(&mut self) -> Result<(), StoreError> {
        if let Some(term) = self.term
            && !self.write(ObjectRole::Leader, Some(term), true).await?
        {
            self.lose();
        }
        match self.write(ObjectRole::Member, None, true).await? {
            true => Ok(()),
            false => {
                Err(StoreError::Unavailable("Kubernetes: our member Lease changes all the time".to_owned()))
            }
        }
    }

    /// Writes a Lease of ours; with `held` only if it is ours (still, or again). `false`: it is not.
    async fn write(&mut self, role: ObjectRole, term: Option<u64>, held: bool) -> Result<bool, StoreError> {
        let key = if role == ObjectRole::Leader { &self.leader_key } else { &self.member_key };
        let (name, key) = (object_name(key), key.clone());
        for attempt in 0..2 {
            let before = self.leases.get(&name).map(|seen| seen.lease.clone());
            let lease = self.lease_write(&key, role, term, held).over(before.as_ref())?;
            let operation = if held { Operation::Lease } else { Operation::Campaign };
            match self.shared.requests.put(operation, &lease).await {
                Ok(stored) => {
                    self.remember(stored);
                    return Ok(true);
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Conflict) => match self.shared.requests.get::<Lease>(&name).await? {
                    // A person has edited or deleted it, or the answer to our own write was lost.
                    Some(found) => self.remember(found),
                    None => drop(self.leases.remove(&name)),
                },
            }
            let holder = self.leases.get(&name).map(SeenLease::holder);
            let ours = holder.is_none_or(|holder| holder == self.id());
            if role == ObjectRole::Leader && (attempt > 0 || !ours) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn lease_write<'a>(
        &'a self,
        key: &'a str,
        role: ObjectRole,
        term: Option<u64>,
        held: bool,
    ) -> LeaseWrite<'a> {
        let membership = &self.shared.membership;
        let record = MemberRecord { member: membership.member.clone(), status: self.status.clone() };
        LeaseWrite {
            key,
            prefix: &membership.prefix,
            role,
            holder: if held { self.id() } else { "" },
            record,
            duration: membership.lease,
            now: self.shared.clock.wall(),
            term,
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
            Err(error) => Err(Refusal::Failed(error)),
        };
        match written {
            Ok(stored) => {
                self.remember(stored);
                self.shared.lease_state.vouch(sent, self.shared.membership.lease);
                self.take_over(term).await;
            }
            // Another one was faster; the feed shows who, or this read does.
            Err(Refusal::Conflict) => match self.shared.requests.get::<Lease>(&name).await {
                Ok(Some(found)) => self.remember(found),
                Ok(None) => drop(self.leases.remove(&name)),
                Err(_) => {}
            },
            Err(Refusal::Failed(error)) => self.complain(&error),
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
            Err(Refusal::Conflict) => self.campaign_at = now + CAMPAIGN_RETRY,
            Err(Refusal::Failed(error)) => {
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

    /// As leader: removes the Lease of a member that has been gone for long, exactly as it was seen.
    async fn remove_forgotten(&mut self) {
        if self.term.is_none() {
            return;
        }
        let (now, lease) = (self.shared.clock.now(), self.shared.membership.lease);
        let leader = object_name(&self.leader_key);
        let gone = self.leases.iter().find(|(name, seen)| {
            let duration = seen.ends(lease).since(seen.since);
            **name != leader && now > seen.since + duration * FORGOTTEN
        });
        if let Some((name, seen)) = gone.map(|(name, seen)| (name.clone(), seen.lease.clone())) {
            tracing::info!(lease = name, "removing the Lease of a member that has gone");
            if self.shared.requests.delete(&seen).await.is_ok() {
                self.leases.remove(&name);
            }
        }
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
                self.status = status;
                (self.write(ObjectRole::Member, None, true).await.map(drop), reply)
            }
            SessionRequest::HandOver(reply) => (self.hand_over().await, reply),
        };
        let _: Result<(), _> = oneshot::Sender::send(reply, done);
    }

    async fn hand_over(&mut self) -> Result<(), StoreError> {
        let Some(term) = self.term else { return Ok(()) };
        self.lose();
        self.campaign_at = self.shared.clock.now() + HAND_OVER.min(self.shared.membership.lease / 2);
        self.write(ObjectRole::Leader, Some(term), false).await.map(drop)
    }

    /// Frees the leader's Lease, if we hold it, and removes our own.
    pub(super) async fn leave(&mut self) {
        let holds = self.leader_lease().is_some_and(|seen| seen.holder() == self.id());
        let freed = match holds {
            true => self.write(ObjectRole::Leader, Some(self.highest), false).await.map(drop),
            false => Ok(()),
        };
        let own = self.leases.get(&object_name(&self.member_key)).map(|seen| seen.lease.clone());
        let removed = match own {
            Some(own) => self.shared.requests.delete(&own).await.map_err(StoreError::from),
            None => Ok(()),
        };
        if let Err(error) = freed.and(removed) {
            tracing::warn!(%error, "our Leases run out by themselves, until then nobody takes over");
        }
    }
}

fn delays(lease: Duration) -> ExponentialBackoff {
    backoff(Duration::from_millis(100), (lease / 8).clamp(Duration::from_millis(200), Duration::from_secs(2)))
}
