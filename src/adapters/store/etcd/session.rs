//! Sessions with etcd: join with a lease, read the followed records, watch, renew, campaign.
//!
//! A session uses one connection. Any failure ends it, and the next session begins with a read of all followed
//! records, so that no change is missed and there is no repair path beside the start.

mod requests;

use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, EventType, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn,
    TxnOp, WatchOptions, WatchStream,
};
use tokio::sync::oneshot;

use self::requests::{ask, first_of, forfeit, join, leader, lost, read, register};
pub(super) use self::requests::{cordoned, own_record};
use super::{EtcdShared, connect, connect::EtcdEndpoint};
use crate::{
    adapters::store::{
        Leader, Operation, StoreError, Term,
        layout::{self, LEADER, MEMBERS},
        lease::{HAND_OVER, RENEWALS},
    },
    clock::backoff,
    decide::time::Moment,
};

/// Pause after a stale session, which prevents a busy loop when the cause persists.
const STALE_PAUSE: Duration = Duration::from_millis(10);

/// Why a session ended.
enum SessionEnd {
    /// The session's data are outdated: start the next one at once.
    Stale(&'static str),
    /// The connection or the server failed.
    Lost(StoreError),
}

impl From<StoreError> for SessionEnd {
    fn from(error: StoreError) -> Self {
        Self::Lost(error)
    }
}

/// Runs one session after the other, for ever. `ready` is answered by the first that joins, or when each endpoint failed.
pub(super) async fn keep(
    shared: &EtcdShared,
    endpoints: &[EtcdEndpoint],
    ready: oneshot::Sender<Result<(), StoreError>>,
) {
    let mut ready = Some(ready);
    let mut permanent = None;
    let (mut turn, mut failures, mut delays) = (0, 0, delays(shared.membership.lease));
    loop {
        let endpoint = &endpoints[turn % endpoints.len()];
        let mut joined = false;
        let end = session(shared, endpoint, &mut || {
            joined = true;
            ready.take().map(|ready| ready.send(Ok(())));
            tracing::info!(etcd = endpoint.url, "joined");
        })
        .await;
        if joined {
            (failures, delays) = (0, self::delays(shared.membership.lease));
        }
        let error = match end {
            SessionEnd::Stale(why) => {
                tracing::debug!(etcd = endpoint.url, why, "reading anew");
                tokio::time::sleep(STALE_PAUSE).await;
                continue;
            }
            SessionEnd::Lost(error) => endpoint.hint(error),
        };
        endpoint.failed();
        let _ = shared.client.send_replace(Err(error.to_string()));
        shared.metrics.failed(&error);
        tracing::warn!(etcd = endpoint.url, %error, failures, "the session was lost; trying again");
        (turn, failures) = (turn + 1, failures + 1);
        if matches!(error, StoreError::Unusable { .. }) {
            // Without a login nothing can be written until a person acts.
            shared.lease_state.forfeit();
            permanent = Some(error);
        }
        if failures % endpoints.len() == 0 {
            if let Some(ready) = ready.take() {
                let _ = ready.send(permanent.take().map_or(Ok(()), Err));
            }
            tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }
}

fn delays(lease: Duration) -> impl Iterator<Item = Duration> {
    let longest = (lease / 8).clamp(Duration::from_millis(200), Duration::from_secs(3));
    backoff(Duration::from_millis(50), longest)
}

/// One session, from its first request to its end.
async fn session(shared: &EtcdShared, endpoint: &EtcdEndpoint, on_join: &mut impl FnMut()) -> SessionEnd {
    let mut session = match EtcdSession::begin(shared, endpoint).await {
        Ok(session) => session,
        Err(end) => return end,
    };
    on_join();
    loop {
        if let Err(end) = session.step().await {
            return end;
        }
    }
}

struct EtcdSession<'a> {
    shared: &'a EtcdShared,
    client: Client,
    lease: i64,
    ttl: Duration,
    keeper: LeaseKeeper,
    renewals: LeaseKeepAliveStream,
    watch: WatchStream,
    /// When the unanswered renewal was sent.
    sent: Option<Moment>,
    /// When to renew the lease next.
    renew_at: Moment,
    /// When to campaign (again), while there is no leader.
    campaign_at: Option<Moment>,
    /// The newest revision of the election key that was applied.
    election: i64,
}

/// The first read of a session.
struct SessionStart {
    revision: i64,
    leader: Option<KeyValue>,
    is_member: bool,
}

impl<'a> EtcdSession<'a> {
    async fn begin(shared: &'a EtcdShared, endpoint: &EtcdEndpoint) -> Result<Self, SessionEnd> {
        let client = ask(shared, "connect", endpoint.connect()).await?;
        let new = shared.lease().is_none();
        let (lease, ttl, keeper, renewals) = join(shared, &client).await?;
        if new {
            // Before the read: etcd serves a watch that begins in the past only every 100 ms.
            register(shared, &client, lease).await?;
        }
        let view = read(shared, &client).await?;
        if !view.is_member {
            register(shared, &client, lease).await?;
        }
        let options =
            WatchOptions::new().with_prefix().with_start_revision(view.revision + 1).with_fragment();
        let mut watcher = connect::watcher(&client);
        let watch =
            ask(shared, "watch", watcher.watch(shared.membership.prefix.clone(), Some(options))).await?;
        let _ = shared.client.send_replace(Ok(client.clone()));
        let renew_at = shared.clock.now() + ttl / RENEWALS;
        let mut session = Self {
            shared,
            client,
            lease,
            ttl,
            keeper,
            renewals,
            watch,
            sent: None,
            renew_at,
            campaign_at: None,
            election: 0,
        };
        session.elected(view.leader.as_ref(), view.revision)?;
        Ok(session)
    }

