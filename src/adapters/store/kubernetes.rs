//! Coordination over the Kubernetes API alone: Leases for leader and members, ConfigMaps for the records.
//!
//! | object | how many | written |
//! |---|---|---|
//! | Lease of a member | one for each process | every third of the lease, and when its status changes |
//! | Lease of the leader | one | every third of the lease, by the leader |
//! | ConfigMap `head` | one | at a commit of a small record; followed by all members |
//! | ConfigMap `chunk` | one for about 256 KiB of pods | at a commit of its pods, as a patch of what changed |
//!
//! *Expiry.* A Lease ends when this process has not seen it change for its duration, on its own monotonic clock, and a
//! list shows then that it is still the same. No time in a record is compared with a clock. Our own leadership ends
//! earlier, by [`LeaseState`]: a duration, less a margin, after the last renewal was *sent*.
//!
//! *Term.* Higher than every earlier one: the leader's Lease has it, and so has each record. A new leader stamps all
//! records before it leads, and each write names the version that it changes, so that an old leader writes nothing
//! after that. If a person deletes the Lease, or the API server is restored from a backup, the records and the memory
//! of the members have the term.
//!
//! *Commit.* One object is changed at a time, in the order of the trait: `seq`, pods, the rest. A crash in between
//! leaves a prefix of the batch; a single record is never torn.
//!
//! | file | content |
//! |---|---|
//! | `names` | keys → names, labels, annotations |
//! | `leases` | a Lease as read and written |
//! | `lease_table` | the Leases as this process has seen them |
//! | `session` | the background task: renews, follows, campaigns |
//! | `feed` | list and watch |
//! | `records` | records → ConfigMaps, without I/O |
//! | `reader` | reads of records |
//! | `writer` | the leader's writes of records |
//! | `written` | the objects as the leader has left them |
//! | `requests` | one request, its deadline and its errors |

mod feed;
mod lease_table;
mod leases;
mod names;
mod reader;
mod records;
mod requests;
mod session;
mod writer;
mod written;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Batch, Leadership, MemberState, MemberStatus, Membership, RecordKey, Records, Store, StoreError,
    StoreMetrics, Term, background::BackgroundTask, layout, lease::LeaseState, membership::MemberTable,
    mirror::Mirror,
};
use crate::{alarms::Alarms, clock::Clock};
use requests::Requests;
use writer::RecordWriter;

/// Deadline of a request for records, which may be large; the term guards them, not the lease.
const RECORDS_DEADLINE: Duration = Duration::from_secs(5);

/// Shared by the store's calls and its background session.
struct KubernetesShared {
    membership: Membership,
    clock: Clock,
    metrics: StoreMetrics,
    requests: Requests,
    writer: RecordWriter,
    mirror: Mirror,
    members: MemberTable,
    lease_state: LeaseState,
    alarms: Alarms,
}

/// A request to the session.
enum SessionRequest {
    /// Stores this status in our member record.
    Publish(MemberStatus, oneshot::Sender<Result<(), StoreError>>),
    /// Changes a member's record.
    Cordon(String, bool, oneshot::Sender<Result<(), StoreError>>),
    /// Gives up the leader's Lease, if it is ours.
    HandOver(oneshot::Sender<Result<(), StoreError>>),
}

/// [`Store`] in the Kubernetes API.
pub struct KubernetesStore {
    shared: Arc<KubernetesShared>,
    requests: mpsc::UnboundedSender<SessionRequest>,
    session: BackgroundTask,
}

impl KubernetesStore {
    /// Starts the session; it registers and campaigns from now on. `client` is this store's own.
    pub fn start(
        client: Client,
        namespace: &str,
        membership: Membership,
        alarms: &Alarms,
        metrics: StoreMetrics,
    ) -> Self {
        let clock = alarms.clock();
        let requests = Requests {
            client,
            namespace: namespace.to_owned(),
            deadline: request_deadline(membership.lease),
            metrics: metrics.clone(),
        };
        let shared = Arc::new(KubernetesShared {
            writer: RecordWriter::new(
                Requests { deadline: RECORDS_DEADLINE, ..requests.clone() },
                membership.prefix.clone(),
            ),
            membership,
            clock,
            metrics,
            requests,
            mirror: Mirror::new(),
            members: MemberTable::new(),
            lease_state: LeaseState::new(clock),
            alarms: alarms.clone(),
        });
        let (requests, asked) = mpsc::unbounded_channel();
        let session = BackgroundTask::start(alarms, "the session with Kubernetes", |leaving| {
            run(Arc::clone(&shared), asked, leaving)
        });
        Self { shared, requests, session }
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), StoreError>>) -> SessionRequest,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("this process has resigned".to_owned());
        self.requests.send(request(reply)).map_err(|_| closed())?;
        self.shared.metrics.judged(answer.await.map_err(|_| closed())?)
    }
}

async fn run(
    shared: Arc<KubernetesShared>,
    mut asked: mpsc::UnboundedReceiver<SessionRequest>,
    leaving: CancellationToken,
) {
    let mut session = session::KubernetesSession::new(Arc::clone(&shared));
    tokio::select! {
        () = session.run(&mut asked) => {}
        () = shared.lease_state.guard() => {}
        () = leaving.cancelled() => {}
    }
    session.leave().await;
}

#[async_trait]
impl Store for KubernetesStore {
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
        self.ask(|reply| SessionRequest::Publish(status, reply)).await
    }

    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        self.ask(|reply| SessionRequest::Cordon(member.to_owned(), cordoned, reply)).await
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        self.ask(SessionRequest::HandOver).await
    }

    async fn load(&self) -> Result<Records, StoreError> {
        self.shared.metrics.judged(self.shared.writer.reader().load().await)
    }

    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError> {
        let writes = self.shared.metrics.judged(layout::writes(batch))?;
        if !self.shared.lease_state.may_write(term) {
            return self.shared.metrics.judged(Err(StoreError::LeadershipLost(term)));
        }
        let done = self.shared.writer.commit(term, writes.clone()).await;
        match &done {
            Ok(()) => writes.into_iter().for_each(|(record, value)| self.shared.mirror.set(record, value)),
            Err(StoreError::LeadershipLost(_)) => self.shared.lease_state.depose(term),
            Err(_) => {}
        }
        self.shared.metrics.judged(done)
    }

    fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>> {
        self.shared.mirror.follow(record)
    }

    async fn resign(&self) {
        self.shared.lease_state.retire();
        self.session.leave().await;
    }
}

/// Deadline of a request for a Lease, a sixth of the lease: several attempts fit between two renewals and the end.
fn request_deadline(lease: Duration) -> Duration {
    (lease / 6).clamp(Duration::from_millis(500), Duration::from_secs(5))
}
