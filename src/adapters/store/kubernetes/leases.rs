//! A Lease as this store reads and writes it.
//!
//! `renewTime` is written for people and other tools; it is never compared with a clock of ours.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::names::{self, MEMBER, ORIGINAL_KEY, ObjectRole, TERM};
use crate::{
    adapters::store::{SCHEMA, StoreError, membership::MemberRecord},
    decide::time::{Moment, Timestamp},
};

/// A Lease, and since when it has been like this.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenLease {
    pub(super) lease: Lease,
    /// When this process first saw this version.
    pub(super) since: Moment,
}

impl SeenLease {
    /// The holder's identity; empty: free.
    pub(super) fn holder(&self) -> &str {
        self.spec().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    /// When it ends on our clock, unless it changes before. Its holder has promised to renew it within its duration.
    pub(super) fn ends(&self, default: Duration) -> Moment {
        let seconds = self.spec().and_then(|spec| spec.lease_duration_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        self.since + seconds.map_or(default, Duration::from_secs)
    }

    /// The leader's term; 0 where a person has removed it.
    pub(super) fn term(&self) -> u64 {
        annotation(&self.lease, TERM).and_then(|term| term.parse().ok()).unwrap_or(0)
    }

    /// The record of the member or leader that holds it; `None` if a person has given it to somebody else.
    pub(super) fn member(&self) -> Option<MemberRecord> {
        let record: MemberRecord = serde_json::from_str(annotation(&self.lease, MEMBER)?).ok()?;
        (record.member.id == self.holder()).then_some(record)
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.spec.as_ref()
    }
}

/// What a write of a Lease says.
pub(super) struct LeaseWrite<'a> {
    /// The key that names it.
    pub(super) key: &'a str,
    pub(super) prefix: &'a str,
    pub(super) role: ObjectRole,
    /// Its holder; empty: it is given up.
    pub(super) holder: &'a str,
    pub(super) record: MemberRecord,
    pub(super) duration: Duration,
    pub(super) now: Timestamp,
    /// The leader's term.
    pub(super) term: Option<u64>,
}

impl LeaseWrite<'_> {
    /// The Lease after the write; `before`: as it is stored.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when another key's Lease, or another program's, has this name, or a newer version of ours
    /// has written it.
    pub(super) fn over(&self, before: Option<&Lease>) -> Result<Lease, StoreError> {
        let mut lease = before.cloned().unwrap_or_default();
        if before.is_some() {
            self.check_owner(&lease)?;
        }
        let old = lease.spec.take().unwrap_or_default();
        let acquired = old.holder_identity.as_deref() != Some(self.holder);
        let now = micro_time(self.now);
        let seconds = i32::try_from(self.duration.as_millis().div_ceil(1000).max(1)).unwrap_or(i32::MAX);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            acquire_time: if acquired && !self.holder.is_empty() { now.clone() } else { old.acquire_time },
            renew_time: now,
            lease_transitions: Some(
                old.lease_transitions.unwrap_or(0) + i32::from(acquired && !self.holder.is_empty()),
            ),
            ..old
        });
        let meta = &mut lease.metadata;
        meta.name = Some(names::object_name(self.key));
        meta.managed_fields = None;
        meta.labels.get_or_insert_default().extend(names::labels(self.prefix, self.role));
        meta.annotations.get_or_insert_default().extend(self.annotations()?);
        Ok(lease)
    }

    fn annotations(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let record = serde_json::to_string(&self.record)
            .map_err(|error| StoreError::Unusable(format!("our member record: {error}")))?;
        let mut annotations = BTreeMap::from([
            (ORIGINAL_KEY.to_owned(), self.key.to_owned()),
            (names::SCHEMA.to_owned(), SCHEMA.to_string()),
            (MEMBER.to_owned(), record),
        ]);
        annotations.extend(self.term.map(|term| (TERM.to_owned(), term.to_string())));
        Ok(annotations)
    }

    fn check_owner(&self, lease: &Lease) -> Result<(), StoreError> {
        let name = name_of(&lease.metadata);
        if !is_named_by(lease, self.key, self.prefix, self.role) {
            return Err(StoreError::Unusable(format!(
                "Lease {name} is another program's: it lacks the annotation {ORIGINAL_KEY}: {:?}; remove it, or name another \
                 cluster",
                self.key,
            )));
        }
        // A member's Lease is its own process's, whatever a person has made of it.
        if self.role == ObjectRole::Leader { check_schema("Lease", &lease.metadata) } else { Ok(()) }
    }
}

