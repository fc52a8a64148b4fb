//! The background task: renews our Leases, follows those of the others and the head of the records, campaigns.

mod election;
mod own;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;

use self::election::Candidacy;
use super::{
    KubernetesShared, SessionRequest,
    feed::{self, FeedEvent, FeedTimes},
    lease_table::LeaseTable,
    leases::{SeenLease, name_of},
    names::{ObjectRole, object_name, selector},
};
use crate::{
    adapters::store::{
        Leadership, MemberStatus, Records, StoreError,
        layout::{LEADER, MEMBERS, SINGLES},
    },
    clock::backoff,
    decide::{alarm_reason::AlarmReason, time::Moment},
};

/// Delay before a campaign that failed is tried again, and before a Lease that a person has edited is put right.
const RETRY: Duration = Duration::from_millis(200);

/// A watch of the head is dead after this time without an event; the API server sends a bookmark every minute.
const HEAD_SILENCE: Duration = Duration::from_secs(150);

/// A part of the work that a missing right, another program or a newer schema can keep from being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Renew,
    FollowLeases,
    FollowRecords,
    Lead,
}

/// What a session waits for.
enum Wake {
    Lease(FeedEvent<Lease>),
    Head(FeedEvent<ConfigMap>),
    Asked(SessionRequest),
    TakenOver(Result<election::TakenOver, JoinError>),
    Due,
}

