//! Records as ConfigMaps: sizes, failures between two writes, and objects that a person or a newer version has changed.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kubervisor::adapters::store::{Batch, Leadership, RecordKey, Records, STATE_LIMIT, Term};
use serde_json::json;

use crate::{
    fixture::{Replica, eventually, follows, join, leading, membership, open, pod, put, until},
    kubernetes::{Cluster, HEAD, LEADER, copy, delete, edit},
    proxy::{Fault, Matching, Proxy, Refusal},
};

const CHUNK: &str = "records/chunk/0";
/// The largest object that the store makes.
const LIMIT: usize = 512 << 10;

fn bytes(byte: u8, size: usize) -> Bytes {
    Bytes::from(vec![byte; size])
}

fn remove(record: RecordKey) -> Batch {
    Batch { put: vec![], delete: vec![record] }
}

/// A leader behind a proxy.
async fn behind_a_proxy(cluster: &Cluster) -> (Proxy, Replica, Term) {
    let proxy = cluster.proxy();
    let replica = join(&cluster.config_of(proxy.kubeconfig()), membership("a")).await.unwrap();
    let term = leading(&*replica).await;
    (proxy, replica, term)
}

fn unavailable() -> Fault {
    Fault::Refuse(Refusal::internal())
}

/// Bytes of all values of an object.
fn size(map: &ConfigMap) -> usize {
    let texts = map.data.iter().flatten().map(|(name, text)| name.len() + text.len());
    let binary = map.binary_data.iter().flatten().map(|(name, value)| name.len() + value.0.len());
    texts.chain(binary).sum()
}

/// The keys of the objects that differ.
fn changed(
    before: &BTreeMap<String, Option<String>>,
    after: &BTreeMap<String, Option<String>>,
) -> Vec<String> {
    after
        .iter()
        .filter(|(key, version)| before.get(*key) != Some(version))
        .map(|(key, _)| key.clone())
        .collect()
}