/// Whether the Lease is the one with this key: by its annotation, or where a person has removed that, by its labels.
fn is_named_by(lease: &Lease, key: &str, prefix: &str, role: ObjectRole) -> bool {
    annotation(lease, ORIGINAL_KEY).map_or_else(
        || {
            let labels = lease.metadata.labels.as_ref();
            let has = |(label, value)| labels.and_then(|labels| labels.get(label)) == Some(value);
            names::labels(prefix, role).iter().all(has)
        },
        |found| found == key,
    )
}

pub(super) fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// An object of a newer schema is not written, and a ConfigMap is not read: what this version does not know would be lost.
///
/// # Errors
/// [`StoreError::Unusable`] with the object's name and both schemas.
pub(super) fn check_schema(kind: &str, meta: &ObjectMeta) -> Result<(), StoreError> {
    let schema = meta.annotations.as_ref().and_then(|all| all.get(names::SCHEMA));
    match schema {
        Some(schema) if !schema.parse().is_ok_and(|known: u32| known <= SCHEMA) => {
            Err(StoreError::Unusable(format!(
                "{kind} {} has schema {schema}, and this version knows {SCHEMA}: it is left alone; update this replica",
                name_of(meta)
            )))
        }
        _ => Ok(()),
    }
}

pub(super) fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn micro_time(at: Timestamp) -> Option<MicroTime> {
    k8s_openapi::jiff::Timestamp::from_millisecond(at.unix_millis()).ok().map(MicroTime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::store::{Member, MemberStatus};

    fn write<'a>(holder: &'a str, record: &MemberRecord, millis: i64) -> LeaseWrite<'a> {
        LeaseWrite {
            key: "/x/leader",
            prefix: "/x/",
            role: ObjectRole::Leader,
            holder,
            record: record.clone(),
            duration: Duration::from_secs(15),
            now: Timestamp::from_unix_millis(millis),
            term: Some(7),
        }
    }

    fn record(id: &str) -> MemberRecord {
        let member = Member { id: id.to_owned(), address: "10.0.0.1:8000".to_owned(), pod: "uid".to_owned() };
        MemberRecord { member, status: MemberStatus::default() }
    }

    #[test]
    fn the_time_of_acquisition_stays_with_renewals_and_each_new_holder_counts_as_a_transition() {
        let record = record("a");
        let first = write("a", &record, 1_000).over(None).unwrap();
        let renewed = write("a", &record, 2_000).over(Some(&first)).unwrap();
        let (before, after) = (first.spec.clone().unwrap(), renewed.spec.clone().unwrap());
        assert_eq!(before.acquire_time, after.acquire_time);
        assert_ne!(before.renew_time, after.renew_time);
        assert_eq!((before.lease_transitions, after.lease_transitions), (Some(1), Some(1)));
        let free = write("", &record, 3_000).over(Some(&renewed)).unwrap();
        assert_eq!(free.spec.as_ref().unwrap().lease_transitions, Some(1));
        let next = write("b", &record, 4_000).over(Some(&free)).unwrap().spec.unwrap();
        assert_eq!((next.lease_transitions, next.acquire_time), (Some(2), next.renew_time));
    }

    #[test]
    fn a_lease_of_another_program_is_refused_by_name() {
        let record = record("a");
        let mut lease = write("a", &record, 1).over(None).unwrap();
        lease.metadata.annotations = None;
        assert!(write("a", &record, 2).over(Some(&lease)).is_ok(), "its labels tell that it is ours");
        lease.metadata.labels = None;
        let error = write("a", &record, 2).over(Some(&lease)).unwrap_err();
        assert!(error.to_string().contains("Lease kubervisor-x-leader-"), "{error}");
    }

    #[test]
    fn a_holder_that_is_not_in_the_record_has_none() {
        let record = record("a");
        let mut lease = write("a", &record, 1).over(None).unwrap();
        let seen = |lease: &Lease| SeenLease { lease: lease.clone(), since: Moment::ORIGIN };
        assert!(seen(&lease).member().is_some());
        lease.spec.as_mut().unwrap().holder_identity = Some("a person".to_owned());
        assert_eq!(seen(&lease).member(), None);
    }

    #[test]
    fn what_a_lease_says_of_its_times_does_not_move_its_end() {
        let record = record("a");
        let lease = write("a", &record, i64::MAX / 2_000_000).over(None).unwrap();
        let since = Moment::after_origin(Duration::from_secs(100));
        let seen = SeenLease { lease, since };
        assert_eq!(seen.ends(Duration::from_secs(60)), since + Duration::from_secs(15));
        assert_eq!(seen.member().unwrap(), record);
        assert_eq!((seen.term(), seen.holder()), (7, "a"));
    }
}
