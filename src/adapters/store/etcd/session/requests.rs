//! The requests of a session, each under the store's deadline.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use etcd_client::{
    Client, GetOptions, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp, TxnOpResponse,
};

use super::{
    super::{EtcdShared, connect, refusal},
    SessionEnd, SessionStart,
};
use crate::adapters::store::{
    Member, MemberState, Operation, StoreError,
    layout::{LEADER, MEMBERS, SINGLES},
    membership::MemberRecord,
};

/// Renews the lease that we have, or takes a new one.
pub(super) async fn join(
    shared: &EtcdShared,
    client: &Client,
) -> Result<(i64, Duration, LeaseKeeper, LeaseKeepAliveStream), SessionEnd> {
    let lease = match shared.lease() {
        Some(lease) => lease,
        None => grant(shared, client).await?,
    };
    shared.metrics.asked(Operation::Lease);
    let mut leases = client.lease_client();
    let (mut keeper, mut renewals) = ask(shared, "renew the lease", leases.keep_alive(lease)).await?;
    // Only the second answer carries the lease's time to live.
    let sent = shared.clock.now();
    ask(shared, "renew the lease", keeper.keep_alive()).await?;
    let answer = ask(shared, "renew the lease", renewals.message()).await?;
    match answer.map(|answer| u64::try_from(answer.ttl()).unwrap_or(0)) {
        Some(seconds) if seconds > 0 => {
            let ttl = Duration::from_secs(seconds);
            shared.lease_state.vouch(sent, ttl);
            Ok((lease, ttl, keeper, renewals))
        }
        _ => Err(forfeit(shared)),
    }
}

pub(super) async fn grant(shared: &EtcdShared, client: &Client) -> Result<i64, SessionEnd> {
    shared.metrics.asked(Operation::Lease);
    let seconds = shared.membership.lease.as_millis().div_ceil(1000).max(1);
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let granted = ask(shared, "take a lease", client.lease_client().grant(seconds, None)).await?;
    shared.set_lease(Some(granted.id()));
    Ok(granted.id())
}

pub(super) async fn register(shared: &EtcdShared, client: &Client, lease: i64) -> Result<(), SessionEnd> {
    let options = PutOptions::new().with_lease(lease);
    let (key, value) = (shared.member_key(), own_record(shared)?);
    ask(shared, "register", client.kv_client().put(key, value, Some(options))).await.map(drop)
}

/// Records the loss of the lease, and with it of membership and leadership.
pub(super) fn forfeit(shared: &EtcdShared) -> SessionEnd {
    shared.set_lease(None);
    shared.lease_state.forfeit();
    SessionEnd::Stale("our lease has run out")
}

/// One request under the deadline; any answer that the lease is gone ends the session.
pub(super) async fn ask<T>(
    shared: &EtcdShared,
    what: &'static str,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, SessionEnd> {
    match tokio::time::timeout(shared.deadline(), request).await {
        Ok(answer) => answer.map_err(|error| lost(shared, what, &error)),
        Err(_) => Err(SessionEnd::Lost(shared.overdue(what))),
    }
}

pub(super) fn lost(shared: &EtcdShared, what: &'static str, error: &etcd_client::Error) -> SessionEnd {
    if refusal::is_lease_gone(error) {
        return forfeit(shared);
    }
    SessionEnd::Lost(refusal::explain(what, error))
}

/// Reads the leader, the members and every followed record at one revision.
pub(super) async fn read(shared: &EtcdShared, client: &Client) -> Result<SessionStart, SessionEnd> {
    shared.metrics.asked(Operation::Follow);
    let singles = SINGLES.into_iter().map(|record| TxnOp::get(shared.key(record), None));
    let members = TxnOp::get(shared.key(MEMBERS), Some(GetOptions::new().with_prefix()));
    let gets = [TxnOp::get(shared.key(LEADER), None), members].into_iter().chain(singles);
    let reads = Txn::new().and_then(gets.collect::<Vec<_>>());
    let answer = ask(shared, "read what is followed", connect::reader(client).txn(reads)).await?;
    let revision = answer.header().map_or(0, |header| header.revision());
    let mut found = answer.op_responses().into_iter().map(kvs);
    let leader = found.next().and_then(|kvs| kvs.into_iter().next());
    let members = found.next().unwrap_or_default();
    let is_ours =
        |kv: &KeyValue| Some(kv.lease()) == shared.lease() && kv.key() == shared.member_key().as_bytes();
    let is_member = members.iter().any(is_ours);
    let mut states = BTreeMap::new();
    for kv in &members {
        let name = kv.key().strip_prefix(shared.membership.prefix.as_bytes()).unwrap_or_default();
        states.insert(String::from_utf8_lossy(name).into_owned(), state(shared, kv)?);
    }
    shared.members.replace(states);
    for (record, kvs) in SINGLES.into_iter().zip(found) {
        shared.mirror.set(record, kvs.first().map(|kv| Bytes::copy_from_slice(kv.value())));
    }
    Ok(SessionStart { revision, leader, is_member })
}

pub(super) fn first_of(responses: impl IntoIterator<Item = TxnOpResponse>) -> Option<KeyValue> {
    responses.into_iter().next().and_then(|response| kvs(response).into_iter().next())
}

fn kvs(response: TxnOpResponse) -> Vec<KeyValue> {
    match response {
        TxnOpResponse::Get(mut found) => found.take_kvs(),
        _ => Vec::new(),
    }
}

/// Our member record.
pub(in super::super) fn own_record(shared: &EtcdShared) -> Result<Vec<u8>, StoreError> {
    let (member, status) = (shared.membership.member.clone(), shared.status.lock().clone());
    serde_json::to_vec(&MemberRecord { member, status })
        .map_err(|error| StoreError::Unusable(format!("our member record: {error}")))
}

/// A member's record, with that changed.
pub(in super::super) fn cordoned(kv: &KeyValue, cordoned: bool) -> Result<Vec<u8>, StoreError> {
    let mut record = record(kv)?;
    record.status.cordoned = cordoned;
    serde_json::to_vec(&record).map_err(|error| StoreError::Unusable(format!("the member's record: {error}")))
}

/// The member whose record the election key holds.
pub(super) fn leader(kv: &KeyValue) -> Result<Member, StoreError> {
    record(kv).map(|record| record.member)
}

/// The state of the member with this record.
pub(super) fn state(shared: &EtcdShared, kv: &KeyValue) -> Result<MemberState, StoreError> {
    let MemberRecord { member, status } = record(kv)?;
    Ok(MemberState { member, status, renewed: shared.clock.now() })
}

fn record(kv: &KeyValue) -> Result<MemberRecord, StoreError> {
    serde_json::from_slice(kv.value()).map_err(|error| {
        StoreError::Unusable(format!("etcd: {}: {error}; remove that key", String::from_utf8_lossy(kv.key())))
    })
}
