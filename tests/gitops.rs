//! How GitOps tools read a KubervisorService, and what happens when they write beside us: kstatus (Flux, cli-utils), Argo CD's
//! health script, server-side apply.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/controller.rs"]
mod controller;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Once, OnceLock},
};

use kube::Client;
use serde_json::{Value, json};

use controller::Controller;
use plane::{Plane, Shared, User, until};
use shop::Shop;
use signals::Signals;

/// The status that cli-utils computes, with its message.
fn kstatus(object: &Value) -> String {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kstatus");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/kstatus");
        let mut build = Command::new("go");
        build
            .current_dir(source)
            .env("CGO_ENABLED", "0")
            .args(["build", "-trimpath", "-buildvcs=false", "-o"])
            .arg(&program);
        let built = build.arg(".").output().expect("go is needed: run scripts/need test");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        program
    });
    piped(Command::new(program), &object.to_string())
}

/// A program's output for this input; it has to succeed.
fn piped(mut command: Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}\n{input}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => write!(text, "{value}").unwrap(),
        Value::String(string) => write!(text, "[==[{string}]==]").unwrap(),
        Value::Array(items) => {
            write!(text, "{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")).unwrap()
        }
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("[ [==[{key}]==] ]={}", lua(value)));
            write!(text, "{{{}}}", members.collect::<Vec<_>>().join(",")).unwrap();
        }
    }
    text
}

/// Status and message of Argo CD's health script.
fn health(object: &Value) -> String {
    let script =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/argocd/health.lua")).unwrap();
    let script = format!(
        "local obj = {}\nlocal health = (function()\n{script}\nend)()\nprint(health.status .. \" \" .. health.message)\n",
        lua(object)
    );
    let mut command = Command::new("lua5.4");
    command.arg("-");
    piped(command, &script)
}

struct Scene {
    plane: Shared,
    client: Client,
    namespace: String,
    signals: Signals,
}

impl Scene {
    async fn set(hint: &str) -> Self {
        static INSTALLED: Once = Once::new();
        let plane = plane::shared().await;
        INSTALLED.call_once(|| shop::install(&plane));
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, hint).await;
        Self { plane, client, namespace, signals: Signals::start() }
    }

    async fn controller(&self) -> Controller {
        let recipe = controller::Recipe::with_kubeconfig(self.plane.kubeconfig(User::Kubervisor));
        let controller = recipe.namespace(&self.namespace).start();
        controller.ready().await;
        controller
    }

    fn recipe(&self) -> shop::Recipe {
        shop::Recipe::of("web", 3).breaker("slow", &self.signals.service("bad"), 50)
    }

    /// Server-side apply by another manager, which takes conflicting fields as GitOps tools do.
    fn applied(&self, object: &Value) {
        let manager = ["apply", "--server-side", "--field-manager=argocd-controller", "--force-conflicts"];
        let done = self.kubectl(&[&manager[..], &["-f", "-"]].concat(), object);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn kubectl(&self, arguments: &[&str], input: &Value) -> std::process::Output {
        let arguments = [&["-n", &self.namespace], arguments].concat();
        Plane::kubectl(&self.plane, User::Admin, &arguments, &input.to_string())
    }
}

/// Waits until kstatus and the health script both say so.
async fn until_read_as(shop: &Shop, status: &str, healthy: &str) -> Value {
    let what = format!("{status} and {healthy}");
    let read = until(&what, || async {
        let object = shop.resource().await.ok()?;
        (kstatus(&object).starts_with(status) && health(&object).starts_with(healthy)).then_some(object)
    });
    read.await.0
}

