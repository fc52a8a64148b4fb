//! Batches as guarded transactions, within etcd's limits.
//!
//! A transaction may hold 128 operations, and an operation may itself be a transaction: 64 inner transactions of 64
//! writes make 4096 atomic writes in one request.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use crate::adapters::store::{Term, layout::Writes};

/// Operations that a plain transaction may hold.
const OPERATIONS: usize = 128;

/// With `INNER` transactions in one, each may hold `OPERATIONS - INNER` writes.
const INNER: usize = 64;

/// Bytes of keys and values in one request; etcd's default limit is 1.5 MiB.
const BYTES: usize = 1_400_000;

/// Bytes of a write beside key and value.
const OVERHEAD: usize = 32;

/// Splits `writes` into as few requests as the limits allow, in order.
pub(super) fn parts(prefix: &str, writes: Writes) -> Vec<Vec<TxnOp>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (record, value) in writes {
        let key = format!("{prefix}{record}");
        let cost = key.len() + value.as_ref().map_or(0, bytes::Bytes::len) + OVERHEAD;
        if !part.is_empty() && (part.len() == INNER * (OPERATIONS - INNER) || bytes + cost > BYTES) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += cost;
        part.push(match value {
            Some(value) => TxnOp::put(key, value, None),
            None => TxnOp::delete(key, None),
        });
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// The transaction that writes `part` if the election key is still the one of `term`.
pub(super) fn guarded(leader: &str, term: Term, part: Vec<TxnOp>) -> Txn {
    let revision = i64::try_from(term.0).unwrap_or(i64::MAX);
    let ours = Compare::create_revision(leader, CompareOp::Equal, revision);
    let operations = if part.len() <= OPERATIONS {
        part
    } else {
        part.chunks(OPERATIONS - INNER).map(|inner| TxnOp::txn(Txn::new().and_then(inner))).collect()
    };
    Txn::new().when([ours]).and_then(operations)
}

/// The end of the range of keys that begin with `prefix`, which ends in a slash.
pub(super) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{adapters::store::RecordKey, decide::key::Key};

    fn pods(count: u32, size: usize) -> Writes {
        let value = Bytes::from(vec![b'x'; size]);
        (0..count).map(|n| (RecordKey::Pod(Key::of(n.into())), Some(value.clone()))).collect()
    }

    #[test]
    fn four_thousand_pods_are_one_request_and_more_are_split() {
        assert_eq!(parts("/p/", pods(4096, 200)).len(), 1);
        assert_eq!(parts("/p/", pods(4097, 200)).iter().map(Vec::len).collect::<Vec<_>>(), [4096, 1]);
    }

    #[test]
    fn a_request_stays_below_the_size_that_etcd_takes() {
        let split = parts("/p/", pods(30, 100_000));
        assert_eq!(split.iter().map(Vec::len).collect::<Vec<_>>(), [13, 13, 4]);
    }

    #[test]
    fn an_empty_batch_is_no_request() {
        assert!(parts("/p/", Vec::new()).is_empty());
    }

    #[test]
    fn the_range_of_a_prefix_ends_right_after_it() {
        assert_eq!(range_end("/kontrol/a/"), b"/kontrol/a0");
    }
}
