//! What the figures on a real control plane stand on: fleets of Deployments, a service that names the bad pods, a real
//! `kubervisor controller`, and the audit log as the witness of what it asked.
//!
//! The plane has both cores: pinned beside its clients it would be the bottleneck of every figure.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use axum::{
    Json, Router,
    extract::{Path as AxumPath, State},
    routing::get,
};
use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::Pod,
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, WatchEvent, WatchParams},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cores,
    plane::{self, Plane, Shared, User},
    running::{processor_time, resident},
};

/// Pods of one Deployment: more in one take its controller longer than several side by side.
pub(crate) const PART: u32 = 100;

/// Between two looks at whether something has come.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a section with the plane, on all cores.
pub(crate) fn on_a_plane(section: impl AsyncFnOnce(&Stage) -> anyhow::Result<()>) -> anyhow::Result<()> {
    cores::on_all(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let plane = plane::shared().await;
            let client = plane.client(User::Admin).await;
            define(&plane)?;
            section(&Stage { plane, client }).await
        })
    })?
}

/// The plane and an administrator's client.
pub(crate) struct Stage {
    pub(crate) plane: Shared,
    pub(crate) client: Client,
}

/// Our resource's definition, established when this returns.
fn define(plane: &Plane) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/kubervisorservices.yaml");
    apply(plane, &["apply", "--server-side", "-f", "-"], &std::fs::read_to_string(path)?)?;
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    apply(plane, &["wait", "--for=condition=Established", name, "--timeout=60s"], "")
}

fn apply(plane: &Plane, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let done = plane.kubectl(User::Admin, arguments, input);
    ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Services of a namespace, each with pods behind its switch.
pub(crate) struct Fleets<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) namespace: String,
    pub(crate) services: Vec<String>,
    pods_each: u32,
}

impl<'a> Fleets<'a> {
    /// Makes them and waits until every pod is ready in its slice; that takes minutes for thousands.
    pub(crate) async fn make(
        stage: &'a Stage,
        hint: &str,
        services: u32,
        pods_each: u32,
    ) -> anyhow::Result<Self> {
        let namespace = stage.plane.namespace(&stage.client, hint).await;
        let services: Vec<String> = (0..services).map(|number| format!("web-{number}")).collect();
        let objects: Vec<Value> = services.iter().flat_map(|name| workload(name, pods_each)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        apply(&stage.plane, &["create", "-n", &namespace, "-f", "-"], &list)?;
        let it = Self { stage, namespace, services, pods_each };
        let wanted = it.size();
        wait("every pod is ready", Duration::from_secs(1800), async || {
            let ready = it.ready(None).await?.len();
            eprintln!("  {ready} of {wanted} pods are ready");
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok((ready >= wanted).then_some(()))
        })
        .await?;
        Ok(it)
    }

    /// All pods.
    pub(crate) fn size(&self) -> usize {
        self.services.len() * self.pods_each as usize
    }

    /// A resource for every service, which asks that signal; `every` in seconds.
    pub(crate) fn gate(&self, signal: &Detector, every: f64) -> anyhow::Result<()> {
        self.gate_by(every, |_| signal.address.to_string())
    }

    /// The same, and the signal knows which service is asked about.
    pub(crate) fn gate_each(&self, signal: &Detector, every: f64) -> anyhow::Result<()> {
        self.gate_by(every, |service| format!("{}/{service}", signal.address))
    }

    fn gate_by(&self, every: f64, detector: impl Fn(&str) -> String) -> anyhow::Result<()> {
        let resource = |name: &String| {
            let breaker = json!({
                "name": "named", "customService": detector(name), "evaluationPeriod": every,
                "minPodsAvailableRatio": 50,
            });
            // A shorter one gives pods back while others are still being withheld.
            let activator = json!({"mode": "periodic", "period": 10});
            json!({
                "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": name},
                "spec": {"service": name, "defaultActivator": activator, "breakers": [breaker]},
            })
        };
        let items: Vec<Value> = self.services.iter().map(resource).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        apply(&self.stage.plane, &["create", "-n", &self.namespace, "-f", "-"], &list)
    }

    /// Names of the pods that the slices show as ready, of one service or of all.
    pub(crate) async fn ready(&self, service: Option<&str>) -> anyhow::Result<Vec<String>> {
        let slices = Api::<EndpointSlice>::namespaced(self.stage.client.clone(), &self.namespace);
        let one = |name| ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
        let found = slices.list(&service.map_or_else(ListParams::default, one)).await?;
        let ready = found.items.iter().flat_map(ready_in);
        Ok(ready.filter_map(|end| end.target_ref.as_ref()?.name.clone()).collect())
    }

