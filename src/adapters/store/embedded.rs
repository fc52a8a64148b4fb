//! The embedded store: one process, one crash-safe file.
//!
//! The process that holds the file leads; the term is stored in the file and raised at each opening. All writes go
//! through one thread ([`writer`]), which joins waiting requests into one durable transaction.

mod file;
mod writer;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::{
    Batch, Leadership, Member, MemberState, MemberStatus, Membership, Operation, RecordKey, Records, Store,
    StoreError, StoreMetrics, Term, layout, membership::MemberTable, mirror::Mirror,
};
use crate::{alarms::Alarms, clock::Clock};
use file::File;
use writer::{Writer, WriterRequest};

/// [`Store`] in one file.
pub(super) struct EmbeddedStore {
    member: Member,
    clock: Clock,
    members: MemberTable,
    term: Term,
    writer: Writer,
    mirror: Arc<Mirror>,
    leadership: watch::Sender<Leadership>,
    metrics: StoreMetrics,
}

impl EmbeddedStore {
    /// Opens the file, or makes it, and raises its term.
    pub(super) async fn open(
        path: &Path,
        membership: Membership,
        alarms: &Alarms,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let (owned_path, prefix) = (path.to_owned(), membership.prefix.clone());
        let (file, term) = run_blocking(path, move || {
            let mut file = File::open(&owned_path, &prefix)?;
            let term = file.raise_term()?;
            Ok((file, term))
        })
        .await?;
        let mirror = Arc::new(Mirror::new());
        let writer = Writer::start(file, Arc::clone(&mirror), alarms.clone()).await?;
        let (leadership, _) = watch::channel(Leadership::Leading { term });
        let (members, clock, member) = (MemberTable::new(), alarms.clock(), membership.member);
        let store = Self { member, clock, members, term, writer, mirror, leadership, metrics };
        store.publish(MemberStatus::default()).await?;
        Ok(store)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> WriterRequest,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("the store has been closed".to_owned());
        if !self.writer.send(request(reply)) {
            return Err(closed());
        }
        answer.await.map_err(|_| closed())?
    }
}

/// Runs `work` on a blocking thread. A panic becomes an error, because redb asserts invariants that a corrupt file breaks.
async fn run_blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| file::corrupt(path, "it could not be read to its end"))?
}

#[async_trait]
impl Store for EmbeddedStore {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn membership(&self) -> watch::Receiver<Arc<Vec<MemberState>>> {
        self.members.subscribe()
    }

    async fn publish(&self, status: MemberStatus) -> Result<(), StoreError> {
        let renewed = self.clock.now();
        self.members.put("", MemberState { member: self.member.clone(), status, renewed });
        Ok(())
    }

    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        let own = self.members.subscribe().borrow().first().cloned();
        let own = own.filter(|own| own.member.id == member).ok_or_else(|| StoreError::no_member(member))?;
        self.publish(MemberStatus { cordoned, ..own.status }).await
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        Err(StoreError::Unusable(
            "one process alone has the file: there is nobody to lead instead".to_owned(),
        ))
    }

    async fn load(&self) -> Result<Records, StoreError> {
        self.metrics.asked(Operation::Load);
        self.metrics.judged(self.ask(WriterRequest::Load).await)
    }

    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError> {
        let writes = self.metrics.judged(layout::writes(batch))?;
        if term != self.term || *self.leadership.borrow() != (Leadership::Leading { term }) {
            return self.metrics.judged(Err(StoreError::LeadershipLost(term)));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.metrics.asked(Operation::Commit);
        self.metrics.judged(self.ask(|reply| WriterRequest::Commit(writes, reply)).await)
    }

    fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>> {
        self.mirror.follow(record)
    }

    async fn resign(&self) {
        self.leadership.send_replace(Leadership::Follower { leader: None });
        self.writer.close().await;
    }
}
