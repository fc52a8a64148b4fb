//! The contract of [`Store`]; each test runs over each backend.

use std::sync::Arc;

use bytes::Bytes;
use kubervisor::{
    adapters::store::{Batch, Leadership, RecordKey, STATE_LIMIT, Store, StoreError, Term},
    config::StoreConfig,
};
use tempfile::TempDir;

use crate::{
    etcd_server::Etcd,
    fixture::{eventually, follows, leading, open, pod, put},
    kubernetes::Cluster,
};

/// A backend that can be opened again.
pub enum Backend {
    Embedded(TempDir),
    Etcd(Box<Etcd>),
    Kubernetes(Cluster),
}

impl Backend {
    pub fn config(&self) -> StoreConfig {
        match self {
            Self::Embedded(directory) => StoreConfig::Embedded(directory.path().join("state/deep/test.redb")),
            Self::Etcd(etcd) => etcd.config(),
            Self::Kubernetes(cluster) => cluster.config(),
        }
    }

    async fn open(&self, id: &str) -> Arc<dyn Store> {
        open(&self.config(), id).await.unwrap()
    }

    /// Forgets earlier revisions, where the backend has any.
    pub async fn compact(&self) {
        if let Self::Etcd(etcd) = self {
            let mut admin = etcd.connect().await.unwrap();
            let revision = admin.get("x", None).await.unwrap().header().unwrap().revision();
            admin.compact(revision, None).await.unwrap();
        }
    }
}

macro_rules! contract {
    ($($test:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Backend::Embedded(tempfile::tempdir().unwrap())).await;
            })*
        }
        mod etcd {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Backend::Etcd(Box::new(super::Etcd::start().await))).await;
            })*
        }
        mod kubernetes {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Backend::Kubernetes(super::Cluster::start().await)).await;
            })*
        }
    };
}

contract! {
    what_is_committed_is_loaded
    deleted_records_are_gone_and_deleting_an_absent_one_is_fine
    a_batch_of_thousands_is_written_whole
    a_term_that_is_not_the_newest_writes_nothing
    followers_of_a_record_see_committed_values_and_the_last_one_wins
    a_record_that_is_too_large_is_refused_and_nothing_of_its_batch_is_written
    a_state_of_the_full_size_and_a_ledger_are_stored_together
    everything_survives_reopening_and_the_term_rises
    this_process_is_among_the_members
    who_resigned_leads_no_more_and_writes_nothing
    an_empty_batch_is_no_operation
    many_commits_at_once_are_all_written
}

async fn what_is_committed_is_loaded(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    assert!(store.load().await.unwrap().is_empty());
    let batch = Batch {
        put: [RecordKey::Sequence, RecordKey::State, RecordKey::Ledger, RecordKey::Windows, pod(1)]
            .map(|record| (record, Bytes::from(record.to_string())))
            .into(),
        delete: vec![],
    };
    store.commit(term, batch.clone()).await.unwrap();
    assert_eq!(store.load().await.unwrap(), batch.put.into_iter().collect());
}

async fn deleted_records_are_gone_and_deleting_an_absent_one_is_fine(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    store.commit(term, put(pod(1), "one")).await.unwrap();
    let batch = Batch { put: vec![(pod(2), Bytes::from("two"))], delete: vec![pod(1), pod(2), pod(3)] };
    store.commit(term, batch).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [(pod(2), Bytes::from("two"))].into());
}

async fn a_batch_of_thousands_is_written_whole(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    let value = Bytes::from(vec![b'x'; 250]);
    let batch = Batch { put: (0..10_000).map(|n| (pod(n), value.clone())).collect(), delete: vec![] };
    store.commit(term, batch).await.unwrap();
    let records = store.load().await.unwrap();
    assert_eq!(records.len(), 10_000);
    assert!(records.values().all(|stored| *stored == value));
}

async fn a_term_that_is_not_the_newest_writes_nothing(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    for stale in [Term(0), Term(term.0 - 1), Term(term.0 + 1)] {
        let refused = store.commit(stale, put(RecordKey::State, "stale")).await.unwrap_err();
        assert!(matches!(refused, StoreError::LeadershipLost(ours) if ours == stale), "{refused}");
    }
    assert!(store.load().await.unwrap().is_empty());
    assert_eq!(leading(&*store).await, term, "a stale write deposes nobody");
}