    /// Follows the slices from here on.
    pub(crate) async fn follow(&self) -> anyhow::Result<Shown> {
        let slices = Api::<EndpointSlice>::namespaced(self.stage.client.clone(), &self.namespace);
        let listed = slices.list(&ListParams::default()).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let ready = listed.items.iter().map(|slice| (slice.name_any(), ready_in(slice).count())).collect();
        // A poll of as many endpoints would take the API server half of a core from those who are measured.
        let events = slices.watch(&WatchParams::default().timeout(290), &version).await?.boxed();
        Ok(Shown { ready, events })
    }

    /// How many pods have these labels.
    pub(crate) async fn labelled(&self, selector: &str) -> anyhow::Result<usize> {
        let pods = Api::<Pod>::namespaced(self.stage.client.clone(), &self.namespace);
        Ok(pods.list_metadata(&ListParams::default().labels(selector)).await?.items.len())
    }

    /// Waits until every resource says that it is in force.
    pub(crate) async fn adopted(&self) -> anyhow::Result<()> {
        let kind = GroupVersionKind::gvk("kubervisor.k8s.io", "v1alpha1", "KubervisorService");
        let kind = ApiResource::from_gvk_with_plural(&kind, "kubervisorservices");
        let resources =
            Api::<DynamicObject>::namespaced_with(self.stage.client.clone(), &self.namespace, &kind);
        wait("every resource is Ready", Duration::from_secs(600), async || {
            let found = resources.list(&ListParams::default()).await?.items;
            Ok((found.iter().filter(|resource| is_ready(&resource.data)).count() == self.services.len())
                .then_some(()))
        })
        .await
    }
}

/// The slices of a namespace as a watch shows them.
pub(crate) struct Shown {
    ready: BTreeMap<String, usize>,
    events: BoxStream<'static, Result<WatchEvent<EndpointSlice>, kube::Error>>,
}

impl Shown {
    /// Waits until that many pods are ready in the slices; when that was.
    pub(crate) async fn until(&mut self, count: usize) -> anyhow::Result<Instant> {
        while self.ready.values().sum::<usize>() != count {
            let event = tokio::time::timeout(Duration::from_secs(120), self.events.next()).await;
            let event = event.with_context(|| format!("not within 120 s: {count} pods in the slices"))?;
            match event.context("the watch ended")?? {
                WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                    self.ready.insert(slice.name_any(), ready_in(&slice).count());
                }
                WatchEvent::Deleted(slice) => {
                    self.ready.remove(&slice.name_any());
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => bail!("the watch of the slices: {status:?}"),
            }
        }
        Ok(Instant::now())
    }
}

fn ready_in(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|end| end.conditions.as_ref().is_some_and(|is| is.ready == Some(true)))
}

fn is_ready(resource: &Value) -> bool {
    let conditions = resource.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// A Service and the Deployments behind it.
fn workload(name: &str, pods: u32) -> Vec<Value> {
    let container = json!({"name": "app", "image": "app"});
    let deployment = |part: u32| {
        let own = json!({"app": name, "part": part.to_string()});
        let labels = json!({"app": name, "part": part.to_string(), "kubervisor/traffic": "yes"});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("{name}-{part}")},
            "spec": {
                "replicas": PART.min(pods - part * PART), "selector": {"matchLabels": own},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        })
    };
    let selector = json!({"app": name, "kubervisor/traffic": "yes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"port": 80}]},
    });
    (0..pods.div_ceil(PART)).map(deployment).chain([service]).collect()
}

/// Asks until there is an answer.
pub(crate) async fn wait<T>(
    what: &str,
    cap: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if began.elapsed() > cap {
            bail!("not within {} s: {what}", cap.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A custom service that names bad pods.
pub(crate) struct Detector {
    pub(crate) address: SocketAddr,
    says: Arc<Mutex<Says>>,
}

#[derive(Default)]
struct Says {
    pods: Vec<(String, String)>,
    /// When these pods were first named to somebody.
    told: Option<Instant>,
    /// When each service's detector was asked, by the path.
    asked: BTreeMap<String, Vec<Instant>>,
}

impl Detector {
    /// Nobody is bad.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let says = Arc::<Mutex<Says>>::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/", get(list))
            .route("/{service}", get(listed_for))
            .with_state(Arc::clone(&says));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, says })
    }

    /// From now on these are bad, by namespace and name.
    pub(crate) fn name(&self, pods: Vec<(String, String)>) {
        let mut says = lock(&self.says);
        (says.pods, says.told) = (pods, None);
    }

    /// When each service's detector was asked since then, of the resources that [`Fleets::gate_each`] made.
    pub(crate) fn asked_since(&self, from: Instant) -> BTreeMap<String, Vec<Instant>> {
        let since = |times: &Vec<Instant>| times.iter().copied().filter(|at| *at > from).collect();
        lock(&self.says).asked.iter().map(|(service, times)| (service.clone(), since(times))).collect()
    }

    /// When somebody was first told of them.
    pub(crate) fn told(&self) -> Option<Instant> {
        lock(&self.says).told
    }
}

