//! Events as people find them: by `kubectl`, on their object, as one series; and nobody ever waits for one.

use std::time::{Duration, Instant};

use k8s_openapi::api::{core::v1::Namespace, events::v1::Event as Stored};
use kube::{Api, Client, api::DeleteParams};
use kubervisor::{
    adapters::kubernetes::events::{Event, EventKind, EventMetrics, EventRecorder, EventSettings, ObjectRef},
    clock::Clock,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

use crate::{
    plane::{self, Component, Plane, User, until},
    workloads,
};

/// A recorder with the controller's rights, and what it counts.
struct Stand {
    recorder: EventRecorder,
    registry: Registry,
    stop: CancellationToken,
}

impl Stand {
    async fn new(plane: &Plane) -> Self {
        let mut registry = Registry::with_prefix("kubervisor");
        let (metrics, stop) = (EventMetrics::register(&mut registry), CancellationToken::new());
        let recorder = EventRecorder::start(EventSettings {
            client: plane.client(User::Kubervisor).await,
            reporting_controller: "kubervisor",
            reporting_instance: "the-test".to_owned(),
            clock: Clock::start(),
            metrics,
            stop: stop.clone(),
        });
        Self { recorder, registry, stop }
    }

    fn counted(&self, outcome: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let sample = format!("kubervisor_events_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |count| count.parse().unwrap())
    }

    /// How long it took to end.
    async fn end(&self) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        self.recorder.ended().await;
        begun.elapsed()
    }
}

fn withheld(about: &ObjectRef, note: &str) -> Event {
    Event {
        about: about.clone(),
        related: None,
        kind: EventKind::Warning,
        reason: "Withheld",
        action: "Withhold",
        rule: "errors".to_owned(),
        note: note.to_owned(),
    }
}

/// A pod that nobody needs to have seen.
fn pod(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
    }
}

async fn stored(client: &Client, namespace: &str) -> Vec<Stored> {
    let api = Api::<Stored>::namespaced(client.clone(), namespace);
    let all = api.list(&kube::api::ListParams::default()).await.unwrap();
    let ours = all.items.into_iter();
    ours.filter(|event| event.reporting_controller.as_deref() == Some("kubervisor")).collect()
}

#[tokio::test]
async fn an_event_shows_where_people_look_and_repeated_ones_are_one_series() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "events").await;
    workloads::web(&plane, &admin, &namespace, 1).await;
    let name = workloads::ready(&admin, &namespace).await.unwrap().pop().unwrap();
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(admin.clone(), &namespace);
    let uid = pods.get(&name).await.unwrap().metadata.uid.unwrap();
    let about = ObjectRef { uid, ..pod(&namespace, &name) };
    let stand = Stand::new(&plane).await;
    for count in 0..5 {
        stand.recorder.record(withheld(&about, &format!("errors: {count} of 10 are bad")));
    }
    until("all are counted", || async { (stand.counted("counted") == 4).then_some(()) }).await;
    let kubectl = |arguments: &[&str]| {
        let arguments = [&["-n", &namespace], arguments].concat();
        String::from_utf8(plane.kubectl(User::Admin, &arguments, "").stdout).unwrap()
    };
    let listed = kubectl(&["get", "events", "--field-selector", "reason=Withheld"]);
    assert!(listed.contains("Warning") && listed.contains("errors: 0 of 10 are bad"), "{listed}");
    let described = kubectl(&["describe", "pod", &name]);
    assert!(described.contains("Withheld") && described.contains("kubervisor"), "{described}");
    // The end tells the count that is not told yet.
    assert!(stand.end().await < Duration::from_secs(2));
    let [one] = &stored(&admin, &namespace).await[..] else { panic!("one series") };
    assert_eq!(one.series.as_ref().map(|series| series.count), Some(5));
    assert_eq!((stand.counted("created"), stand.counted("patched")), (1, 1));
    let again = kubectl(&["get", "events.events.k8s.io", &one.metadata.name.clone().unwrap()]);
    assert!(again.contains("Withheld"), "{again}");
}

#[tokio::test]
async fn two_thousand_at_once_make_nobody_wait_and_are_bounded() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "flood").await;
    let stand = Stand::new(&plane).await;
    let begun = Instant::now();
    for count in 0..2000 {
        stand.recorder.record(withheld(&pod(&namespace, &format!("web-{count}")), "errors"));
    }
    let took = begun.elapsed();
    println!("2000 Events recorded in {} us", took.as_micros());
    assert!(took < Duration::from_millis(500), "{took:?}");
    // The worker had no turn meanwhile: what does not fit is dropped.
    assert_eq!(stand.counted("dropped"), 2000 - 1024);
    until("some are stored", || async { (stand.counted("created") > 20).then_some(()) }).await;
    let took = stand.end().await;
    println!("ended {} ms after its stop", took.as_millis());
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (stored, created) = (stored(&admin, &namespace).await.len(), stand.counted("created"));
    // One may be stored whose answer nobody waited for.
    assert!((created..=created + 2).contains(&(stored as u64)), "{stored} of {created}");
}

#[tokio::test]
async fn a_namespace_that_goes_or_never_was_does_no_harm() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let (going, staying) = (plane.namespace(&admin, "going").await, plane.namespace(&admin, "staying").await);
    let stand = Stand::new(&plane).await;
    Api::<Namespace>::all(admin.clone()).delete(&going, &DeleteParams::default()).await.unwrap();
    stand.recorder.record(withheld(&pod(&going, "web"), "in a namespace that goes"));
    stand.recorder.record(withheld(&pod("never-was", "web"), "in one that never was"));
    let long = "é".repeat(2000);
    stand.recorder.record(withheld(&pod(&staying, "web"), &long));
    until("the last is stored", || async { (stand.counted("created") == 1).then_some(()) }).await;
    assert_eq!(stand.counted("gone"), 2);
    let [one] = &stored(&admin, &staying).await[..] else { panic!("one Event") };
    assert_eq!(one.note.as_deref().map(str::len), Some(1024), "its note is cut");
    stand.end().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_moment_costs_no_event() {
    let plane = plane::alone().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "away").await;
    let stand = Stand::new(&plane).await;
    plane.kill(Component::ApiServer);
    stand.recorder.record(withheld(&pod(&namespace, "web-1"), "errors"));
    stand.recorder.record(withheld(&pod(&namespace, "web-2"), "errors"));
    plane.restart(Component::ApiServer);
    until("both are stored", || async { (stand.counted("created") == 2).then_some(()) }).await;
    assert_eq!(stand.counted("unreachable"), 0, "it was tried again");
    stand.end().await;
}
