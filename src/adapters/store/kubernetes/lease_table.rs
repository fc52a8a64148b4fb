//! The Leases of one prefix as this process has seen them.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;

use super::{
    leases::{SeenLease, annotation, check_schema, name_of},
    names::{ORIGINAL_KEY, object_name},
};
use crate::{
    adapters::store::{
        MemberState,
        layout::{LEADER, MEMBERS},
        membership::MemberRecord,
    },
    clock::Clock,
    decide::time::Moment,
};

/// Durations after which the Lease of a member that has gone is removed.
const FORGOTTEN: u32 = 20;

/// Leases by name, with the moment at which each was first seen as it is.
pub(super) struct LeaseTable {
    prefix: String,
    clock: Clock,
    /// Duration of a Lease that has none.
    default: Duration,
    /// When the last list was begun that has shown everything.
    listed_at: Moment,
    by_name: BTreeMap<String, SeenLease>,
}

impl LeaseTable {
    pub(super) fn new(prefix: &str, clock: Clock, default: Duration) -> Self {
        Self {
            prefix: prefix.to_owned(),
            clock,
            default,
            listed_at: Moment::ORIGIN,
            by_name: BTreeMap::new(),
        }
    }

    /// The leader's.
    pub(super) fn leader(&self) -> Option<&SeenLease> {
        self.get(&format!("{}{LEADER}", self.prefix))
    }

    pub(super) fn get(&self, key: &str) -> Option<&SeenLease> {
        self.by_name.get(&object_name(key))
    }

    /// When this Lease ends on our clock, unless it changes before.
    pub(super) fn end(&self, seen: &SeenLease) -> Moment {
        seen.ends(self.default)
    }

    /// Whether it has not ended: our clock alone does not tell, because a watch may be behind. A list that was begun after
    /// its end has shown it as it is.
    pub(super) fn is_live(&self, seen: &SeenLease) -> bool {
        !seen.holder().is_empty() && self.end(seen) > self.listed_at
    }

    /// Whether a Lease has ended on our clock, and a list has to show that it is still the same.
    pub(super) fn awaits_list(&self) -> bool {
        let now = self.clock.now();
        self.by_name.values().any(|seen| self.is_live(seen) && self.end(seen) <= now)
    }

    /// A list that was begun then has shown everything.
    pub(super) fn listed(&mut self, begun: Moment) {
        self.listed_at = self.listed_at.max(begun);
    }

    /// Our clock tells nothing of the time in which we were stopped: each Lease that had not ended has its full time from
    /// now on.
    pub(super) fn observe_anew(&mut self) {
        self.begin_again(1);
    }

    /// Our own lease has ended, and those of the others may have for the same reason, such as an API server that was away:
    /// each that was live has half of its time from now on to be renewed.
    pub(super) fn allow_return(&mut self) {
        self.begin_again(2);
    }

    /// Each Lease that had not ended ends after this part of its time, or later.
    fn begin_again(&mut self, part: u32) {
        let now = self.clock.now();
        for seen in self.by_name.values_mut().filter(|seen| self.listed_at < seen.ends(self.default)) {
            let duration = seen.ends(self.default).since(seen.since);
            let begun = now.since_origin().saturating_sub(duration - duration / part);
            seen.since = seen.since.max(Moment::after_origin(begun));
        }
    }

    /// The ends of all that have not ended.
    pub(super) fn ends(&self) -> impl Iterator<Item = Moment> {
        let now = self.clock.now();
        self.by_name.values().map(|seen| self.end(seen)).filter(move |end| *end > now)
    }

    /// Takes a Lease as our own request has read or written it, also where its version is older: after a restore from a
    /// backup.
    pub(super) fn put(&mut self, lease: Lease) {
        let name = name_of(&lease.metadata).to_owned();
        let kept = self.by_name.get(&name).filter(|seen| seen.lease == lease);
        let since = kept.map_or_else(|| self.clock.now(), |seen| seen.since);
        self.by_name.insert(name, SeenLease { lease, since });
    }

    /// Takes a Lease that a watch has shown; `false`: a newer version is known, or it is a copy under another name.
    pub(super) fn see(&mut self, lease: Lease) -> bool {
        let newer = has_its_name(&lease) && !self.is_old(&lease);
        if newer {
            self.put(lease);
        }
        newer
    }

    /// Whether the same object is known in a version that is as new or newer.
    pub(super) fn is_old(&self, lease: &Lease) -> bool {
        let version = |lease: &Lease| lease.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        self.by_name.get(name_of(&lease.metadata)).is_some_and(|seen| {
            seen.lease.metadata.uid == lease.metadata.uid && version(&seen.lease) >= version(lease)
        })
    }

