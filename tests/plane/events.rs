//! Events as `kubectl` shows them: on their object, repeated ones as one series; recording never blocks.

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

/// A recorder with the controller's rights, and its metrics.
struct Fixture {
    recorder: EventRecorder,
    registry: Registry,
    stop: CancellationToken,
}

impl Fixture {
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

    /// Stops the recorder; returns how long that took.
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

/// A reference to a pod, which need not exist.
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
async fn an_event_is_shown_on_its_object_and_repeated_ones_are_one_series() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "events").await;
    workloads::web(&plane, &admin, &namespace, 1).await;
    let name = workloads::ready(&admin, &namespace).await.unwrap().pop().unwrap();
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(admin.clone(), &namespace);
    let uid = pods.get(&name).await.unwrap().metadata.uid.unwrap();
    let about = ObjectRef { uid, ..pod(&namespace, &name) };
    let fixture = Fixture::new(&plane).await;
    for count in 0..5 {
        fixture.recorder.record(withheld(&about, &format!("errors: {count} of 10 are bad")));
    }
    until("all are counted", || async { (fixture.counted("counted") == 4).then_some(()) }).await;
    let kubectl = |arguments: &[&str]| {
        let arguments = [&["-n", &namespace], arguments].concat();
        String::from_utf8(plane.kubectl(User::Admin, &arguments, "").stdout).unwrap()
    };
    let listed = kubectl(&["get", "events", "--field-selector", "reason=Withheld"]);
    assert!(listed.contains("Warning") && listed.contains("errors: 0 of 10 are bad"), "{listed}");
    let described = kubectl(&["describe", "pod", &name]);
    assert!(described.contains("Withheld") && described.contains("kubervisor"), "{described}");
    // Stopping sends the count that was not sent yet.
    assert!(fixture.end().await < Duration::from_secs(2));
    let [one] = &stored(&admin, &namespace).await[..] else { panic!("one series") };
    assert_eq!(one.series.as_ref().map(|series| series.count), Some(5));
    assert_eq!((fixture.counted("created"), fixture.counted("patched")), (1, 1));
    let again = kubectl(&["get", "events.events.k8s.io", &one.metadata.name.clone().unwrap()]);
    assert!(again.contains("Withheld"), "{again}");
}

#[tokio::test]
async fn two_thousand_events_at_once_are_recorded_without_blocking_and_bounded() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "flood").await;
    let fixture = Fixture::new(&plane).await;
    let begun = Instant::now();
    for count in 0..2000 {
        fixture.recorder.record(withheld(&pod(&namespace, &format!("web-{count}")), "errors"));
    }
    let took = begun.elapsed();
    println!("2000 Events recorded in {} us", took.as_micros());
    assert!(took < Duration::from_millis(500), "{took:?}");
    // The writer has not run meanwhile: what exceeds the queue is dropped.
    assert_eq!(fixture.counted("dropped"), 2000 - 1024);
    until("some are stored", || async { (fixture.counted("created") > 20).then_some(()) }).await;
    let took = fixture.end().await;
    println!("ended {} ms after its stop", took.as_millis());
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (stored, created) = (stored(&admin, &namespace).await.len(), fixture.counted("created"));
    // One may be stored whose response was not awaited.
    assert!((created..=created + 2).contains(&(stored as u64)), "{stored} of {created}");
}

#[tokio::test]
async fn a_terminating_or_missing_namespace_only_counts_as_gone() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let (going, staying) = (plane.namespace(&admin, "going").await, plane.namespace(&admin, "staying").await);
    let fixture = Fixture::new(&plane).await;
    Api::<Namespace>::all(admin.clone()).delete(&going, &DeleteParams::default()).await.unwrap();
    fixture.recorder.record(withheld(&pod(&going, "web"), "in a namespace that goes"));
    fixture.recorder.record(withheld(&pod("never-was", "web"), "in one that never was"));
    let long = "é".repeat(2000);
    fixture.recorder.record(withheld(&pod(&staying, "web"), &long));
    until("the last is stored", || async { (fixture.counted("created") == 1).then_some(()) }).await;
    assert_eq!(fixture.counted("gone"), 2);
    let [one] = &stored(&admin, &staying).await[..] else { panic!("one Event") };
    assert_eq!(one.note.as_deref().map(str::len), Some(1024), "its note is cut");
    fixture.end().await;
}

#[tokio::test]
async fn no_event_is_lost_while_the_api_server_restarts() {
    let plane = plane::alone().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "away").await;
    let fixture = Fixture::new(&plane).await;
    plane.kill(Component::ApiServer);
    fixture.recorder.record(withheld(&pod(&namespace, "web-1"), "errors"));
    fixture.recorder.record(withheld(&pod(&namespace, "web-2"), "errors"));
    plane.restart(Component::ApiServer);
    until("both are stored", || async { (fixture.counted("created") == 2).then_some(()) }).await;
    assert_eq!(fixture.counted("unreachable"), 0, "it was tried again");
    fixture.end().await;
}