pub(super) struct KubernetesSession {
    shared: Arc<KubernetesShared>,
    leases: LeaseTable,
    leader_key: String,
    member_key: String,
    status: MemberStatus,
    /// The term under which we lead.
    term: Option<u64>,
    /// We hold the leader's Lease and do not lead yet.
    candidacy: Option<Candidacy>,
    /// The highest term seen.
    highest: u64,
    renew_at: Moment,
    delays: ExponentialBackoff,
    /// No campaign before.
    campaign_at: Moment,
    /// No campaign before, unless the leader's Lease is there again: its holder may live although a person deleted it.
    vacant_at: Moment,
    /// A write of ours was not answered.
    unanswered: bool,
    /// No list to confirm the end of a Lease before.
    list_at: Moment,
    leases_known: bool,
    head_known: bool,
    /// The newest head that came while we led.
    skipped_head: Option<Option<ConfigMap>>,
    /// What cannot be done, and why.
    hindrances: BTreeMap<Task, String>,
    leadership: watch::Receiver<Leadership>,
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
        // Our own renewals, three in each lease, are seen in the feed of Leases, so that a feed without any is dead.
        let times = FeedTimes { silence: membership.lease / 2, pause: longest_pause(membership.lease) };
        let leases = feed::follow(requests(), selector(prefix, None), times, lease_sender);
        let times = FeedTimes { silence: HEAD_SILENCE, ..times };
        let heads = feed::follow(requests(), selector(prefix, Some(ObjectRole::Head)), times, head_sender);
        let _feeds = [tokio::spawn(leases), tokio::spawn(heads)].map(AbortOnDropHandle::new);
        Self {
            leases: LeaseTable::new(prefix, shared.clock, membership.lease),
            leader_key,
            member_key,
            status: MemberStatus::default(),
            term: None,
            candidacy: None,
            highest: 0,
            renew_at: now,
            delays: delays(membership.lease),
            campaign_at: now,
            vacant_at: now,
            unanswered: false,
            list_at: now,
            leases_known: false,
            head_known: false,
            skipped_head: None,
            hindrances: BTreeMap::new(),
            leadership: shared.lease_state.subscribe(),
            lease_events,
            head_events,
            _feeds,
            shared,
        }
    }

    /// Runs for ever.
    pub(super) async fn run(&mut self, asked: &mut mpsc::UnboundedReceiver<SessionRequest>) {
        let (clock, lease) = (self.shared.clock, self.shared.membership.lease);
        let mut begun = clock.now();
        loop {
            self.act().await;
            // Requests have deadlines: together they are over sooner.
            self.notice_gap(begun + lease);
            let due = self.due().max(clock.now());
            let wake = tokio::select! {
                Some(event) = self.lease_events.recv() => Wake::Lease(event),
                Some(event) = self.head_events.recv() => Wake::Head(event),
                Some(request) = asked.recv() => Wake::Asked(request),
                done = election::taken_over(&mut self.candidacy) => Wake::TakenOver(done),
                // A commit may have found that the term is over.
                Ok(()) = self.leadership.changed() => Wake::Due,
                () = clock.sleep_until(Some(due)) => Wake::Due,
            };
            self.notice_gap(due);
            begun = clock.now();
            match wake {
                Wake::Lease(event) => self.see(event),
                Wake::Head(event) => self.read_head(event).await,
                Wake::Asked(request) => self.answer(request).await,
                Wake::TakenOver(done) => self.begin_term(done).await,
                Wake::Due => {}
            }
        }
    }

    /// The present was expected at this moment at the latest: if it is much later, this process was stopped, its machine
    /// was suspended, or its clock has jumped, and no Lease is known to have ended meanwhile.
    fn notice_gap(&mut self, expected: Moment) {
        if self.shared.clock.now() > expected + self.shared.requests.deadline {
            self.leases.observe_anew();
        }
    }

    /// When there is something to do without an event.
    fn due(&self) -> Moment {
        let now = self.shared.clock.now();
        let campaigns = [self.campaign_at, self.vacant_at, self.list_at].into_iter().filter(|at| *at > now);
        self.leases.ends().chain(campaigns).fold(self.renew_at, Ord::min)
    }

    async fn act(&mut self) {
        if self.shared.clock.now() >= self.renew_at {
            self.renew().await;
        }
        if self.shared.lease_state.has_lapsed() {
            self.leases.allow_return();
        }
        if self.leases_known {
            self.confirm_ends().await;
            self.shared.members.replace(self.leases.live_members());
        }
        if self.leases_known && self.head_known {
            self.follow_election().await;
        }
        if self.term.is_none()
            && let Some(head) = self.skipped_head.take()
        {
            self.mirror_head(head).await;
        }
    }

    /// Lists the Leases when one has ended by the feed.
    async fn confirm_ends(&mut self) {
        let now = self.shared.clock.now();
        if now < self.list_at || !self.leases.awaits_list() {
            return;
        }
        self.list_at = now + RETRY;
        let selector = selector(&self.shared.membership.prefix, None);
        match self.shared.requests.list::<Lease>(&selector).await {
            Ok((listed, _)) => {
                self.take_list(listed);
                self.leases.listed(now);
            }
            Err(failure) => self.note(Task::FollowLeases, Err(&failure.into())),
        }
    }

    fn id(&self) -> &str {
        &self.shared.membership.member.id
    }

    fn renew_by(&mut self, at: Moment) {
        self.renew_at = self.renew_at.min(at);
    }

    /// Notes whether a task could be done. An error that a person must end is an alarm.
    fn note(&mut self, task: Task, done: Result<(), &StoreError>) {
        match done {
            Ok(()) => drop(self.hindrances.remove(&task)),
            Err(error) => {
                self.shared.metrics.failed(error);
                if !matches!(error, StoreError::Unusable(_)) {
                    return match task {
                        Task::Renew | Task::Lead => tracing::warn!(%error, ?task, "trying again"),
                        Task::FollowLeases | Task::FollowRecords => {
                            tracing::debug!(%error, ?task, "trying again")
                        }
                    };
                }
                self.hindrances.insert(task, error.to_string());
            }
        }
        let why = self.hindrances.values().next();
        let text = || why.cloned().unwrap_or_default();
        self.shared.alarms.set(AlarmReason::StoreUnreadable, why.is_some(), text);
    }

    /// Takes what the feed of Leases shows.
    fn see(&mut self, event: FeedEvent<Lease>) {
        match event {
            FeedEvent::Listed(listed) => {
                self.take_list(listed);
                self.leases_known = true;
            }
            FeedEvent::Watching => self.note(Task::FollowLeases, Ok(())),
            FeedEvent::Changed(lease) => {
                let name = name_of(&lease.metadata).to_owned();
                let ours = name == object_name(&self.member_key)
                    || (name == object_name(&self.leader_key) && self.held_term().is_some());
                // Our own writes are known already: a person has edited it, or the answer to a write was lost.
                if self.leases.see(lease) && ours {
                    self.renew_by(self.shared.clock.now() + RETRY);
                }
            }
            FeedEvent::Deleted(lease) => {
                let before = self.leases.leader().cloned();
                if self.leases.delete(&lease) {
                    let name = name_of(&lease.metadata);
                    if name == object_name(&self.leader_key) {
                        self.leader_lease_deleted(before);
                    } else if name == object_name(&self.member_key) {
                        self.renew_at = self.shared.clock.now();
                    }
                }
            }
            FeedEvent::Failed(error) => self.note(Task::FollowLeases, Err(&error)),
        }
        self.adopt_own();
    }

    fn take_list(&mut self, listed: Vec<Lease>) {
        let before = self.leases.leader().cloned();
        let holds = before.as_ref().is_some_and(|seen| seen.holder() == self.id());
        let own = [self.member_key.as_str(), self.leader_key.as_str()];
        self.leases.list(listed, if holds { &own } else { &own[..1] });
        if self.leases.leader().is_none() {
            self.leader_lease_deleted(before);
        }
    }

    /// Keeps what others have changed in our own record.
    fn adopt_own(&mut self) {
        if let Some(record) = self.leases.get(&self.member_key).and_then(SeenLease::member) {
            self.status.cordoned = record.status.cordoned;
        }
    }

    /// Followers read the small records from the head; a leader knows what it has written.
    async fn read_head(&mut self, event: FeedEvent<ConfigMap>) {
        let head = match event {
            FeedEvent::Listed(heads) => {
                let name = object_name(&super::records::head_key(&self.shared.membership.prefix));
                heads.into_iter().find(|head| name_of(&head.metadata) == name)
            }
            FeedEvent::Changed(head) => Some(head),
            FeedEvent::Deleted(_) => None,
            FeedEvent::Watching => return,
            FeedEvent::Failed(error) => return self.note(Task::FollowRecords, Err(&error)),
        };
        if self.term.is_some() {
            self.head_known = true;
            // It may be a newer leader's, of whom the feed of Leases tells later.
            self.skipped_head = Some(head);
            return;
        }
        self.mirror_head(head).await;
    }

    async fn mirror_head(&mut self, head: Option<ConfigMap>) {
        self.skipped_head = None;
        let records = match &head {
            Some(head) => self.shared.writer.reader().followed(head).await,
            None => Ok(BTreeMap::new()),
        };
        match records {
            Ok(records) => {
                self.mirror(&records);
                self.head_known = true;
                self.note(Task::FollowRecords, Ok(()));
            }
            // A part is missing while the next version is written: its head comes next.
            Err(StoreError::Unavailable(why)) => tracing::debug!(why, "the records are read again"),
            Err(error) => {
                self.note(Task::FollowRecords, Err(&error));
                self.head_known = true;
            }
        }
    }

    fn mirror(&self, records: &Records) {
        for record in SINGLES {
            self.shared.mirror.set(record, records.get(&record).cloned());
        }
    }

    async fn answer(&mut self, request: SessionRequest) {
        let (done, reply) = match request {
            SessionRequest::Publish(status, reply) => {
                // Cordoned by whoever asked for it.
                self.status = MemberStatus { cordoned: self.status.cordoned, ..status };
                (self.publish().await, reply)
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
    backoff(Duration::from_millis(100), longest_pause(lease))
}

/// Longest pause between two attempts.
fn longest_pause(lease: Duration) -> Duration {
    (lease / 8).clamp(Duration::from_millis(200), Duration::from_secs(2))
}
