//! Coordination over etcd: one leased election key, one watch, and transactions that compare the key.
//!
//! The leader is the member that created `election/leader`; the key's create revision is the term. Every write is a
//! transaction that compares that revision, so that a leader that was suspended writes nothing. In addition
//! [`LeaseState`] ends leadership on our own clock before the lease can end on the server.

mod connect;
mod refusal;
mod session;
mod transaction;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Batch, Leadership, MemberState, MemberStatus, Membership, Operation, RecordKey, Records, Store,
    StoreError, StoreMetrics, Term,
    background::BackgroundTask,
    layout::{self, LEADER, MEMBERS},
    lease::LeaseState,
    membership::MemberTable,
    mirror::Mirror,
};
use crate::{alarms::Alarms, clock::Clock, config::EtcdConfig};
use connect::EtcdEndpoint;

/// Keys per page of a load.
const PAGE: i64 = 1000;

/// Attempts of a load that a compaction overtakes.
const LOAD_ATTEMPTS: usize = 3;

/// Shared by the store's calls and its background session.
struct EtcdShared {
    membership: Membership,
    clock: Clock,
    metrics: StoreMetrics,
    mirror: Mirror,
    members: MemberTable,
    /// What our member record says.
    status: Mutex<MemberStatus>,
    /// The next campaign leaves the lead to the others.
    yields: Mutex<bool>,
    lease_state: LeaseState,
    /// The session's connection, or why there is none.
    client: watch::Sender<Result<Client, String>>,
    /// The lease of our keys.
    lease: Mutex<Option<i64>>,
    /// A request was refused with the session's login.
    login_refused: Notify,
}

/// [`Store`] in etcd.
pub(super) struct EtcdStore {
    shared: Arc<EtcdShared>,
    session: BackgroundTask,
}

impl EtcdStore {
    /// Starts the session task; returns when it has joined or each endpoint has failed once.
    pub(super) async fn open(
        config: &EtcdConfig,
        membership: Membership,
        alarms: &Alarms,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let endpoints = connect::endpoints(config, request_deadline(membership.lease))?;
        let clock = alarms.clock();
        let shared = Arc::new(EtcdShared {
            membership,
            clock,
            metrics,
            mirror: Mirror::new(),
            members: MemberTable::new(),
            status: Mutex::default(),
            yields: Mutex::default(),
            lease_state: LeaseState::new(clock),
            client: watch::channel(Err("not tried yet".to_owned())).0,
            lease: Mutex::new(None),
            login_refused: Notify::new(),
        });
        let (ready, started) = oneshot::channel();
        let session = BackgroundTask::start(alarms, "the session with etcd", |leaving| {
            run_session(Arc::clone(&shared), endpoints, ready, leaving)
        });
        started.await.map_err(|_| StoreError::Unavailable("etcd: the session ended early".to_owned()))??;
        Ok(Self { shared, session })
    }
}

/// The background task: sessions one after the other, and the guard of the lease's deadline.
async fn run_session(
    shared: Arc<EtcdShared>,
    endpoints: Vec<EtcdEndpoint>,
    ready: oneshot::Sender<Result<(), StoreError>>,
    leaving: CancellationToken,
) {
    tokio::select! {
        () = session::keep(&shared, &endpoints, ready) => {}
        () = shared.lease_state.guard() => {}
        () = leaving.cancelled() => shared.leave(&endpoints).await,
    }
}