    /// Handles the next message, deadline or request.
    async fn step(&mut self) -> Result<(), SessionEnd> {
        let clock = self.shared.clock;
        let late = self.sent.map(|sent| sent + self.shared.deadline());
        tokio::select! {
            message = self.watch.message() => self.seen(message).await,
            message = self.renewals.message() => {
                let ttl = message.map_err(|error| lost(self.shared, "renew the lease", &error))?.map(|answer| answer.ttl());
                self.renewed(ttl)
            }
            () = tokio::time::sleep_until(clock.instant(late.unwrap_or(self.renew_at))) => match late {
                None => self.renew().await,
                Some(_) => Err(SessionEnd::Lost(self.shared.overdue("renew the lease"))),
            },
            () = clock.sleep_until(self.campaign_at) => self.campaign().await,
            () = self.shared.login_refused.notified() => Err(SessionEnd::Stale("the login was refused")),
        }
    }

    async fn renew(&mut self) -> Result<(), SessionEnd> {
        self.shared.metrics.asked(Operation::Lease);
        self.sent = Some(self.shared.clock.now());
        ask(self.shared, "renew the lease", self.keeper.keep_alive()).await
    }

    fn renewed(&mut self, ttl: Option<i64>) -> Result<(), SessionEnd> {
        match ttl.map(u64::try_from) {
            Some(Ok(seconds)) if seconds > 0 => {
                let sent = self.sent.take().unwrap_or(self.renew_at);
                self.ttl = Duration::from_secs(seconds);
                self.renew_at = sent + self.ttl / RENEWALS;
                self.shared.lease_state.vouch(sent, self.ttl);
                if self.shared.lease_state.is_unknown() {
                    return Err(SessionEnd::Stale("the lease held longer than we dared to believe"));
                }
                Ok(())
            }
            Some(_) => Err(forfeit(self.shared)),
            None => Err(SessionEnd::Lost(StoreError::Unavailable("etcd: renewals have ended".to_owned()))),
        }
    }

    async fn seen(
        &mut self,
        message: Result<Option<etcd_client::WatchResponse>, etcd_client::Error>,
    ) -> Result<(), SessionEnd> {
        let response = message.map_err(|error| lost(self.shared, "watch", &error))?.ok_or_else(|| {
            SessionEnd::Lost(StoreError::Unavailable("etcd: the watch has ended".to_owned()))
        })?;
        if response.compact_revision() > 0 {
            return Err(SessionEnd::Stale("what we had not seen yet was compacted"));
        }
        if response.canceled() {
            let reason = format!("etcd: the watch was ended: {}", response.cancel_reason());
            return Err(SessionEnd::Lost(StoreError::Unavailable(reason)));
        }
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let put = event.event_type() == EventType::Put;
            let name = kv.key().strip_prefix(self.shared.membership.prefix.as_bytes()).unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            if name == LEADER {
                self.elected(put.then_some(kv), kv.mod_revision())?;
            } else if kv.key() == self.shared.member_key().as_bytes() {
                if !put {
                    return Err(SessionEnd::Stale("our member record was removed"));
                }
                let state = requests::state(self.shared, kv)?;
                self.shared.status.lock().cordoned = state.status.cordoned;
                self.shared.members.put(&name, state);
            } else if name.starts_with(MEMBERS) {
                match put {
                    true => self.shared.members.put(&name, requests::state(self.shared, kv)?),
                    false => self.shared.members.remove(&name),
                }
            } else if let Ok(Some(record)) = layout::record(&name) {
                self.shared.mirror.set(record, put.then(|| Bytes::copy_from_slice(kv.value())));
            }
        }
        Ok(())
    }

    /// Applies the election key as of `revision`; an older one than the last is ignored.
    fn elected(&mut self, key: Option<&KeyValue>, revision: i64) -> Result<(), SessionEnd> {
        if revision < self.election {
            return Ok(());
        }
        self.election = revision;
        let Some(key) = key else {
            self.shared.lease_state.follow(None);
            let yields = std::mem::take(&mut *self.shared.yields.lock());
            let wait = if yields { HAND_OVER.min(self.ttl / 2) } else { Duration::ZERO };
            self.campaign_at = Some(self.shared.clock.now() + wait);
            return Ok(());
        };
        self.campaign_at = None;
        let term = Term(u64::try_from(key.create_revision()).unwrap_or_default());
        if key.lease() == self.lease {
            self.shared.lease_state.lead(term);
        } else {
            self.shared.lease_state.follow(Some(Leader { member: leader(key)?, term }));
        }
        Ok(())
    }

    async fn campaign(&mut self) -> Result<(), SessionEnd> {
        self.shared.metrics.asked(Operation::Campaign);
        self.campaign_at = None;
        let key = self.shared.key(LEADER);
        let put = PutOptions::new().with_lease(self.lease);
        let attempt = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), own_record(self.shared)?, Some(put))])
            .or_else([TxnOp::get(key, None)]);
        let answer = match ask(self.shared, "run for leader", self.client.kv_client().txn(attempt)).await {
            Err(SessionEnd::Lost(error @ StoreError::NoSpace { .. })) => {
                tracing::warn!(%error, "nobody leads, and etcd takes no leader");
                self.shared.metrics.failed(&error);
                self.campaign_at = Some(self.shared.clock.now() + self.ttl / RENEWALS);
                return Ok(());
            }
            answer => answer?,
        };
        let revision = answer.header().map_or(0, |header| header.revision());
        if answer.succeeded() {
            self.election = revision;
            self.shared.lease_state.lead(Term(u64::try_from(revision).unwrap_or_default()));
            return Ok(());
        }
        let holder = first_of(answer.op_responses());
        self.elected(holder.as_ref(), revision)
    }
}
