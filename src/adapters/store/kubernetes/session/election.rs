//! Who leads: campaigns for the leader's Lease, makes the records ours, hands over.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{
        leases::SeenLease,
        names::{ObjectRole, object_name},
        requests::RequestFailure,
    },
    KubernetesSession, RETRY, Task,
};
use crate::{
    adapters::store::{Leader, Operation, Records, StoreError, Term, lease::HAND_OVER},
    core_task,
};

pub(super) type TakenOver = Result<(u64, Records), RequestFailure>;

/// The time between an election and the first moment of its term: the records become ours, which may take longer than
/// the lease, and the Leases are renewed meanwhile.
pub(super) struct Candidacy {
    term: u64,
    task: AbortOnDropHandle<TakenOver>,
}

/// The end of the candidacy; for ever when there is none.
pub(super) async fn taken_over(candidacy: &mut Option<Candidacy>) -> Result<TakenOver, JoinError> {
    match candidacy {
        Some(candidacy) => (&mut candidacy.task).await,
        None => std::future::pending().await,
    }
}

impl KubernetesSession {
    /// The term that the leader's Lease has by our own writes.
    pub(super) fn held_term(&self) -> Option<u64> {
        self.term.or(self.candidacy.as_ref().map(|candidacy| candidacy.term))
    }

    /// Our leadership or candidacy has ended.
    pub(super) fn lose(&mut self) {
        (self.term, self.candidacy) = (None, None);
        self.shared.lease_state.forfeit();
    }

    /// A person has deleted the leader's Lease, which was like this. Its holder begins a new term; the others leave it
    /// the time that it had.
    pub(super) fn leader_lease_deleted(&mut self, before: Option<SeenLease>) {
        if self.held_term().is_some() {
            return self.lose();
        }
        let before = before.filter(|seen| !seen.holder().is_empty() && seen.holder() != self.id());
        self.vacant_at = before.map_or(self.vacant_at, |seen| self.leases.end(&seen));
    }

    /// Follows who holds the leader's Lease; campaigns when nobody does.
    pub(super) async fn follow_election(&mut self) {
        let now = self.shared.clock.now();
        if self.term.is_some_and(|term| !self.shared.lease_state.may_write(Term(term))) {
            // A commit found that the records are not as this term has left them.
            self.lose();
            self.campaign_at = now + RETRY;
        }
        let seen = self.leases.leader().cloned();
        self.highest = self.highest.max(seen.as_ref().map_or(0, SeenLease::term));
        if seen.is_some() {
            self.vacant_at = now;
        }
        let Some(seen) = seen.filter(|seen| !seen.holder().is_empty()) else {
            if self.held_term().is_some() {
                self.lose();
            }
            return self.campaign_if_due(true).await;
        };
        let live = self.leases.is_live(&seen);
        if seen.holder() == self.id() {
            match self.term {
                // It may have ended by our clock; a successful renewal proves that nobody was elected.
                Some(term) => self.shared.lease_state.still_leads(Term(term)),
                None => self.campaign_if_due(false).await,
            }
            return;
        }
        if self.held_term().is_some() {
            self.lose();
        }
        if !live {
            return self.campaign_if_due(true).await;
        }
        let leader = seen.member().map(|record| Leader { member: record.member, term: Term(seen.term()) });
        self.shared.lease_state.follow(leader);
        self.note(Task::Lead, Ok(()));
    }

    async fn campaign_if_due(&mut self, vacant: bool) {
        if vacant {
            self.shared.lease_state.follow(None);
        }
        let now = self.shared.clock.now();
        if self.candidacy.is_none() && now >= self.campaign_at && now >= self.vacant_at {
            self.campaign().await;
        }
    }

    async fn campaign(&mut self) {
        let sent = self.shared.clock.now();
        let term = self.highest + 1;
        let before = self.leases.leader().map(|seen| seen.lease.clone());
        let write = self.lease_write(&self.leader_key, ObjectRole::Leader, Some(term), true);
        let written = match write.over(before.as_ref()) {
            Ok(lease) => self.shared.requests.put(Operation::Campaign, &lease).await,
            Err(error) => Err(error.into()),
        };
        let done = match written {
            Ok(stored) => {
                self.leases.put(stored);
                self.highest = term;
                self.shared.lease_state.vouch(sent, self.shared.membership.lease);
                let shared = Arc::clone(&self.shared);
                let task = tokio::spawn(async move { shared.writer.take_over(term).await });
                self.candidacy = Some(Candidacy { term, task: AbortOnDropHandle::new(task) });
                return;
            }
            // Another one was faster; the feed shows who, or this read does.
            Err(RequestFailure::Conflict) => {
                self.read_again(&self.leader_key.clone(), ObjectRole::Leader).await.map(drop)
            }
            Err(RequestFailure::Failed(error)) => Err(error),
        };
        self.cannot_lead(done);
    }

    /// Tries again: soon, or where a person must act, after the others have had their time.
    fn cannot_lead(&mut self, why: Result<(), StoreError>) {
        let lease = self.shared.membership.lease;
        let hindered = matches!(why, Err(StoreError::Unusable(_)));
        self.campaign_at = self.shared.clock.now() + if hindered { HAND_OVER.max(lease) } else { RETRY };
        if let Err(error) = why {
            self.note(Task::Lead, Err(&error));
        }
    }

    /// Leads, if the records are ours.
    pub(super) async fn begin_term(&mut self, done: Result<TakenOver, JoinError>) {
        self.candidacy = None;
        match done {
            Ok(Ok((term, records))) => {
                self.note(Task::Lead, Ok(()));
                self.note(Task::FollowRecords, Ok(()));
                self.mirror(&records);
                if self.leases.leader().is_some_and(|seen| seen.term() != term) {
                    self.renew_by(self.shared.clock.now());
                }
                (self.term, self.highest) = (Some(term), term);
                self.shared.lease_state.lead(Term(term));
            }
            Ok(Err(RequestFailure::Conflict)) => self.cannot_lead(Ok(())),
            Ok(Err(RequestFailure::Failed(error))) => {
                if matches!(error, StoreError::Unusable(_)) {
                    // Another member may be able to, for instance one of a newer version.
                    let _ = self.write(ObjectRole::Leader, None, false).await;
                }
                self.cannot_lead(Err(error));
            }
            Err(error) => core_task::resume(error),
        }
    }

    /// Reads the Lease with this key after a write of it has met another version. Returns whether it is a newer one.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if it is another program's; it is not kept.
    pub(super) async fn read_again(&mut self, key: &str, role: ObjectRole) -> Result<bool, StoreError> {
        let found = self.shared.requests.get::<Lease>(&object_name(key)).await?;
        let Some(found) = found else {
            self.leases.remove(key);
            return Ok(false);
        };
        if let Err(error) = self.lease_write(key, role, None, true).over(Some(&found)) {
            self.leases.remove(key);
            return Err(error);
        }
        let newer = !self.leases.is_old(&found);
        self.leases.put(found);
        Ok(newer)
    }

    pub(super) async fn hand_over(&mut self) -> Result<(), StoreError> {
        let Some(term) = self.held_term() else { return Ok(()) };
        self.lose();
        self.campaign_at = self.shared.clock.now() + HAND_OVER.min(self.shared.membership.lease / 2);
        self.write(ObjectRole::Leader, Some(term), false).await.map(drop)
    }
}
