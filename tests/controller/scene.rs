//! One test's namespace: a signal that the test controls, a fleet, and a controller of this namespace only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Once},
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    controller::{self, Controller},
    plane::{self, Plane, Shared, User, until},
    shop::{self, Shop},
    signals::Signals,
};

/// The path of the signal that [`Stage::asks`] names.
pub(super) const SIGNAL: &str = "bad";

/// A namespace without fleet or controller.
pub(super) struct Stage {
    pub(super) plane: Arc<Shared>,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) signals: Signals,
}

impl Stage {
    /// An empty namespace on a plane with our definition.
    pub(super) async fn set(hint: &str) -> Self {
        static INSTALLED: Once = Once::new();
        let plane = Arc::new(plane::shared().await);
        INSTALLED.call_once(|| shop::install(&plane));
        Self::on(plane, hint).await
    }

    /// One more namespace for the same test.
    pub(super) async fn beside(&self, hint: &str) -> Self {
        Self::on(Arc::clone(&self.plane), hint).await
    }

    async fn on(plane: Arc<Shared>, hint: &str) -> Self {
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, hint).await;
        Self { plane, client, namespace, signals: Signals::start() }
    }

    /// The `customService` that reads the test's signal.
    pub(super) fn asks(&self) -> String {
        self.signals.service(SIGNAL)
    }

    /// A controller of this namespace alone, not started yet.
    pub(super) fn controller(&self) -> controller::Recipe {
        controller::Recipe::with_kubeconfig(self.plane.kubeconfig(User::Kubervisor))
            .namespace(&self.namespace)
    }

    /// Deployment, Service and resource.
    pub(super) async fn fleet(&self, recipe: &shop::Recipe) -> Shop {
        recipe.apply(&self.plane, &self.client, &self.namespace).await
    }

    /// Fleet and controller, after the first status.
    pub(super) async fn play(self, recipe: &shop::Recipe) -> Scene {
        let shop = self.fleet(recipe).await;
        let controller = self.controller().start();
        controller.ready().await;
        let scene = Scene { stage: self, shop, controller };
        scene.until("it has been looked at", async || scene.condition("Ready").await.is_some()).await;
        scene
    }

    /// `kubectl` as the admin; it has to succeed.
    pub(super) fn kubectl(&self, arguments: &[&str], input: &Value) {
        let arguments = [&["-n", &self.namespace], arguments].concat();
        let done = Plane::kubectl(&self.plane, User::Admin, &arguments, &input.to_string());
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A merge patch on a Service.
    pub(super) async fn edit_service(&self, name: &str, patch: Value) {
        let services = Api::<Service>::namespaced(self.client.clone(), &self.namespace);
        services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The writes of the controller on pods, by the audit log: verb, subresource and pod.
    pub(super) fn pod_writes(&self) -> Vec<String> {
        let writes = self.plane.audit(&self.namespace).into_iter().filter(|event| {
            let reads = ["get", "list", "watch"];
            event["user"]["username"] == User::Kubervisor.name()
                && event["objectRef"]["resource"] == "pods"
                && event["stage"] == "ResponseComplete"
                && !reads.iter().any(|read| event["verb"] == *read)
        });
        writes.map(|event| format!("{} {}", event["verb"], event["objectRef"])).collect()
    }
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A fleet, its signal, and its controller.
pub(super) struct Scene {
    pub(super) stage: Stage,
    pub(super) shop: Shop,
    pub(super) controller: Controller,
}

impl Scene {
    /// `pods` pods behind one breaker with a floor of `ratio` percent.
    pub(super) async fn simple(hint: &str, pods: u32, ratio: u32) -> Self {
        let stage = Stage::set(hint).await;
        let recipe = shop::Recipe::of("web", pods).breaker("slow", &stage.asks(), ratio);
        stage.play(&recipe).await
    }

    /// From now on exactly these pods are bad.
    pub(super) fn bad<T: Into<String>>(&self, pods: impl IntoIterator<Item = T>) {
        self.stage.signals.bad(SIGNAL, &self.stage.namespace, pods);
    }

    /// Waits; a failure shows the fleet.
    pub(super) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let began = std::time::Instant::now();
        while !holds().await {
            if began.elapsed() > std::time::Duration::from_secs(60) {
                let status = self.shop.resource().await.map(|mut resource| resource["status"].take());
                let (pods, status) = (self.traffic().await, status.unwrap_or_default());
                panic!("not within 60 s: {what}; pods {pods:#?}, status {status:#}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Waits for `count` more queries of the signal.
    pub(super) async fn looks(&self, count: usize) {
        let wanted = self.stage.signals.asked(SIGNAL) + count;
        until("the breaker looks", || async { (self.stage.signals.asked(SIGNAL) >= wanted).then_some(()) })
            .await;
    }

    /// As [`Self::looks`], and it holds all the time.
    pub(super) async fn throughout(&self, count: usize, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wanted = self.stage.signals.asked(SIGNAL) + count;
        while self.stage.signals.asked(SIGNAL) < wanted {
            assert!(holds().await, "{what}; pods {:#?}", self.traffic().await);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The living pods, by name.
    pub(super) async fn pods(&self) -> BTreeMap<String, Pod> {
        let pods = self.shop.pods().await.unwrap();
        let living = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        living.map(|pod| (pod.metadata.name.clone().unwrap(), pod)).collect()
    }

    /// One of them.
    pub(super) async fn pod(&self, name: &str) -> Pod {
        Api::namespaced(self.stage.client.clone(), &self.stage.namespace).get(name).await.unwrap()
    }

    /// Their names.
    pub(super) async fn names(&self) -> Vec<String> {
        self.pods().await.into_keys().collect()
    }

    /// The traffic label of each pod.
    pub(super) async fn traffic(&self) -> BTreeMap<String, String> {
        let pods = self.pods().await.into_iter();
        pods.map(|(name, pod)| (name, label(&pod, "kubervisor/traffic").unwrap_or_default())).collect()
    }

    /// The pods with this traffic label.
    pub(super) async fn those(&self, word: &str) -> Vec<String> {
        let traffic = self.traffic().await.into_iter();
        traffic.filter(|(_, said)| said == word).map(|(name, _)| name).collect()
    }

    /// Waits until `count` pods have this traffic label, and returns their names.
    pub(super) async fn until_those(&self, word: &str, count: usize) -> Vec<String> {
        self.until(&format!("{count} pods say {word}"), async || self.those(word).await.len() == count).await;
        self.those(word).await
    }

    /// Waits until exactly these pods are withheld.
    pub(super) async fn until_withheld(&self, pods: &[String]) {
        self.until(&format!("withheld: {pods:?}"), async || self.those("no").await == pods).await;
    }

    /// A condition of the resource.
    pub(super) async fn condition(&self, kind: &str) -> Option<Condition> {
        condition_of(&self.shop, kind).await
    }

    /// Waits until a condition has that status, and returns it.
    pub(super) async fn until_condition(&self, kind: &str, status: &str) -> Condition {
        let met = async || self.condition(kind).await.is_some_and(|condition| condition.status == status);
        self.until(&format!("{kind} is {status}"), met).await;
        self.condition(kind).await.unwrap()
    }

    /// A merge patch on the resource.
    pub(super) async fn edit(&self, patch: Value) {
        let resources = self.shop.resources();
        resources.patch(&self.shop.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// One member of the spec is this from now on.
    pub(super) async fn set(&self, member: &str, value: Value) {
        self.edit(json!({"spec": {member: value}})).await;
    }

    /// Sets one pod's traffic label by hand.
    pub(super) async fn switch(&self, pod: &str, word: Value) {
        let patch = json!({"metadata": {"labels": {"kubervisor/traffic": word}}});
        self.shop.patch_pod(pod, &patch).await.unwrap();
    }

    /// The Events of one kind and reason, as their notes.
    pub(super) async fn events(&self, kind: &str, reason: &str) -> Vec<String> {
        let events = Api::<Event>::namespaced(self.stage.client.clone(), &self.stage.namespace);
        let events = events.list(&ListParams::default()).await.unwrap().items.into_iter();
        let about = |event: &Event| event.regarding.as_ref().and_then(|about| about.kind.clone());
        let mine =
            events.filter(|e| e.reason.as_deref() == Some(reason) && about(e).as_deref() == Some(kind));
        mine.filter_map(|event| event.note).collect()
    }

    /// Waits for one, and returns its note.
    pub(super) async fn until_event(&self, kind: &str, reason: &str) -> String {
        let there = async || !self.events(kind, reason).await.is_empty();
        self.until(&format!("an Event {reason} on a {kind}"), there).await;
        self.events(kind, reason).await.swap_remove(0)
    }

    /// `/explain` of one pod.
    pub(super) async fn explain(&self, pod: &str) -> Value {
        self.page(&format!("/explain/{}/{pod}", self.stage.namespace)).await
    }

    /// A page of the admin port.
    pub(super) async fn page(&self, path: &str) -> Value {
        let (code, text) = self.controller.admin(path).await.unwrap();
        assert_eq!(code, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// A condition of a resource.
pub(super) async fn condition_of(shop: &Shop, kind: &str) -> Option<Condition> {
    let resource = shop.resource().await.ok()?;
    let conditions = resource["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
    Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
}

/// A label of a pod.
pub(super) fn label(pod: &Pod, key: &str) -> Option<String> {
    pod.metadata.labels.as_ref()?.get(key).cloned()
}

/// An annotation of a pod.
pub(super) fn annotation(pod: &Pod, key: &str) -> Option<String> {
    pod.metadata.annotations.as_ref()?.get(key).cloned()
}

/// Our marks on a pod, the switch apart.
pub(super) fn marks(pod: &Pod) -> Vec<String> {
    let labels = pod.metadata.labels.iter().flatten();
    let labels = labels.filter(|(key, _)| key.starts_with("kubervisor/") && *key != "kubervisor/traffic");
    let annotations = pod.metadata.annotations.iter().flatten();
    let ours = |key: &str| {
        ["kubervisor/", "breaker/", "controller.kubernetes.io/pod-deletion-cost"]
            .iter()
            .any(|start| key.starts_with(start))
    };
    let annotations = annotations.filter(|(key, _)| ours(key));
    labels.chain(annotations).map(|(key, value)| format!("{key}={value}")).collect()
}
