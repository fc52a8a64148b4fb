//! Names of records below the prefix, the same in every backend, and the checks before a write.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;

use super::{Batch, RECORD_LIMIT, RecordKey, StoreError};

/// The key of the elected member's record, below the prefix.
pub(super) const LEADER: &str = "election/leader";

/// Start of the member records' keys, below the prefix.
pub(super) const MEMBERS: &str = "members/";

const PODS: &str = "pods/";

/// The records that exist once; they are always followed.
pub(super) const SINGLES: [RecordKey; 4] =
    [RecordKey::Sequence, RecordKey::State, RecordKey::Ledger, RecordKey::Windows];

impl fmt::Display for RecordKey {
    /// The record's name below the prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "{PODS}{key}"),
            Self::Sequence => f.write_str("seq"),
            Self::State => f.write_str("state"),
            Self::Ledger => f.write_str("ledger"),
            Self::Windows => f.write_str("windows"),
        }
    }
}

/// The record with this `name` below the prefix; `None` for members, the election and unknown names.
pub(super) fn record(name: &str) -> Result<Option<RecordKey>, StoreError> {
    if let Some(key) = name.strip_prefix(PODS) {
        return key.parse().map(|key| Some(RecordKey::Pod(key))).map_err(|error| {
            StoreError::Unusable(format!(
                "it holds a pod under {name:?}: {error}; remove that key, or name another prefix"
            ))
        });
    }
    Ok(SINGLES.into_iter().find(|single| single.to_string() == name))
}

/// One write per record, in the order in which they must become durable; `None` deletes.
pub(super) type Writes = Vec<(RecordKey, Option<Bytes>)>;

/// Orders the writes of `batch`: sequence, pods, state, ledger, windows.
pub(super) fn writes(batch: Batch) -> Result<Writes, StoreError> {
    let mut writes: BTreeMap<RecordKey, Option<Bytes>> = BTreeMap::new();
    for record in batch.delete {
        writes.insert(record, None);
    }
    for (record, value) in batch.put {
        if value.len() > RECORD_LIMIT {
            return Err(StoreError::TooLarge {
                what: record.to_string(),
                size: value.len(),
                limit: RECORD_LIMIT,
            });
        }
        writes.insert(record, Some(value));
    }
    Ok(writes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::decide::key::Key;

    fn pod(last: u8) -> RecordKey {
        RecordKey::Pod(Key::of(Ipv4Addr::new(10, 0, 0, last)))
    }

    #[test]
    fn every_record_is_found_again_by_its_name() {
        for key in [pod(1), RecordKey::Sequence, RecordKey::State, RecordKey::Ledger, RecordKey::Windows] {
            assert_eq!(record(&key.to_string()).unwrap(), Some(key));
        }
    }

    #[test]
    fn names_of_others_are_no_records_and_a_pod_that_is_none_is_refused() {
        for name in [LEADER, "members/a", "term", "later"] {
            assert_eq!(record(name).unwrap(), None);
        }
        assert_eq!(record("pods/not-a-key").unwrap_err().category(), "unusable");
    }

    #[test]
    fn the_sequence_comes_before_pods_and_a_put_wins_over_a_delete() {
        let batch = Batch {
            put: vec![(pod(2), Bytes::from("b")), (RecordKey::Sequence, Bytes::from("3"))],
            delete: vec![pod(2), pod(1)],
        };
        let order = writes(batch).unwrap();
        assert_eq!(
            order,
            vec![
                (RecordKey::Sequence, Some(Bytes::from("3"))),
                (pod(1), None),
                (pod(2), Some(Bytes::from("b")))
            ]
        );
    }

    #[test]
    fn a_value_over_the_limit_is_refused_with_its_name_and_both_sizes() {
        let batch =
            Batch { put: vec![(RecordKey::State, Bytes::from(vec![0; RECORD_LIMIT + 1]))], delete: vec![] };
        let error = writes(batch).unwrap_err();
        assert_eq!(error.to_string(), "state has 1048577 bytes; at most 1048576 are stored");
    }
}