async fn listed_for(
    AxumPath(service): AxumPath<String>,
    State(says): State<Arc<Mutex<Says>>>,
) -> Json<Value> {
    lock(&says).asked.entry(service).or_default().push(Instant::now());
    list(State(says)).await
}

async fn list(State(says): State<Arc<Mutex<Says>>>) -> Json<Value> {
    let mut says = lock(&says);
    if !says.pods.is_empty() {
        says.told.get_or_insert_with(Instant::now);
    }
    let item =
        |(namespace, name): &(String, String)| json!({"metadata": {"namespace": namespace, "name": name}});
    let items: Vec<Value> = says.pods.iter().map(item).collect();
    Json(json!({"apiVersion": "v1", "kind": "PodList", "items": items}))
}

fn lock(says: &Mutex<Says>) -> MutexGuard<'_, Says> {
    says.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A real controller of one namespace.
pub(crate) struct Controller {
    child: Child,
    pub(crate) began: Instant,
    directory: TempDir,
    probes: SocketAddr,
}

impl Controller {
    pub(crate) fn start(fleets: &Fleets<'_>) -> anyhow::Result<Self> {
        Self::start_with(fleets, &[], &[])
    }

    /// The replica of that pod, with this lease in seconds.
    pub(crate) fn replica(fleets: &Fleets<'_>, pod: &str, lease: u64) -> anyhow::Result<Self> {
        let store = format!("--store=kubernetes:{}", fleets.namespace);
        let uid = format!("uid-of-{pod}");
        let variables = [("HOSTNAME", pod), ("KUBERVISOR_POD_UID", &uid)];
        Self::start_with(fleets, &[store, format!("--lease={lease}")], &variables)
    }

    fn start_with(
        fleets: &Fleets<'_>,
        arguments: &[String],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let log = File::create(directory.path().join("log"))?;
        let probes = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let kubeconfig = fleets.stage.plane.kubeconfig(User::Kubervisor);
        let began = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
            .args(["controller", "--admin-addr", "off", "--namespace", &fleets.namespace])
            .args(["--addr", &probes.to_string(), "--kubeconfig"])
            .arg(kubeconfig)
            .args(arguments)
            .envs(variables.iter().copied())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the controller")?;
        Ok(Self { child, began, directory, probes })
    }

    /// Fails with its log when it has ended.
    pub(crate) fn lives(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            bail!("the controller ended: {status}\n{log}");
        }
        Ok(())
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Processor time since its start.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        Ok(processor_time(self.child.id())?)
    }

    /// One metric without labels; `None` while the page does not answer.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let page = reqwest::get(format!("http://{}/metrics", self.probes)).await.ok()?;
        let text = page.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Memory in RAM, in MiB.
    pub(crate) fn mebibytes(&self) -> anyhow::Result<f64> {
        Ok(resident(self.child.id())? as f64 / f64::from(1 << 20))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What the controller's user asks of the API server from now on, as the API server itself has it.
pub(crate) struct Witness {
    log: PathBuf,
    from: u64,
}

/// One request.
pub(crate) struct Asked {
    pub(crate) verb: String,
    /// With its subresource.
    pub(crate) resource: String,
    /// When it arrived, as text that sorts.
    pub(crate) at: String,
}

impl Witness {
    pub(crate) fn new(plane: &Plane) -> anyhow::Result<Self> {
        let log = plane.directory().join("audit.log");
        let from = log.metadata()?.len();
        Ok(Self { log, from })
    }

    /// All requests since then that have been answered, but for watches.
    pub(crate) fn asked(&self) -> anyhow::Result<Vec<Asked>> {
        let (mut file, mut text) = (File::open(&self.log)?, String::new());
        file.seek(SeekFrom::Start(self.from))?;
        file.read_to_string(&mut text)?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _torn)| whole);
        let ours = whole.lines().filter(|line| line.contains("\"kubervisor\""));
        let events = ours.map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        Ok(events
            .iter()
            .filter(|event| event["user"]["username"] == "kubervisor")
            .filter_map(asked)
            .collect())
    }
}

fn asked(event: &Value) -> Option<Asked> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let verb = text("/verb").filter(|verb| *verb != "watch")?;
    if text("/stage") != Some("ResponseComplete") {
        return None;
    }
    let plain = text("/objectRef/resource").or_else(|| text("/requestURI")).unwrap_or_default();
    let under = text("/objectRef/subresource").map_or_else(String::new, |under| format!("/{under}"));
    let at = text("/requestReceivedTimestamp").unwrap_or_default().to_owned();
    Some(Asked { verb: verb.to_owned(), resource: format!("{plain}{under}"), at })
}

/// Requests by verb and resource, in words.
pub(crate) fn counted(asked: &[Asked]) -> String {
    let mut counts = BTreeMap::new();
    for one in asked {
        *counts.entry(format!("{} {}", one.verb, one.resource)).or_insert(0_u32) += 1;
    }
    let words: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    words.join(", ")
}
