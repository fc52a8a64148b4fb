//! A fleet, its signal, and one controller, with or without the fault proxy in between.

use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    checker::{Circumstances, Revision, judge},
    controller::{self, Controller},
    history::{self, Recorder},
    plane::{Plane, User, until},
    proxy::Proxy,
    shop::{self, Shop},
    signals::Signals,
};

/// The path under which the signal names the bad pods.
const BAD: &str = "bad";

pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) shop: Shop,
    pub(super) signals: Signals,
    pub(super) controller: Controller,
    /// The names of the first pods.
    pub(super) pods: Vec<String>,
    recorder: Recorder,
}

/// Four pods of which two must serve.
pub(super) fn recipe(signals: &Signals) -> shop::Recipe {
    shop::Recipe::of("web", 4).breaker("slow", &signals.service(BAD), 50)
}

fn plain(signals: &Signals, _namespace: &str) -> shop::Recipe {
    recipe(signals)
}

impl Stage {
    /// A running controller without the fault proxy.
    pub(super) async fn begin(plane: &Plane, hint: &str) -> Self {
        Self::with(plane, hint, plane.kubeconfig(User::Kubervisor), plain).await
    }

    /// A running controller behind the fault proxy.
    pub(super) async fn proxied(plane: &Plane, hint: &str) -> (Self, Proxy) {
        let proxy = Proxy::start(&plane.kubeconfig(User::Kubervisor));
        (Self::with(plane, hint, proxy.kubeconfig(), plain).await, proxy)
    }

    /// A running controller; `recipe` is called when the namespace exists.
    pub(super) async fn with(
        plane: &Plane,
        hint: &str,
        kubeconfig: std::path::PathBuf,
        recipe: impl Fn(&Signals, &str) -> shop::Recipe,
    ) -> Self {
        Self::prepared(plane, hint, kubeconfig, recipe, async |_| {}).await
    }