    /// Takes a list. It is the truth, except for our own Leases, with these keys: we may have written them since.
    pub(super) fn list(&mut self, listed: Vec<Lease>, own: &[&str]) {
        let own: Vec<String> = own.iter().map(|key| object_name(key)).collect();
        let listed: Vec<Lease> = listed.into_iter().filter(has_its_name).collect();
        let is_listed = |name: &String| listed.iter().any(|lease| name_of(&lease.metadata) == name);
        self.by_name.retain(|name, _| own.contains(name) || is_listed(name));
        for lease in listed {
            if !(own.iter().any(|name| name == name_of(&lease.metadata)) && self.is_old(&lease)) {
                self.put(lease);
            }
        }
    }

    /// Takes the deletion of exactly this object; `false`: it is another one's, or known already.
    pub(super) fn delete(&mut self, lease: &Lease) -> bool {
        let name = name_of(&lease.metadata);
        let same = self.by_name.get(name).is_some_and(|seen| seen.lease.metadata.uid == lease.metadata.uid);
        same && self.by_name.remove(name).is_some()
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.by_name.remove(&object_name(key));
    }

    /// The members whose Leases have not ended.
    pub(super) fn live_members(&self) -> BTreeMap<String, MemberState> {
        let live = self.members().filter(|(_, seen)| self.is_live(seen));
        let states = live.filter_map(|(name, seen)| {
            let MemberRecord { member, status } = seen.member()?;
            Some((name.clone(), MemberState { member, status, renewed: seen.since }))
        });
        states.collect()
    }

    /// The Lease of a member that has been gone for long.
    pub(super) fn forgotten(&self) -> Option<Lease> {
        let now = self.clock.now();
        let mut gone = self.members().filter(|(_, seen)| {
            let duration = self.end(seen).since(seen.since);
            now > seen.since + duration * FORGOTTEN && check_schema("Lease", &seen.lease.metadata).is_ok()
        });
        gone.next().map(|(_, seen)| seen.lease.clone())
    }

    fn members(&self) -> impl Iterator<Item = (&String, &SeenLease)> {
        let start = format!("{}{MEMBERS}", self.prefix);
        self.by_name.iter().filter(move |(_, seen)| {
            annotation(&seen.lease, ORIGINAL_KEY).is_some_and(|key| key.starts_with(&start))
        })
    }
}

/// Whether its name is made from its key; a copy under another name, such as a person's, is none of ours.
fn has_its_name(lease: &Lease) -> bool {
    annotation(lease, ORIGINAL_KEY).is_none_or(|key| object_name(key) == name_of(&lease.metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LEASE: Duration = Duration::from_secs(3);

    /// A table that has seen the Lease of the member `a`, and that Lease.
    fn table() -> (LeaseTable, Lease) {
        let key = format!("/x/{MEMBERS}a");
        let record = json!({"id": "a", "address": "10.0.0.1:1"}).to_string();
        let lease = json!({
            "metadata": {"name": object_name(&key), "uid": "1", "resourceVersion": "7",
                "annotations": {ORIGINAL_KEY: key, "kubervisor.k8s.io/member": record}},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": LEASE.as_secs()},
        });
        let lease: Lease = serde_json::from_value(lease).unwrap();
        let mut table = LeaseTable::new("/x/", Clock::start(), LEASE);
        table.put(lease.clone());
        (table, lease)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_only_when_a_list_that_was_begun_after_its_time_shows_it_unchanged() {
        let (mut table, mut lease) = table();
        table.listed(table.clock.now());
        tokio::time::advance(LEASE).await;
        assert!(table.awaits_list());
        assert_eq!(table.live_members().len(), 1, "the watch may be behind");
        lease.metadata.resource_version = Some("8".to_owned());
        table.list(vec![lease.clone()], &[]);
        table.listed(table.clock.now());
        assert!(!table.awaits_list() && table.live_members().len() == 1, "it was renewed");
        tokio::time::advance(LEASE).await;
        table.list(vec![lease], &[]);
        table.listed(table.clock.now());
        assert!(!table.awaits_list() && table.live_members().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_time_in_which_nothing_could_be_seen_each_lease_has_its_full_time_again() {
        let (mut table, _) = table();
        tokio::time::advance(LEASE * 1200).await;
        table.observe_anew();
        table.listed(table.clock.now());
        assert_eq!((table.awaits_list(), table.live_members().len()), (false, 1));
        tokio::time::advance(LEASE).await;
        table.listed(table.clock.now());
        assert!(table.live_members().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_our_own_lease_has_ended_each_other_one_has_half_of_its_time_to_return() {
        let (mut table, _) = table();
        tokio::time::advance(LEASE * 2).await;
        table.allow_return();
        table.listed(table.clock.now());
        assert_eq!((table.awaits_list(), table.live_members().len()), (false, 1));
        tokio::time::advance(LEASE / 2).await;
        table.listed(table.clock.now());
        assert!(table.live_members().is_empty());
        table.allow_return();
        assert!(table.live_members().is_empty(), "it had ended before");
    }
}
