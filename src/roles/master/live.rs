//! The ensemble for others in this process: a handle that works across terms and holds no lock while it is used.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    context::Shared,
    reader::{EnsembleReader, PodRow},
};
use crate::{
    adapters::store::{Leadership, MemberState, Store, StoreError},
    clock::Clock,
    decide::{
        detect::members::{MemberRow, Members},
        time::Moment,
    },
};

/// How long one read is shared: a controller has a breaker for each of many fleets, and all read the same members.
const MAX_AGE: Duration = Duration::from_millis(100);

type CachedMembers = (Moment, Arc<Members>);

/// The pods that report to this master, while it leads. Clones share their reads.
#[derive(Clone)]
pub struct LiveEnsemble {
    clock: Clock,
    reader: Arc<EnsembleReader>,
    store: Arc<dyn Store>,
    cached: Arc<Mutex<Option<CachedMembers>>>,
}

impl LiveEnsemble {
    pub(super) fn new(shared: &Shared) -> Self {
        let (reader, store) = (Arc::clone(&shared.reader), Arc::clone(&shared.store));
        Self { clock: shared.clock, reader, store, cached: Arc::default() }
    }

    /// Every member, also those that said `down` or expired lately, at most 100 ms old; `None` while this master does
    /// not lead.
    pub fn members(&self) -> Option<Arc<Members>> {
        let mut cached = self.cached.lock();
        let now = self.clock.now();
        if let Some((_, members)) = cached.as_ref().filter(|(at, _)| now.since(*at) < MAX_AGE) {
            return Some(Arc::clone(members));
        }
        *cached = None;
        let rows = self.reader.rows()?;
        let members = Arc::new(Members::new(rows.iter().map(member).collect()));
        *cached = Some((now, Arc::clone(&members)));
        Some(members)
    }

    /// Whether this master leads: it alone has the ensemble.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.store.leadership()
    }

    /// The masters of this ensemble, this one included.
    pub fn masters(&self) -> watch::Receiver<Arc<Vec<MemberState>>> {
        self.store.membership()
    }

    /// Another master leads next, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn hand_over(&self) -> Result<(), StoreError> {
        self.store.hand_over().await
    }

    /// Counts up with every change of members or of what they report; ages do not count.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.reader.changes()
    }
}

fn member(PodRow { record, status, age, silence }: &PodRow) -> MemberRow {
    MemberRow {
        id: record.id.clone(),
        namespace: record.namespace().map(str::to_owned),
        address: record.key.address(),
        age: *age,
        silence: *silence,
        status: *status,
        payload: record.payload_text().into(),
    }
}
