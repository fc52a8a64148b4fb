//! The cluster that `scripts/node` started: its API, its commands, its faults.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

/// The node's address, where the API server is, and what a test serves to pods.
pub(crate) const ADDRESS: &str = "192.0.2.1";

/// An administrator's.
pub(crate) const KUBECONFIG: &str = "/run/node/plane/admin.kubeconfig";

/// An administrator's client.
pub(crate) async fn client() -> Client {
    Client::try_default().await.unwrap()
}

/// Runs a command of the shell and returns what it printed.
pub(crate) fn shell(command: &str) -> String {
    let done = Command::new("bash").args(["-euo", "pipefail", "-c", command]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command}: {}{said}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// `kubectl apply --server-side` of this text.
pub(crate) fn apply(manifest: &str) {
    let mut child = Command::new("kubectl")
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{manifest}");
}

/// A command to the control plane, such as `kill kube-apiserver`; see `tests/cluster/up.go`.
pub(crate) fn plane(command: &str) {
    let mut control = OpenOptions::new().write(true).open("/run/node/control").unwrap();
    writeln!(control, "{command}").unwrap();
}

/// The processes of a pod's container, by the pod's UID and the program's name.
pub(crate) fn processes(uid: &str, program: &str) -> Vec<u32> {
    let read = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| read(*pid, "comm").trim() == program && read(*pid, "cgroup").contains(uid)).collect()
}

/// A namespace in which Pod Security `restricted` is enforced; it goes in the background when this is dropped.
pub(crate) struct Space {
    pub(crate) name: &'static str,
}

impl Space {
    pub(crate) async fn create(client: &Client, name: &'static str) -> Self {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        let namespace: Namespace = serde_json::from_value(namespace).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self { name }
    }

    /// Deletes it, and all that is in it.
    pub(crate) async fn delete(self, client: &Client) {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.delete(self.name, &DeleteParams::default()).await.unwrap();
    }
}

/// Asks every 10 ms until the answer is there; how long it took.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return (answer, began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(60), "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