/// 50 000 with `SOAK_MINUTES`, else 5 000.
#[tokio::test]
async fn tens_of_thousands_of_pods_fit_into_small_objects_and_only_what_changed_is_written() {
    let pods = if std::env::var_os("SOAK_MINUTES").is_some() { 50_000 } else { 5_000 };
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let value = Bytes::from(format!(r#"{{"payload":"{}"}}"#, "x".repeat(290)));
    for first in (0..pods).step_by(10_000) {
        let batch = (first..pods.min(first + 10_000)).map(|n| (pod(n), value.clone()));
        store.commit(term, Batch { put: batch.collect(), delete: vec![] }).await.unwrap();
    }
    let stored = Cluster::stored(&cluster.maps()).await;
    let largest = stored.iter().map(|(_, map)| size(map)).max().unwrap();
    println!("{pods} pods: {} objects, the largest {largest} bytes", stored.len());
    assert!(largest < LIMIT && stored.len() > 5);

    let before = cluster.versions().await;
    store.commit(term, put(pod(pods / 2), "changed")).await.unwrap();
    let after = cluster.versions().await;
    let written = changed(&before, &after);
    assert!(written.len() == 1 && written[0].starts_with("records/chunk/"), "{written:?}");
    store.commit(term, put(RecordKey::Sequence, "7")).await.unwrap();
    assert_eq!(changed(&after, &cluster.versions().await), [HEAD]);

    store.resign().await;
    let next = open(&cluster.config(), "b").await.unwrap();
    leading(&*next).await;
    let records = next.load().await.unwrap();
    assert_eq!(records.len(), usize::try_from(pods).unwrap() + 1);
    assert_eq!(records[&pod(pods / 2)].as_ref(), b"changed");
}

#[tokio::test]
async fn a_large_state_whose_write_failed_half_way_never_mixes_with_the_next_one() {
    let cluster = Cluster::start().await;
    let (proxy, store, term) = behind_a_proxy(&cluster).await;
    let state = |byte| Batch { put: vec![(RecordKey::State, bytes(byte, STATE_LIMIT))], delete: vec![] };
    proxy.on(Matching::verb("create").of("configmaps").nth(2), unavailable());
    assert_eq!(store.commit(term, state(b'a')).await.unwrap_err().category(), "unavailable");
    store.commit(term, state(b'b')).await.unwrap();
    assert!(store.load().await.unwrap()[&RecordKey::State] == bytes(b'b', STATE_LIMIT));
    let objects = Cluster::stored(&cluster.maps()).await;
    assert_eq!(objects.len(), 1 + 3, "the head, three parts, and nothing of the failed write");
}

#[tokio::test]
async fn a_state_that_was_large_is_not_lost_when_the_write_of_a_small_one_fails() {
    let cluster = Cluster::start().await;
    let (proxy, store, term) = behind_a_proxy(&cluster).await;
    let large = bytes(b'a', STATE_LIMIT);
    store.commit(term, Batch { put: vec![(RecordKey::State, large.clone())], delete: vec![] }).await.unwrap();
    proxy.on(Matching::verb("patch").of("configmaps").first(1), unavailable());
    assert_eq!(
        store.commit(term, put(RecordKey::State, "small")).await.unwrap_err().category(),
        "unavailable"
    );
    store.commit(term, put(RecordKey::Sequence, "8")).await.unwrap();
    let stored = store.load().await.unwrap();
    assert!(stored.get(&RecordKey::State) == Some(&large), "{:?}", stored.keys());
    store.commit(term, put(RecordKey::State, "small")).await.unwrap();
    assert_eq!(store.load().await.unwrap()[&RecordKey::State].as_ref(), b"small");
}

#[tokio::test]
async fn a_deletion_that_failed_is_carried_out_when_it_is_tried_again() {
    let cluster = Cluster::start().await;
    let (proxy, store, term) = behind_a_proxy(&cluster).await;
    store.commit(term, put(pod(1), "one")).await.unwrap();
    store.commit(term, put(pod(2), "two")).await.unwrap();
    proxy.on(Matching::verb("patch").of("configmaps").first(1), unavailable());
    assert_eq!(store.commit(term, remove(pod(1))).await.unwrap_err().category(), "unavailable");
    store.commit(term, remove(pod(1))).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [(pod(2), Bytes::from("two"))].into());
}

#[tokio::test]
async fn a_pod_that_has_moved_to_another_chunk_leaves_no_copy_that_outlives_it() {
    let cluster = Cluster::start().await;
    let (proxy, store, term) = behind_a_proxy(&cluster).await;
    let sizes = |first: usize, second: usize| Batch {
        put: vec![(pod(1), bytes(b'x', first)), (pod(2), bytes(b'y', second))],
        delete: vec![],
    };
    store.commit(term, sizes(150_000, 100_000)).await.unwrap();
    // The head, the pod in its new chunk, its removal from the old one.
    proxy.on(Matching::verb("patch").of("configmaps").nth(3), unavailable());
    let grown = Batch { put: vec![(pod(1), bytes(b'z', 400_000))], delete: vec![] };
    assert_eq!(store.commit(term, grown).await.unwrap_err().category(), "unavailable");
    assert!(store.load().await.unwrap()[&pod(1)] == bytes(b'z', 400_000), "the later copy counts");
    store.commit(term, remove(pod(1))).await.unwrap();
    let left = store.load().await.unwrap();
    assert_eq!(left.into_keys().collect::<Vec<_>>(), [pod(2)]);
}

/// The leader ends at its nth write, for each n until a batch gets through.
#[tokio::test]
async fn a_crash_between_two_writes_leaves_a_beginning_of_the_batch_and_each_record_whole() {
    let cluster = Cluster::start().await;
    let first = open(&cluster.config(), "first").await.unwrap();
    let term = leading(&*first).await;
    let batch = |generation: u8| {
        let pods = (0..3).map(|n| (pod(n), bytes(generation, 200_000)));
        let mut put =
            vec![(RecordKey::Sequence, bytes(generation, 4)), (RecordKey::Ledger, bytes(generation, 8))];
        put.push((RecordKey::State, bytes(generation, STATE_LIMIT)));
        Batch { put: pods.chain(put).collect(), delete: vec![] }
    };
    first.commit(term, batch(b'0')).await.unwrap();
    first.resign().await;
    let mut last = b'0';
    for crash in 1.. {
        let proxy = cluster.proxy();
        let store =
            join(&cluster.config_of(proxy.kubeconfig()), membership(&format!("m{crash}"))).await.unwrap();
        let term = leading(&*store).await;
        proxy.on(Matching::writes().of("configmaps").nth(crash), Fault::Before(Arc::new(|| {})));
        let generation = last + 1;
        let done = store.commit(term, batch(generation)).await;
        drop(store);
        edit(&cluster.leases(), &cluster.lease(LEADER).await, json!({"spec": {"holderIdentity": ""}})).await;
        let next = open(&cluster.config(), &format!("next{crash}")).await.unwrap();
        let term = leading(&*next).await;
        let found = next.load().await.unwrap();
        check(&found, last, generation);
        if done.is_ok() {
            println!("a batch of {crash} writes at most");
            assert!(found.values().all(|value| value[0] == generation) && crash > 6);
            return;
        }
        next.commit(term, batch(generation)).await.unwrap();
        check(&next.load().await.unwrap(), generation, generation);
        next.resign().await;
        last = generation;
    }
}

/// Each record is whole, and none is newer than one that is written before it.
fn check(found: &Records, old: u8, new: u8) {
    assert_eq!(found.len(), 6, "{:?}", found.keys());
    for (record, value) in found {
        assert!(value.iter().all(|byte| *byte == value[0]), "{record} is torn");
        assert!([old, new].contains(&value[0]));
    }
    let is_new = |record| found[&record][0] == new;
    if old != new {
        let pods = [0, 1, 2].map(|n| is_new(pod(n)));
        assert!(is_new(RecordKey::Sequence) || !pods.contains(&true), "a pod without its number");
        assert!(!pods.contains(&false) || !is_new(RecordKey::State) && !is_new(RecordKey::Ledger));
    }
}

#[tokio::test]
async fn a_pod_that_a_person_edits_in_a_chunk_is_read_as_it_is_and_its_neighbours_are_written() {
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let batch =
        Batch { put: vec![(pod(1), Bytes::from("one")), (pod(2), Bytes::from("two"))], delete: vec![] };
    store.commit(term, batch).await.unwrap();
    let chunk = cluster.map(CHUNK).await;
    let name = chunk.data.as_ref().unwrap().keys().next().unwrap().clone();
    edit(&cluster.maps(), &chunk, json!({"data": {name: "by hand"}})).await;
    store.commit(term, put(pod(2), "deux")).await.unwrap();
    let stored = store.load().await.unwrap();
    assert_eq!((stored[&pod(1)].as_ref(), stored[&pod(2)].as_ref()), (&b"by hand"[..], &b"deux"[..]));
    assert_eq!(leading(&*store).await, term);
}

#[tokio::test]
async fn a_member_of_a_chunk_that_is_no_pod_is_named_and_nobody_leads_until_it_is_gone() {
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(pod(1), "one")).await.unwrap();
    let chunk = cluster.map(CHUNK).await;
    edit(&cluster.maps(), &chunk, json!({"data": {"read-me": "do not touch"}})).await;
    store.commit(term, put(pod(2), "two")).await.unwrap();
    store.resign().await;
    let next = join(&cluster.config(), membership("b")).await.unwrap();
    let observed = next.observe();
    let text = next.complains("read-me").await;
    assert!(text.contains(&chunk.name_any()) && text.contains("remove that member"), "{text}");
    assert!(!observed.ever_led());
    edit(&cluster.maps(), &chunk, json!({"data": {"read-me": null}})).await;
    assert!(leading(&*next).await > term);
    assert_eq!(next.load().await.unwrap().len(), 2);
    eventually("no alarm", || async { next.complaint().is_none() }).await;
}

