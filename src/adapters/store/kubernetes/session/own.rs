//! What a session writes: its own Leases, and by request the record of another member.

use super::{
    super::{
        leases::{LeaseWrite, SeenLease, check_schema, name_of},
        names::{self, ObjectRole},
        requests::RequestFailure,
    },
    KubernetesSession, RETRY, Task, delays,
};
use crate::adapters::store::{
    Operation, StoreError, layout::MEMBERS, lease::RENEWALS, membership::MemberRecord,
};

/// Attempts to remove our own Lease at a stop, while it changes in between.
const REMOVALS: usize = 5;

impl KubernetesSession {
    /// Renews our Leases. The leader's comes first: without it our own does not prolong the leadership.
    pub(super) async fn renew(&mut self) {
        let (clock, lease) = (self.shared.clock, self.shared.membership.lease);
        let sent = clock.now();
        let done = self.write_both().await;
        self.note(Task::Renew, done.as_ref().copied());
        if done.is_ok() {
            self.shared.lease_state.vouch(sent, lease);
            (self.renew_at, self.delays) = (sent + lease / RENEWALS, delays(lease));
            self.remove_forgotten().await;
        } else {
            self.renew_at = clock.now() + self.delays.next().unwrap_or(lease / 8);
        }
    }

    async fn write_both(&mut self) -> Result<(), StoreError> {
        self.read_if_unanswered().await?;
        if let Some(term) = self.held_term()
            && !self.write(ObjectRole::Leader, Some(term), true).await?
        {
            self.lose();
        }
        self.write_member().await
    }

    /// Writes that arrive and whose answers do not would keep us a member for the others, while our lease ends on our clock
    /// and we do nothing: after a write without an answer the next request is a read.
    async fn read_if_unanswered(&mut self) -> Result<(), StoreError> {
        if self.unanswered {
            self.read_again(&self.member_key.clone(), ObjectRole::Member).await?;
            self.unanswered = false;
        }
        Ok(())
    }

    async fn write_member(&mut self) -> Result<(), StoreError> {
        let changing =
            || StoreError::Unavailable("Kubernetes: our member Lease changes all the time".to_owned());
        self.write(ObjectRole::Member, None, true).await?.then_some(()).ok_or_else(changing)
    }

    /// Stores our status; after an error soon again.
    pub(super) async fn publish(&mut self) -> Result<(), StoreError> {
        let done = match self.read_if_unanswered().await {
            Ok(()) => self.write_member().await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.renew_by(self.shared.clock.now() + RETRY);
        }
        self.shared.metrics.judged(done)
    }

    /// Writes a Lease of ours; with `held` only if it is ours still. `false`: it is not, or the leader's is not as we have
    /// left it but older or gone, which ends the term.
    pub(super) async fn write(
        &mut self,
        role: ObjectRole,
        term: Option<u64>,
        held: bool,
    ) -> Result<bool, StoreError> {
        let key = if role == ObjectRole::Leader { &self.leader_key } else { &self.member_key }.clone();
        for _ in 0..2 {
            let before = self.leases.get(&key).map(|seen| seen.lease.clone());
            let lease = self.lease_write(&key, role, term, held).over(before.as_ref())?;
            let operation = if held { Operation::Lease } else { Operation::Campaign };
            match self.shared.requests.put(operation, &lease).await {
                Ok(stored) => {
                    self.leases.put(stored);
                    return Ok(true);
                }
                Err(RequestFailure::Failed(error)) => {
                    self.unanswered = true;
                    return Err(error);
                }
                // A person has edited or deleted it, or the answer to our own write was lost.
                Err(RequestFailure::Conflict) => {
                    let newer = self.read_again(&key, role).await?;
                    self.adopt_own();
                    let ours = self.leases.leader().is_some_and(|seen| seen.holder() == self.id());
                    if role == ObjectRole::Leader && !(newer && ours) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    pub(super) fn lease_write<'a>(
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

    /// As leader: removes the Lease of a member that has been gone for long, exactly as it was seen.
    async fn remove_forgotten(&mut self) {
        let Some(gone) = self.leases.forgotten().filter(|_| self.term.is_some()) else { return };
        tracing::info!(lease = name_of(&gone.metadata), "removing the Lease of a member that has gone");
        if self.shared.requests.delete(&gone).await.is_ok() {
            self.leases.delete(&gone);
        }
    }

    /// Changes the record in a member's Lease; its holder keeps what it finds there.
    pub(super) async fn set_cordoned(&mut self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        let key = format!("{}{MEMBERS}{member}", self.shared.membership.prefix);
        for _ in 0..2 {
            let seen = self.leases.get(&key).ok_or_else(|| StoreError::no_member(member))?;
            let mut lease = seen.lease.clone();
            check_schema("Lease", &lease.metadata)?;
            let mut record = seen.member().ok_or_else(|| StoreError::no_member(member))?;
            record.status.cordoned = cordoned;
            let text = serde_json::to_string(&record).unwrap_or_default();
            lease.metadata.annotations.get_or_insert_default().insert(names::MEMBER.to_owned(), text);
            match self.shared.requests.put(Operation::Publish, &lease).await {
                Ok(stored) => {
                    self.leases.put(stored);
                    self.adopt_own();
                    return Ok(());
                }
                Err(RequestFailure::Failed(error)) => return Err(error),
                Err(RequestFailure::Conflict) => drop(self.read_again(&key, ObjectRole::Member).await?),
            }
        }
        Err(RequestFailure::Conflict.into())
    }

    /// Frees the leader's Lease, if we hold it, and removes our own. Both are read first: a write that was under way when
    /// the stop came may have arrived or not.
    pub(in super::super) async fn leave(&mut self) {
        self.candidacy = None;
        let freed = self.free_lead().await;
        let removed = self.remove_own().await;
        if let Err(error) = freed.and(removed) {
            tracing::warn!(%error, "our Leases run out by themselves, until then nobody takes over");
        }
    }

    async fn free_lead(&mut self) -> Result<(), StoreError> {
        self.read_again(&self.leader_key.clone(), ObjectRole::Leader).await?;
        let held = self.leases.leader().filter(|seen| seen.holder() == self.id()).map(SeenLease::term);
        match held {
            Some(term) => self.write(ObjectRole::Leader, Some(term.max(self.highest)), false).await.map(drop),
            None => Ok(()),
        }
    }

    async fn remove_own(&mut self) -> Result<(), StoreError> {
        let key = self.member_key.clone();
        for _ in 0..REMOVALS {
            self.read_again(&key, ObjectRole::Member).await?;
            let Some(own) = self.leases.get(&key).map(|seen| seen.lease.clone()) else { return Ok(()) };
            match self.shared.requests.delete(&own).await {
                Ok(()) => return Ok(()),
                Err(RequestFailure::Failed(error)) => return Err(error),
                // The write arrived only now, or a person has edited it.
                Err(RequestFailure::Conflict) => {}
            }
        }
        Err(RequestFailure::Conflict.into())
    }
}
