//! What a session writes: its own Leases, and by request the record of another member.

use k8s_openapi::api::coordination::v1::Lease;

use super::{
    super::{
        leases::{LeaseWrite, SeenLease},
        names::{self, ObjectRole, object_name},
        requests::RequestFailure,
    },
    HAND_OVER, KubernetesSession, delays,
};
use crate::adapters::store::{Operation, StoreError, layout::MEMBERS, membership::MemberRecord};

/// Durations after which the Lease of a member that has gone is removed.
const FORGOTTEN: u32 = 20;

impl KubernetesSession {
    /// Renews our Leases. The leader's comes first: without it our own does not prolong the leadership.
    pub(super) async fn renew(&mut self) {
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
    pub(super) async fn write(
        &mut self,
        role: ObjectRole,
        term: Option<u64>,
        held: bool,
    ) -> Result<bool, StoreError> {
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
                Err(RequestFailure::Failed(error)) => return Err(error),
                Err(RequestFailure::Conflict) => match self.shared.requests.get::<Lease>(&name).await? {
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

    /// Changes the record in a member's Lease; its holder keeps what it finds there.
    pub(super) async fn set_cordoned(&mut self, member: &str, cordoned: bool) -> Result<(), StoreError> {
        let name = object_name(&format!("{}{MEMBERS}{member}", self.shared.membership.prefix));
        for _ in 0..2 {
            let seen = self.leases.get(&name).ok_or_else(|| StoreError::no_member(member))?;
            let mut lease = seen.lease.clone();
            let mut record = seen.member().ok_or_else(|| StoreError::no_member(member))?;
            record.status.cordoned = cordoned;
            let text = serde_json::to_string(&record).unwrap_or_default();
            lease.metadata.annotations.get_or_insert_default().insert(names::MEMBER.to_owned(), text);
            match self.shared.requests.put(Operation::Publish, &lease).await {
                Ok(stored) => {
                    self.remember(stored);
                    return Ok(());
                }
                Err(RequestFailure::Failed(error)) => return Err(error),
                Err(RequestFailure::Conflict) => match self.shared.requests.get::<Lease>(&name).await? {
                    Some(found) => self.remember(found),
                    None => return Err(StoreError::no_member(member)),
                },
            }
        }
        Err(RequestFailure::Conflict.into())
    }

    pub(super) async fn hand_over(&mut self) -> Result<(), StoreError> {
        let Some(term) = self.term else { return Ok(()) };
        self.lose();
        self.campaign_at = self.shared.clock.now() + HAND_OVER.min(self.shared.membership.lease / 2);
        self.write(ObjectRole::Leader, Some(term), false).await.map(drop)
    }

    /// Frees the leader's Lease, if we hold it, and removes our own.
    pub(in super::super) async fn leave(&mut self) {
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
