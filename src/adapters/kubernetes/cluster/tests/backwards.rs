//! Rewinds: versions that run backwards drop the caches.

use super::{
    super::{Cluster, Feed, SharedText, state::State},
    Kind, pod, web,
};
use crate::{clock::Clock, decide::time::Moment};

fn cluster() -> Cluster {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let nobody = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    Cluster::unwatched(kube::Client::try_from(nobody).unwrap(), Clock::start())
}

#[test]
fn a_rewind_forgets_everything_and_what_was_deleted_may_be_alive() {
    let mut state = State::default();
    state.feeds.push(Feed::new(Kind::Pods, None, Moment::ORIGIN));
    state.feeds[0].listed = true;
    state.watched(pod("a", 5, "yes"));
    state.delete(Kind::Pods, &pod("b", 9, "yes"), super::Origin::Watch);
    state.rewind(Moment::ORIGIN);
    assert_eq!((state.rewinds, state.known("a"), state.mark(Kind::Pods).highest), (1, None, 0));
    assert!(!state.feeds[0].listed, "it has to be listed again");
    state.watched(pod("b", 3, "yes"));
    assert_eq!(state.known("b"), Some(3));
}

#[tokio::test]
async fn a_write_with_a_lower_version_than_was_seen_before_it_is_a_rewind() {
    let cluster = cluster();
    cluster.merge_pod(pod("a", 50, "yes"));
    let mark = cluster.mark(Kind::Pods);
    assert!(cluster.check_version(Kind::Pods, 50, 51, mark) && cluster.rewinds() == 0);
    // Another client's event arrives during our write: no rewind.
    cluster.merge_pod(pod("b", 60, "yes"));
    assert!(cluster.check_version(Kind::Pods, 51, 52, mark) && cluster.rewinds() == 0);
    assert!(!cluster.check_version(Kind::Pods, 51, 49, mark));
    assert_eq!((cluster.rewinds(), cluster.pods("shop", &web()).len()), (1, 0));
    assert!(!cluster.check_version(Kind::Pods, 51, 48, mark));
    assert_eq!(cluster.rewinds(), 1, "one rewind is counted once, whoever else saw it");
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_rewind() {
    let cluster = cluster();
    cluster.merge_pod(pod("a", 50, "yes"));
    cluster.merge_pod(pod("b", 60, "yes"));
    let mark = cluster.mark(Kind::Pods);
    assert!(cluster.check_version(Kind::Pods, 50, 50, mark) && cluster.rewinds() == 0);
}

#[tokio::test]
async fn the_lowest_version_is_held_against_its_own_kind_only() {
    let cluster = cluster();
    cluster.merge_pod(pod("a", 50, "yes"));
    assert_eq!(cluster.mark(Kind::Services).highest, 0);
    assert!(cluster.check_version(Kind::KubervisorServices, 6, 7, cluster.mark(Kind::KubervisorServices)));
}

#[tokio::test]
async fn reads_are_in_order_of_the_uids_and_by_uid() {
    let cluster = cluster();
    for name in ["c", "a", "b"] {
        cluster.merge_pod(pod(name, 1, "yes"));
    }
    let pods = cluster.pods("shop", &web());
    assert_eq!(pods.iter().map(|pod| &*pod.name).collect::<String>(), "abc");
    assert_eq!(cluster.pod(&"u-b".into()).unwrap().name, "b".into());
    assert!(cluster.pods("elsewhere", &web()).is_empty() && cluster.pod(&"u-z".into()).is_none());
    assert_eq!(cluster.named_pods().len(), 0);
    assert_eq!(SharedText::from("shop"), pods[0].namespace);
}