impl EtcdShared {
    fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.membership.prefix)
    }

    fn member_key(&self) -> String {
        self.key(format_args!("{MEMBERS}{}", self.membership.member.id))
    }

    fn lease(&self) -> Option<i64> {
        *self.lease.lock()
    }

    fn set_lease(&self, lease: Option<i64>) {
        *self.lease.lock() = lease;
    }

    fn deadline(&self) -> Duration {
        request_deadline(self.membership.lease)
    }

    /// The session's client; waits up to a request's deadline while the session connects.
    async fn client(&self) -> Result<Client, StoreError> {
        let mut client = self.client.subscribe();
        let _ = tokio::time::timeout(self.deadline(), client.wait_for(Result::is_ok)).await;
        let found = client.borrow().clone();
        found.map_err(|why| StoreError::Unavailable(format!("etcd: not connected ({why})")))
    }

    /// Runs one request under the deadline.
    async fn ask<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline(), request).await {
            Ok(answer) => answer.map_err(|error| {
                if refusal::is_login_stale(&error) {
                    self.login_refused.notify_one();
                }
                refusal::explain(what, &error)
            }),
            Err(_) => Err(self.overdue(what)),
        }
    }

    fn overdue(&self, what: &str) -> StoreError {
        let waited = self.deadline().as_millis();
        StoreError::Unavailable(format!("etcd: {what}: no answer within {waited} ms"))
    }

    /// Revokes the lease and all keys with it, so that the next leader need not wait.
    async fn leave(&self, endpoints: &[EtcdEndpoint]) {
        let Some(lease) = self.lease() else { return };
        self.set_lease(None);
        let current = self.client.send_replace(Err("this process has resigned".to_owned()));
        if let Ok(client) = current
            && self.revoke(&client, lease).await.is_ok()
        {
            return;
        }
        for endpoint in endpoints {
            let Ok(client) = self.ask("connect", endpoint.connect()).await else { continue };
            if self.revoke(&client, lease).await.is_ok() {
                return;
            }
        }
        tracing::warn!("etcd does not answer: our lease runs out by itself, until then nobody leads");
    }

    async fn revoke(&self, client: &Client, lease: i64) -> Result<(), StoreError> {
        self.metrics.asked(Operation::Lease);
        self.ask("give the lease back", client.lease_client().revoke(lease)).await.map(drop)
    }

    async fn load_once(&self, client: &Client) -> Result<Records, StoreError> {
        let mut kv = connect::reader(client);
        let end = transaction::range_end(&self.membership.prefix);
        let (mut from, mut revision) = (self.membership.prefix.clone().into_bytes(), 0);
        let mut records = Records::new();
        loop {
            self.metrics.asked(Operation::Load);
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let page = self.ask("read all records", kv.get(from, Some(options))).await?;
            revision = page.header().map_or(revision, |header| header.revision()).max(revision);
            for kv in page.kvs() {
                let name = kv.key().strip_prefix(self.membership.prefix.as_bytes()).unwrap_or_default();
                if let Some(record) = layout::record(&String::from_utf8_lossy(name))? {
                    records.insert(record, Bytes::copy_from_slice(kv.value()));
                }
            }
            match page.kvs().last() {
                Some(last) if page.more() => from = [last.key(), b"\0"].concat(),
                _ => return Ok(records),
            }
        }
    }

    async fn load(&self) -> Result<Records, StoreError> {
        let client = self.client().await?;
        let mut attempts = 1;
        loop {
            match self.load_once(&client).await {
                Err(StoreError::Unavailable(reason))
                    if refusal::is_compacted(&reason) && attempts < LOAD_ATTEMPTS =>
                {
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError> {
        let writes = layout::writes(batch)?;
        if !self.lease_state.may_write(term) {
            return Err(StoreError::LeadershipLost(term));
        }
        let client = self.client().await?;
        let leader = self.key(LEADER);
        for part in transaction::parts(&self.membership.prefix, writes) {
            self.metrics.asked(Operation::Commit);
            let guarded = transaction::guarded(&leader, term, part);
            let answer = self.ask("commit", client.kv_client().txn(guarded)).await?;
            if !answer.succeeded() {
                self.lease_state.depose(term);
                return Err(StoreError::LeadershipLost(term));
            }
        }
        Ok(())
    }

    /// Writes our member record, if our lease is there.
    async fn publish(&self, status: MemberStatus) -> Result<(), StoreError> {
        {
            let mut own = self.status.lock();
            // Cordoned by whoever asked for it.
            *own = MemberStatus { cordoned: own.cordoned, ..status };
        }
        let client = self.client().await?;
        let lost = || StoreError::Unavailable("etcd: our lease has run out".to_owned());
        let options = PutOptions::new().with_lease(self.lease().ok_or_else(lost)?);
        self.metrics.asked(Operation::Publish);
        let put = (self.member_key(), session::own_record(self)?);
        self.ask("publish", client.kv_client().put(put.0, put.1, Some(options))).await.map(drop)
    }

    /// Changes a member's record and leaves its lease as it is.
    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        let client = self.client().await?;
        let key = self.key(format_args!("{MEMBERS}{member}"));
        let found = self.ask("read the member", client.kv_client().get(key.clone(), None)).await?;
        let kv = found.kvs().first().ok_or_else(|| StoreError::no_member(member))?;
        let record = session::cordoned(kv, cordoned)?;
        let unchanged = Compare::mod_revision(key.clone(), CompareOp::Equal, kv.mod_revision());
        let put = TxnOp::put(key, record, Some(PutOptions::new().with_ignore_lease()));
        self.metrics.asked(Operation::Publish);
        let change = Txn::new().when([unchanged]).and_then([put]);
        let done = self.ask("change the member", client.kv_client().txn(change)).await?;
        let changed =
            || StoreError::Unavailable("etcd: the member has changed meanwhile; try again".to_owned());
        done.succeeded().then_some(()).ok_or_else(changed)
    }

    /// Removes the election key, if it is ours; the session campaigns again after the others.
    async fn hand_over(&self) -> Result<(), StoreError> {
        let Leadership::Leading { term } = *self.lease_state.subscribe().borrow() else { return Ok(()) };
        let client = self.client().await?;
        *self.yields.lock() = true;
        let leader = self.key(LEADER);
        let removal = transaction::guarded(&leader, term, vec![TxnOp::delete(leader.clone(), None)]);
        self.metrics.asked(Operation::Campaign);
        self.ask("hand over", client.kv_client().txn(removal)).await.map(drop)
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.lease_state.subscribe()
    }

    fn may_act(&self, term: Term) -> bool {
        self.shared.lease_state.may_act(term)
    }

    fn lapses(&self) -> u64 {
        self.shared.lease_state.lapses()
    }

    fn membership(&self) -> watch::Receiver<Arc<Vec<MemberState>>> {
        self.shared.members.subscribe()
    }

    async fn publish(&self, status: MemberStatus) -> Result<(), StoreError> {
        self.shared.metrics.judged(self.shared.publish(status).await)
    }

    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        self.shared.metrics.judged(self.shared.set_cordoned(member, cordoned).await)
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        self.shared.metrics.judged(self.shared.hand_over().await)
    }

    async fn load(&self) -> Result<Records, StoreError> {
        self.shared.metrics.judged(self.shared.load().await)
    }

    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError> {
        self.shared.metrics.judged(self.shared.commit(term, batch).await)
    }

    fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>> {
        self.shared.mirror.follow(record)
    }

    async fn resign(&self) {
        self.shared.lease_state.retire();
        self.session.leave().await;
    }
}

/// Deadline of one request, a quarter of the lease: several attempts fit into it.
fn request_deadline(lease: Duration) -> Duration {
    (lease / 4).clamp(Duration::from_millis(500), Duration::from_secs(5))
}
