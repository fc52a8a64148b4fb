//! The ensemble as others in this process see it: a handle that outlives no reign and holds nothing up.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Shared, records::Records};
use crate::decide::{
    detect::members::{MemberRow, Members},
    time::Moment,
};

/// One look serves all who look within this time: a controller has a breaker for each of many fleets, and
/// all of them look at the same members.
const FRESH: Duration = Duration::from_millis(100);

/// Who reports to this master, as far as it leads. Clones share their looks.
#[derive(Clone)]
pub struct LiveEnsemble {
    shared: Arc<Shared>,
    newest: Arc<Mutex<Option<Look>>>,
}

struct Look {
    at: Moment,
    members: Arc<Members>,
}

impl LiveEnsemble {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, newest: Arc::default() }
    }

    /// Every member, those who said goodbye or expired of late included; `None` while this master does not
    /// lead: then others know, or nobody.
    #[must_use]
    pub fn members(&self) -> Option<Arc<Members>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.shared.clock.now();
        if let Some(look) = newest.as_ref().filter(|look| at.since(look.at) < FRESH) {
            return Some(Arc::clone(&look.members));
        }
        *newest = None;
        let records = Records::copy(&self.shared.desk)?;
        let rows = records.iter().filter_map(|record| MemberRow::read(&record)).collect();
        let members = Arc::new(Members::new(rows));
        *newest = Some(Look { at, members: Arc::clone(&members) });
        Some(members)
    }

    /// Counts up with every change of who is there and what they say; not with ages.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.desk.visible()
    }
}