async fn followers_of_a_record_see_committed_values_and_the_last_one_wins(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    let mut seen = store.follow(RecordKey::Ledger);
    assert_eq!(*seen.borrow_and_update(), None);
    let mut values = Vec::new();
    let watching = tokio::spawn(async move {
        while values.last() != Some(&19) {
            seen.changed().await.unwrap();
            let value = seen.borrow_and_update().clone().unwrap();
            values.push(String::from_utf8_lossy(&value).parse::<u32>().unwrap());
        }
        values
    });
    for n in 0..20 {
        store.commit(term, put(RecordKey::Ledger, &n.to_string())).await.unwrap();
    }
    let values = tokio::time::timeout(crate::fixture::CAP, watching).await.unwrap().unwrap();
    assert!(values.is_sorted(), "{values:?}");
    store.commit(term, Batch { put: vec![], delete: vec![RecordKey::Ledger] }).await.unwrap();
    follows(&*store, RecordKey::Ledger, None).await;
}

async fn a_record_that_is_too_large_is_refused_and_nothing_of_its_batch_is_written(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    let mut batch = put(RecordKey::Sequence, "1");
    batch.put.push((RecordKey::State, Bytes::from(vec![0; STATE_LIMIT + 1])));
    let refused = store.commit(term, batch).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { limit: STATE_LIMIT, .. }), "{refused}");
    assert!(store.load().await.unwrap().is_empty());
}

async fn a_state_of_the_full_size_and_a_ledger_are_stored_together(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    let large = Bytes::from(vec![b'x'; STATE_LIMIT]);
    let batch = Batch {
        put: vec![(RecordKey::State, large.clone()), (RecordKey::Ledger, large.clone())],
        delete: vec![],
    };
    store.commit(term, batch).await.unwrap();
    assert_eq!(store.load().await.unwrap()[&RecordKey::State], large);
}

async fn everything_survives_reopening_and_the_term_rises(backend: Backend) {
    let mut last = Term(0);
    for round in 0..3 {
        let store = backend.open(&format!("a{round}")).await;
        let term = leading(&*store).await;
        assert!(term > last, "{term:?} after {last:?}");
        last = term;
        if round > 0 {
            follows(&*store, RecordKey::State, Some(&format!("state {}", round - 1))).await;
        }
        store.commit(term, put(RecordKey::State, &format!("state {round}"))).await.unwrap();
        store.commit(term, put(pod(round), "x")).await.unwrap();
        assert_eq!(store.load().await.unwrap().len(), usize::try_from(round).unwrap() + 2);
        store.resign().await;
    }
}

async fn this_process_is_among_the_members(backend: Backend) {
    let store = backend.open("a").await;
    leading(&*store).await;
    eventually("one member", || async {
        store.membership().borrow().iter().map(|state| state.member.address.as_str()).eq(["a:8000"])
    })
    .await;
}

async fn who_resigned_leads_no_more_and_writes_nothing(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    store.resign().await;
    assert_eq!(*store.leadership().borrow(), Leadership::Follower { leader: None });
    let refused = store.commit(term, put(RecordKey::State, "late")).await.unwrap_err();
    assert_eq!(refused.category(), "deposed");
    store.resign().await;
}

async fn an_empty_batch_is_no_operation(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    store.commit(term, Batch::default()).await.unwrap();
    assert!(store.load().await.unwrap().is_empty());
}

async fn many_commits_at_once_are_all_written(backend: Backend) {
    let store = backend.open("a").await;
    let term = leading(&*store).await;
    let commits = (0..200).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(term, put(pod(n), "x")).await })
    });
    for commit in futures::future::join_all(commits).await {
        commit.unwrap().unwrap();
    }
    assert_eq!(store.load().await.unwrap().len(), 200);
    let one = crate::yardstick::one_store_commit(&*store, term, 50).await.unwrap();
    println!("one store commit, median of 50: {one:?}");
}