#[tokio::test]
async fn tools_read_current_in_progress_and_failed_from_the_resource() {
    let scene = Scene::set("gitops-read").await;
    let shop = scene.recipe().apply(&scene.plane, &scene.client, &scene.namespace).await;
    let new = shop.resource().await.unwrap();
    assert!(health(&new).starts_with("Progressing"), "before any controller: {}", health(&new));
    let _controller = scene.controller().await;
    until_read_as(&shop, "Current", "Healthy").await;

    // The schema knows no number of a port: it lets this in.
    let broken = scene.recipe().breaker("broken", "detector:99999", 50);
    scene.applied(&broken.resource());
    let object = until_read_as(&shop, "Failed", "Degraded").await;
    assert!(kstatus(&object).contains("customService"), "{}", kstatus(&object));
    let waited =
        scene.kubectl(&["wait", "--for=condition=Stalled", "kvs/web", "--timeout=10s"], &Value::Null);
    assert!(waited.status.success(), "{}", String::from_utf8_lossy(&waited.stderr));

    scene.applied(&scene.recipe().resource());
    until_read_as(&shop, "Current", "Healthy").await;
    scene.applied(&scene.recipe().spec("paused", json!(true)).resource());
    until_read_as(&shop, "Current", "Suspended").await;
    scene.applied(&scene.recipe().spec("service", json!("another")).resource());
    until_read_as(&shop, "InProgress", "Progressing").await;
}

#[tokio::test]
async fn a_spec_that_no_controller_has_seen_yet_is_in_progress() {
    let scene = Scene::set("gitops-unseen").await;
    let shop = scene.recipe().apply(&scene.plane, &scene.client, &scene.namespace).await;
    let controller = scene.controller().await;
    until_read_as(&shop, "Current", "Healthy").await;
    controller.stop();
    scene.applied(&scene.recipe().spec("panicThreshold", json!(50)).resource());
    let object = shop.resource().await.unwrap();
    assert!(kstatus(&object).starts_with("InProgress"), "{}", kstatus(&object));
    assert!(health(&object).starts_with("Progressing"), "{}", health(&object));
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    entries.map(|entry| entry["manager"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn server_side_apply_by_another_manager_and_our_writes_leave_each_other_alone() {
    let scene = Scene::set("gitops-apply").await;
    let recipe = scene.recipe();
    let shop = recipe.apply(&scene.plane, &scene.client, &scene.namespace).await;
    let _controller = scene.controller().await;
    let chosen = shop.names().await.unwrap().swap_remove(0);
    scene.signals.bad("bad", &scene.namespace, [chosen.clone()]);
    until("it is withheld", || async { (shop.entries().await == Some(1)).then_some(()) }).await;
    until("its label says so", || async {
        let pods = shop.pods().await.ok()?;
        let labels =
            pods.into_iter().find(|pod| pod.metadata.name.as_ref() == Some(&chosen))?.metadata.labels?;
        (labels.get("kubervisor/traffic").map(String::as_str) == Some("no")).then_some(())
    })
    .await;
    let asked = scene.signals.asked("bad");
    let items = recipe.workload()["items"].as_array().unwrap().clone();
    for _ in 0..3 {
        items.iter().for_each(|item| scene.applied(item));
        scene.applied(&recipe.resource());
    }
    until("it is judged on", || async { (scene.signals.asked("bad") > asked + 3).then_some(()) }).await;
    let resource = shop.resource().await.unwrap();
    assert_eq!(
        resource["metadata"]["finalizers"],
        json!(["kubervisor.k8s.io/give-traffic-back"]),
        "an apply takes no finalizer off"
    );
    assert_eq!(shop.names().await.unwrap().len(), 3, "no pod was replaced");
    assert!(managers(&resource).contains(&"kubervisor".to_owned()), "{:?}", managers(&resource));
    let read = scene.kubectl(&["get", "pod", &chosen, "-o", "json", "--show-managed-fields"], &Value::Null);
    let pod: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert!(managers(&pod).contains(&"kubervisor".to_owned()), "{:?}", managers(&pod));
    let agent = format!("kubervisor/{}", env!("CARGO_PKG_VERSION"));
    let ours = scene.plane.audit(&scene.namespace).into_iter();
    let ours: Vec<Value> =
        ours.filter(|event| event["user"]["username"] == User::Kubervisor.name()).collect();
    assert!(ours.len() > 5);
    for event in ours {
        assert_eq!(event["userAgent"], json!(agent), "{event}");
    }
}