    /// As [`Stage::with`]; `prepare` is done to the fleet before the controller starts.
    pub(super) async fn prepared(
        plane: &Plane,
        hint: &str,
        kubeconfig: std::path::PathBuf,
        recipe: impl Fn(&Signals, &str) -> shop::Recipe,
        prepare: impl AsyncFnOnce(&Shop),
    ) -> Self {
        shop::install(plane);
        let recorder = Recorder::start(plane.etcd());
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, hint).await;
        let signals = Signals::start();
        let shop = recipe(&signals, &namespace).apply(plane, &client, &namespace).await;
        let pods = shop.names().await.unwrap();
        prepare(&shop).await;
        let controller = controller::Recipe::with_kubeconfig(kubeconfig).namespace(&namespace).start();
        Self { client, namespace, shop, signals, controller, pods, recorder }
    }

    /// From now on exactly these are bad.
    pub(super) fn bad(&self, pods: &[&str]) {
        self.signals.bad(BAD, &self.namespace, pods.iter().copied());
    }

    /// Waits until the pod has this traffic label.
    pub(super) async fn says(&self, pod: &str, word: &str) -> Duration {
        let what = format!("{pod} says {word}");
        let there = || async { (self.shop.traffic(pod).await.as_deref() == Some(word)).then_some(()) };
        until(&what, there).await.1
    }

    /// Makes it bad and waits until it is withheld.
    pub(super) async fn withhold(&self, pod: &str) {
        self.bad(&[pod]);
        self.says(pod, "no").await;
    }

    /// Nothing is bad any more; waits until all is as before.
    pub(super) async fn recover(&self) {
        self.bad(&[]);
        until("every pod serves and the ledger is empty", || async {
            let pods = self.shop.pods().await.ok()?;
            let well = pods
                .iter()
                .all(|pod| traffic(pod) == Some("yes") && annotation(pod, "breaker/breakAt").is_none());
            (well && self.shop.entries().await == Some(0)).then_some(())
        })
        .await;
    }

    /// Names of the pods with this traffic label.
    pub(super) async fn saying(&self, word: &str) -> Vec<String> {
        let pods = self.shop.pods().await.unwrap_or_default();
        pods.into_iter()
            .filter(|pod| traffic(pod) == Some(word))
            .filter_map(|pod| pod.metadata.name)
            .collect()
    }

    /// No pod is withheld for `time`.
    pub(super) async fn nothing_is_withheld_for(&self, time: Duration) {
        let before = self.saying("no").await;
        let began = Instant::now();
        while began.elapsed() < time {
            let now = self.saying("no").await;
            assert!(now.iter().all(|pod| before.contains(pod)), "{before:?} -> {now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Status, reason and message of a condition, as one text; `None`: it is not there.
    pub(super) async fn condition(&self, kind: &str) -> Option<String> {
        let resource = self.shop.resource().await.ok()?;
        condition(&resource, kind)
    }

    /// Waits for a condition whose text has all of these.
    pub(super) async fn has_condition(&self, kind: &str, words: &[&str]) -> String {
        let what = format!("the condition {kind} says {words:?}");
        until(&what, || async {
            let said = self.condition(kind).await?;
            words.iter().all(|word| said.contains(word)).then_some(said)
        })
        .await
        .0
    }

    /// Waits until a condition is gone.
    pub(super) async fn lacks_condition(&self, kind: &str) {
        until(&format!("no condition {kind}"), || async {
            let resource = self.shop.resource().await.ok()?;
            condition(&resource, kind).is_none().then_some(())
        })
        .await;
    }

    /// A merge patch on the status, by a person.
    pub(super) async fn patch_status(&self, status: &Value) {
        let patch = kube::api::Patch::Merge(json!({"status": status}));
        let parameters = kube::api::PatchParams::default();
        self.shop.resources().patch_status(&self.shop.name, &parameters, &patch).await.unwrap();
    }

    /// The stored ledger.
    pub(super) async fn ledger(&self) -> Value {
        self.shop.resource().await.unwrap()["status"]["ledger"].take()
    }

    /// The recording's clock.
    pub(super) fn now(&self) -> Duration {
        self.recorder.now()
    }

    /// All revisions of one pod.
    pub(super) async fn history(&mut self, pod: &str) -> Vec<Revision> {
        let key = format!("/registry/pods/{}/{pod}", self.namespace);
        let all = self.recorder.until_now().await;
        all.into_iter().filter(|revision| revision.key == key).collect()
    }

    /// Runs the checker over the recording; `away`: while the API server was unreachable.
    pub(super) async fn judged(&mut self, plane: &Plane, away: Vec<Range<Duration>>) {
        let namespaces = BTreeSet::from([self.namespace.clone()]);
        let authors = history::authors(plane, &namespaces);
        let circumstances =
            Circumstances { namespaces, authors, excused: away.clone(), away, ..Circumstances::default() };
        let history = self.recorder.until_now().await;
        let report = judge(&history, &circumstances, self.recorder.now());
        println!("{}: {report}", self.namespace);
        assert!(report.violations.is_empty(), "{report}");
    }
}

pub(super) fn condition(resource: &Value, kind: &str) -> Option<String> {
    let found = resource["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == kind)?;
    let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
    Some(format!("{} {} {}", text("status"), text("reason"), text("message")))
}

pub(super) fn traffic(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("kubervisor/traffic").map(String::as_str)
}

pub(super) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A word of a stored revision's metadata, such as `labels` and `kubervisor/traffic`.
pub(super) fn word<'a>(revision: &'a Revision, map: &str, key: &str) -> Option<&'a str> {
    revision.object.as_ref()?["metadata"][map][key].as_str()
}

/// How often the pod went from `yes` to `no`.
pub(super) fn withdrawals(history: &[Revision]) -> usize {
    let words: Vec<_> =
        history.iter().map(|revision| word(revision, "labels", "kubervisor/traffic")).collect();
    words.windows(2).filter(|pair| pair[0] == Some("yes") && pair[1] == Some("no")).count()
}
