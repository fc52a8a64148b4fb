//! An agent in a pod takes its identity and its master from its pod, which it reads from a real API server with its own
//! service account.
//!
//! A container finds its account at a fixed path; the agent here gets one there in its own mount namespace.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use kube::Client;
use serde_json::json;

use crate::{
    plane::{self, Plane, User},
    stage::Stage,
};

/// Puts what is in `$1` where a container has its service account, and becomes the agent.
const IN_A_CONTAINER: &str = r#"
    mount -t tmpfs tmpfs /var/run
    mkdir -p /var/run/secrets/kubernetes.io
    cp -r "$1" /var/run/secrets/kubernetes.io/serviceaccount
    exec "$2" run
"#;

/// A namespace with a pod and the service account of its agent.
struct Site<'a> {
    plane: &'a Plane,
    stage: Stage,
    namespace: String,
}

impl<'a> Site<'a> {
    async fn new(plane: &'a Plane, client: &Client) -> Self {
        let site = Self { plane, stage: Stage::new(), namespace: plane.namespace(client, "own-pod").await };
        site.kubectl(&["create", "serviceaccount", "agent"], "");
        site
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let arguments = [&["-n", &self.namespace], arguments].concat();
        let done = self.plane.kubectl(User::Admin, &arguments, input);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Its account may get pods, as the chapter on configuration asks for.
    fn allow(&self) {
        self.kubectl(&["create", "role", "agent", "--verb=get", "--resource=pods"], "");
        let account = format!("--serviceaccount={}:agent", self.namespace);
        self.kubectl(&["create", "rolebinding", "agent", "--role=agent", &account], "");
    }

    /// A pod with labels, and an annotation that names the master.
    fn pod(&self, name: &str, master: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": {"app": "shop", "role": "web"},
                "annotations": {"kontrol.unity3d.com/master": master},
            },
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        });
        self.kubectl(&["apply", "-f", "-"], &pod.to_string());
    }

    /// The directory of the service account, as a kubelet would make it.
    fn account(&self) -> PathBuf {
        let folder = self.stage.file("account");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("token"), self.kubectl(&["create", "token", "agent"], "")).unwrap();
        fs::copy(self.plane.directory().join("ca.pem"), folder.join("ca.crt")).unwrap();
        fs::write(folder.join("namespace"), &self.namespace).unwrap();
        folder
    }

    /// The agent in the container of that pod; what is not set here it reads from the API server.
    fn agent(&self, pod: &str) -> Command {
        let server = self.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"], "");
        let (host, port) = server.trim_start_matches("https://").split_once(':').unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-e", "-c", IN_A_CONTAINER, "container"]);
        command.arg(self.account()).arg(env!("CARGO_BIN_EXE_kubervisor"));
        command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("KONTROL_MODE", "slave");
        command.env("HOSTNAME", pod).env("NAMESPACE", &self.namespace);
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        // The pod's address is not one of this machine, where many share the default port.
        command.env("KONTROL_BIND", self.stage.ip(9).to_string()).env("KONTROL_TTL", "3");
        command.env("KONTROL_USER", "").stdin(Stdio::null());
        command
    }

    /// Exit code and error message of an agent that cannot start.
    fn refused(&self, pod: &str) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.agent(pod).output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _code = self.0.wait();
    }
}

#[tokio::test]
async fn an_agent_reports_with_the_name_address_and_labels_of_its_pod_to_the_master_of_its_annotation() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let site = Site::new(&plane, &client).await;
    site.allow();
    let master = site.stage.master(1).start().await;
    // It may start before the pod has an address: it asks until there is one.
    site.pod("web-1", &master.address.to_string());
    let log = fs::File::create(site.stage.file("agent.log")).unwrap();
    let _agent = Running(site.agent("web-1").stderr(log).spawn().unwrap());

    // The callback's input is the keepalive's content.
    let run = site.stage.run_where("the keepalive has arrived", |run| !run.ids().is_empty()).await;
    let address = site.kubectl(&["get", "pod", "web-1", "-o", "jsonpath={.status.podIP}"], "");
    let pod = run.pod("web-1");
    let said = ["id", "ip", "app", "role"].map(|member| pod[member].as_str().unwrap_or_default());
    assert_eq!(said, ["web-1", &address, "shop", "web"], "{pod}");
}

#[tokio::test]
async fn an_agent_that_may_not_see_its_pod_says_what_to_allow_and_what_to_set() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let site = Site::new(&plane, &client).await;
    site.pod("web-1", "127.0.0.1");

    let (code, forbidden) = site.refused("web-1");
    assert_eq!(code, Some(2), "{forbidden}");
    for part in ["forbidden", "allow this service account to get pods", "KONTROL_LABELS", &site.namespace] {
        assert!(forbidden.contains(part), "no {part:?} in {forbidden}");
    }

    site.allow();
    let (code, missing) = site.refused("web-2");
    assert_eq!(code, Some(2), "{missing}");
    for part in ["\"web-2\" not found", "set NAMESPACE", "KONTROL_ID"] {
        assert!(missing.contains(part), "no {part:?} in {missing}");
    }
}