/// A person's backup: the same labels and annotations, another name.
#[tokio::test]
async fn copies_of_the_records_under_other_names_are_not_read_and_not_removed() {
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "old")).await.unwrap();
    store.commit(term, put(pod(1), "old")).await.unwrap();
    let mut copies = Vec::new();
    for key in [HEAD, CHUNK] {
        let map = cluster.map(key).await;
        // Before and after the original in the order of names.
        for name in ["a-backup".to_owned(), "zz-backup".to_owned()] {
            copies.push(copy(&cluster.maps(), &map, &format!("{name}-{}", copies.len())).await);
        }
    }
    store.commit(term, put(RecordKey::State, "new")).await.unwrap();
    store.commit(term, put(pod(1), "new")).await.unwrap();
    let check = |records: Records| assert!(records.values().all(|value| value == "new"), "{records:?}");
    check(store.load().await.unwrap());
    let follower = open(&cluster.config(), "b").await.unwrap();
    follows(&*follower, RecordKey::State, Some("new")).await;
    store.resign().await;
    assert!(leading(&*follower).await > term);
    check(follower.load().await.unwrap());
    for copy in copies {
        assert_eq!(cluster.maps().get(&copy.name_any()).await.unwrap(), copy);
    }
}

/// What the leader has in memory and what is stored must not part.
#[tokio::test]
async fn a_chunk_that_a_person_deletes_ends_the_term_at_the_next_write() {
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let batch =
        Batch { put: vec![(pod(1), Bytes::from("one")), (pod(2), Bytes::from("two"))], delete: vec![] };
    store.commit(term, batch).await.unwrap();
    delete(&cluster.maps(), &cluster.map(CHUNK).await).await;
    let lost = store.commit(term, put(pod(2), "deux")).await.unwrap_err();
    assert_eq!(lost.category(), "deposed", "{lost}");
    let newer =
        until(&*store, |now| matches!(now, Leadership::Leading { term: newer } if *newer > term)).await;
    let Leadership::Leading { term } = newer else { panic!("{newer:?}") };
    store.commit(term, put(pod(2), "deux")).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [(pod(2), Bytes::from("deux"))].into());
}
