//! The requests of a session, each under the store's deadline.

use std::{iter, time::Duration};

use bytes::Bytes;
use etcd_client::{
    Client, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp, TxnOpResponse,
};

use super::{
    super::{EtcdShared, connect, refusal},
    SessionEnd, SessionStart,
};
use crate::adapters::store::{Member, Operation, RecordKey, StoreError, layout::LEADER};

/// Records in one transaction of reads.
const READS: usize = 100;

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

/// Reads the leader, our own member record and every followed record.
pub(super) async fn read(shared: &EtcdShared, client: &Client) -> Result<SessionStart, SessionEnd> {
    let records = shared.mirror.followed();
    fetch(shared, client, &records).await
}

/// Reads `records` into the mirror, with the leader and our own member record.
pub(super) async fn fetch(
    shared: &EtcdShared,
    client: &Client,
    records: &[RecordKey],
) -> Result<SessionStart, SessionEnd> {
    let mut view = None;
    let chunks = records.chunks(READS).map(Some);
    for chunk in chunks.chain(iter::once(None).take(usize::from(records.is_empty()))) {
        let chunk = chunk.unwrap_or_default();
        shared.metrics.asked(Operation::Follow);
        let names = [shared.key(LEADER), shared.member_key()];
        let gets = names.into_iter().chain(chunk.iter().map(|record| shared.key(record)));
        let reads = Txn::new().and_then(gets.map(|key| TxnOp::get(key, None)).collect::<Vec<_>>());
        let answer = ask(shared, "read what is followed", connect::reader(client).txn(reads)).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        let mut found = answer.op_responses().into_iter().map(|response| first_of([response]));
        let (leader, own) = (found.next().flatten(), found.next().flatten());
        for (record, kv) in chunk.iter().zip(found) {
            shared.mirror.set(*record, kv.map(|kv| Bytes::copy_from_slice(kv.value())));
        }
        let own = own.is_some_and(|own| Some(own.lease()) == shared.lease());
        view.get_or_insert(SessionStart { revision, leader, is_member: own });
    }
    view.ok_or(SessionEnd::Stale("nothing was read"))
}

pub(super) fn first_of(responses: impl IntoIterator<Item = TxnOpResponse>) -> Option<KeyValue> {
    match responses.into_iter().next()? {
        TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
        _ => None,
    }
}

pub(super) fn own_record(shared: &EtcdShared) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&shared.membership.member)
        .map_err(|error| StoreError::Unusable(format!("our member record: {error}")))
}

/// The member that a record under `members/` or the election key describes.
pub(in super::super) fn member(kv: &KeyValue) -> Result<Member, StoreError> {
    serde_json::from_slice(kv.value()).map_err(|error| {
        StoreError::Unusable(format!("etcd: {}: {error}; remove that key", String::from_utf8_lossy(kv.key())))
    })
}
