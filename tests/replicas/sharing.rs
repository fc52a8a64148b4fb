//! Work is divided, done once, and divided anew when a replica joins, leaves or is cordoned.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{cluster::Cluster, plane::until};

#[tokio::test(flavor = "multi_thread")]
async fn each_resource_is_worked_on_once_and_a_new_replica_takes_its_share() {
    let cluster = Cluster::start(20).await;
    let [first, second] = cluster.replicas(["one", "two"]).await;
    let before = cluster.work(&[&first, &second]).await;
    assert!(before.iter().all(|work| !work.is_empty()), "{before:?}");
    let begun = Instant::now();
    let [third] = cluster.replicas_beside(["three"], &[&first, &second]).await;
    println!("a third replica shares the work after {:?}", begun.elapsed());
    let after = cluster.work(&[&first, &second, &third]).await;
    for (before, after) in before.iter().zip(&after) {
        assert!(after.is_subset(before), "nothing moves between the others: {before:?} {after:?}");
    }
    assert!(!after[2].is_empty(), "{after:?}");
    until("each record has the number of resources of its member", || async {
        let page = first.page("cluster").await;
        let mut loads: Vec<u64> =
            page["members"].as_array()?.iter().filter_map(|row| row["load"].as_u64()).collect();
        let mut shares: Vec<u64> = after.iter().map(|work| work.len() as u64).collect();
        loads.sort_unstable();
        shares.sort_unstable();
        (loads == shares).then_some(())
    })
    .await;
    // Each detector is asked by one process: no more than its period allows.
    let asked: Vec<usize> = cluster.services().iter().map(|name| cluster.signals.asked(name)).collect();
    let (begun, audited) = (Instant::now(), cluster.plane.audit(&cluster.namespace).len());
    until("every detector is asked forty times more", || async {
        let now = cluster.services();
        let enough = now.iter().zip(&asked).all(|(name, before)| cluster.signals.asked(name) >= before + 40);
        enough.then_some(())
    })
    .await;
    let most = begun.elapsed().as_secs_f64() / 0.3 + 3.0;
    for (name, before) in cluster.services().iter().zip(&asked) {
        let more = cluster.signals.asked(name) - before;
        assert!((more as f64) <= most, "{name} was asked {more} times, at most {most} by one replica");
    }
    // Nothing happens, so that nothing is written; reports from before may still be on their way.
    let events = cluster.plane.audit(&cluster.namespace).split_off(audited);
    let written = events.iter().filter(|event| event["objectRef"]["subresource"] == "status").count();
    assert!(written < cluster.services().len(), "{written} writes of a status");
    for replica in [&first, &second, &third] {
        assert!(
            !replica.log().contains("time ran backwards"),
            "no write was taken for a restored API server"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_hands_everything_over_and_a_pod_stays_withheld() {
    let cluster = Cluster::start(4).await;
    let [one, two] = cluster.replicas(["one", "two"]).await;
    let mut owned = cluster.work(&[&one]).await.remove(0);
    let (first, second) = if owned.is_empty() { (two, one) } else { (one, two) };
    if owned.is_empty() {
        owned = cluster.services();
    }
    let name = owned.pop_first().unwrap();
    let shop = cluster.shops.iter().find(|shop| shop.name == name).unwrap();
    let bad = shop.names().await.unwrap().remove(0);
    cluster.signals.bad(&name, &cluster.namespace, [bad.clone()]);
    until("it is withheld", || async { (shop.endpoints().await.ok()?.len() == 1).then_some(()) }).await;
    let generations = cluster.owners().await;
    let begun = Instant::now();
    assert_eq!(first.stop(), Some(0));
    let stopped = begun.elapsed();
    cluster.until_shared_by(&[&second]).await;
    println!("stopped after {stopped:?}, all handed over after {:?}", begun.elapsed());
    let after = cluster.owners().await;
    for (name, (member, generation)) in &after {
        let (before, old) = &generations[name];
        assert!(if member == before { generation == old } else { generation > old }, "{name}");
    }
    assert_eq!(shop.endpoints().await.unwrap().len(), 1, "{bad} is still withheld");
    cluster.signals.bad(&name, &cluster.namespace, Vec::<String>::new());
    until("the new owner gives it back", || async {
        (shop.endpoints().await.ok()?.len() == 2).then_some(())
    })
    .await;
}

/// The longest time in which one resource's detector was not asked, while `work` goes on.
async fn longest_gap(cluster: &Cluster, work: impl Future<Output = ()>) -> (String, Duration) {
    let names: Vec<String> = cluster.services().into_iter().collect();
    let count = |name: &String| cluster.signals.asked(name);
    let mut seen: Vec<(usize, Instant)> = names.iter().map(|name| (count(name), Instant::now())).collect();
    let mut longest = (String::new(), Duration::ZERO);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            () = &mut work => return longest,
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        for (name, (before, at)) in names.iter().zip(&mut seen) {
            if at.elapsed() > longest.1 {
                longest = (name.clone(), at.elapsed());
            }
            if count(name) > *before {
                (*before, *at) = (count(name), Instant::now());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_leaves_no_resource_without_an_owner_for_long() {
    let cluster = Cluster::start(12).await;
    let names = ["one", "two", "three"];
    let replicas = cluster.replicas(names).await;
    let restart = async {
        for replica in &replicas {
            assert_eq!(replica.stop(), Some(0));
            replica.launch();
            replica.ready().await;
            // The next one is stopped at once, as by a Deployment: before all owners are stored.
            until("it has its share", || async {
                let work = cluster.work(&[replica]).await;
                (!work[0].is_empty()).then_some(())
            })
            .await;
        }
    };
    let (name, gap) = longest_gap(&cluster, restart).await;
    println!("longest time between two questions: {gap:?}, of {name}");
    assert!(gap < Duration::from_secs(3), "{name} was not asked about for {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_one_name_that_work_on_different_namespaces_are_clusters_of_their_own() {
    let (shop, bank) = (Cluster::start(3).await, Cluster::start(3).await);
    // The same name, and all Leases in the same namespace.
    let [for_shop, for_bank] = [(&shop, "one"), (&bank, "two")]
        .map(|(of, pod)| of.recipe_with_leases_in(&shop.namespace, pod).start());
    for replica in [&for_shop, &for_bank] {
        replica.ready().await;
    }
    shop.until_shared_by(&[&for_shop]).await;
    bank.until_shared_by(&[&for_bank]).await;
    assert_eq!(shop.members(&for_shop).await.len(), 1);
    assert_eq!(bank.members(&for_bank).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_alone_has_everything() {
    let cluster = Cluster::start(2).await;
    let [only] = cluster.replicas(["one"]).await;
    let page = only.page("cluster").await;
    assert_eq!(page["leadership"]["posture"], "leading");
    let services: BTreeSet<&str> =
        page["members"][0]["services"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert_eq!(services.len(), 2, "{page}");
    tokio::time::timeout(Duration::from_secs(5), async { only.stop() }).await.unwrap();
}
