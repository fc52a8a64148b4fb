//! Two controllers start at once on a resource without a ledger: neither undoes the other's writes.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use crate::{
    controller,
    plane::{self, User, until},
    stage::Stage,
};

/// How many Events were stored, repetitions counted.
async fn told(stage: &Stage) -> usize {
    let events = Api::<Event>::namespaced(stage.client.clone(), &stage.namespace);
    let all = events.list(&ListParams::default()).await.unwrap().items;
    let ours = all.iter().filter(|event| event.reporting_controller.as_deref() == Some("kubervisor"));
    ours.map(|event| event.series.as_ref().map_or(1, |series| series.count.max(1) as usize)).sum()
}

#[tokio::test]
async fn two_controllers_that_begin_at_once_get_on_with_it_and_tell_no_more_than_twice_as_much() {
    let plane = plane::shared().await;
    let mut alone = Stage::begin(&plane, "alone").await;
    alone.withhold(&alone.pods[0].clone()).await;
    alone.recover().await;
    let of_one = told(&alone).await;
    alone.judged(&plane, Vec::new()).await;
    drop(alone);

    let mut stage = Stage::begin(&plane, "twins").await;
    let recipe = controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor));
    let twin = recipe.namespace(&stage.namespace).start();
    let first = stage.pods[0].clone();
    stage.bad(&[&first]);
    let took = stage.says(&first, "no").await;
    println!("two controllers, from their start to the first withdrawal: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let epoch = stage.ledger().await["epoch"].clone();
    stage.recover().await;
    assert_eq!(stage.ledger().await["epoch"], epoch, "they share one ledger");
    assert!(twin.lives());
    let of_two = told(&stage).await;
    println!("{of_one} Events by one, {of_two} by two");
    assert!(of_two <= 2 * of_one, "{of_two} of two, {of_one} of one");
    until("nothing is left", || async { (stage.shop.entries().await == Some(0)).then_some(()) }).await;
    stage.judged(&plane, Vec::new()).await;
}
