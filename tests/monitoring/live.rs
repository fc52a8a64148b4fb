//! A real Prometheus with our rules scrapes a real controller on the plane: each alert is quiet first, and fires once its
//! cause is there. Durations (`for`, ranges) and the number of withdrawals are shortened.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kube::Client;
use serde_json::{Value, json};

use crate::{
    controller::{self, Controller},
    plane::{self, Alone, Component, User},
    ports, queries, read,
    scraper::Prometheus,
    shop::{self, Shop},
    signals::Signals,
};

/// An agent, killed with the test.
struct Agent(Child);

impl Agent {
    fn start(master: SocketAddrV4) -> Self {
        let port = ports::free(Ipv4Addr::LOCALHOST).port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubervisor"));
        command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, value) in [
            ("KONTROL_MODE", "slave".to_owned()),
            ("KONTROL_ID", "web-1".to_owned()),
            ("KONTROL_IP", "127.0.0.1".to_owned()),
            ("KONTROL_PORT", port.to_string()),
            ("KONTROL_TTL", "2.5".to_owned()),
            ("KONTROL_LABELS", json!({"app": "kubervisor", "role": "web"}).to_string()),
            ("KONTROL_ANNOTATIONS", json!({"kontrol.unity3d.com/master": master.to_string()}).to_string()),
            ("KUBERVISOR_ADDR", "off".to_owned()),
            ("KUBERVISOR_ADMIN_ADDR", "off".to_owned()),
        ] {
            command.env(name, value);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

struct Scene {
    plane: Alone,
    shop: Shop,
    signals: Signals,
    controller: Controller,
    keepalives: SocketAddrV4,
    prometheus: Prometheus,
    http: reqwest::Client,
    _directory: tempfile::TempDir,
}

/// The rules with short times: the causes last for seconds here.
fn shortened() -> String {
    let text = read("charts/kubervisor/files/alerts.yaml");
    let lines = text.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
        Some(_) => line.split("for: ").next().unwrap().to_owned() + "for: 1s",
        None => line.replace("[1h])) > 20", "[1h])) > 2").replace("[5m]", "[20s]"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Scene {
    async fn set() -> Self {
        let plane = plane::alone().await;
        shop::install(&plane);
        let client: Client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "alerts").await;
        let signals = Signals::start();
        // A return after a second, again and again.
        let recipe = shop::Recipe::of("web", 3)
            .spec("defaultActivator", json!({"mode": "periodic", "period": 0.5, "maxPeriod": 0.5}))
            .breaker("slow", &signals.service("bad"), 50);
        let shop = recipe.apply(&plane, &client, &namespace).await;
        let keepalives = ports::free(Ipv4Addr::LOCALHOST);
        let controller = controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor))
            .namespace(&namespace)
            .argument("--keepalives")
            .argument(keepalives.to_string())
            .variable("KONTROL_TTL", "2.5")
            .variable(
                "KUBERVISOR_STORE",
                &format!("embedded:{}", tempfile::tempdir().unwrap().keep().join("k.redb").display()),
            )
            .start();
        controller.ready().await;
        let SocketAddr::V4(address) = controller.address() else { panic!("an IPv4 address") };
        let directory = tempfile::tempdir().unwrap();
        let prometheus = Prometheus::start_with(
            directory.path(),
            Ipv4Addr::LOCALHOST,
            &[("controller".to_owned(), address)],
            None,
            &["--web.enable-lifecycle"],
        )
        .await;
        let config = fs::read_to_string(directory.path().join("prometheus.yml")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["global"]["evaluation_interval"] = json!("500ms");
        config["rule_files"] = json!(["rules.yml"]);
        fs::write(directory.path().join("rules.yml"), shortened()).unwrap();
        fs::write(directory.path().join("prometheus.yml"), config.to_string()).unwrap();
        let http = reqwest::Client::new();
        let scene =
            Self { plane, shop, signals, controller, keepalives, prometheus, http, _directory: directory };
        let reload = scene.http.post(format!("http://{}/-/reload", scene.prometheus.address)).send();
        assert!(reload.await.unwrap().status().is_success());
        scene
    }

    /// The result of an instant query.
    async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let url = format!("http://{}/api/v1/query", self.prometheus.address);
        let answer =
            self.http.get(url).query(&[("query", query)]).send().await.map_err(|error| error.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        match answer["status"].as_str() {
            Some("success") => {
                Ok(answer["data"]["result"].as_array_mut().map(std::mem::take).unwrap_or_default())
            }
            _ => Err(answer.to_string()),
        }
    }

    /// The alerts that fire.
    async fn firing(&self) -> Vec<String> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await.unwrap_or_default();
        let mut names: Vec<String> =
            alerts.iter().map(|alert| alert["metric"]["alertname"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    async fn until_fires(&self, name: &str) {
        let name = format!("Kubervisor{name}");
        let began = Instant::now();
        while !self.firing().await.contains(&name) {
            if began.elapsed() > Duration::from_secs(60) {
                let (code, metrics) = self.controller.get("/metrics").await.unwrap_or_default();
                panic!("{name} does not fire; {:?} do; {code} {metrics}", self.firing().await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        eprintln!("{name} fired after {:.1} s", began.elapsed().as_secs_f64());
    }

    async fn until_query(&self, query: &str) {
        let began = Instant::now();
        while self.query(query).await.unwrap_or_default().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "no answer to {query}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn each_alert_fires_from_the_controllers_own_metrics_and_the_dashboards_queries_are_answered() {
    let scene = Scene::set().await;
    let agent = Agent::start(scene.keepalives);
    scene.until_query("kubervisor_ensemble_pods == 1").await;
    scene.until_query("kubervisor_gate_serving == 3").await;
    // Several evaluations of a healthy fleet.
    scene.until_query("count_over_time(kubervisor_gate_serving[3s]) >= 5").await;
    assert_eq!(scene.firing().await, [] as [&str; 0], "a healthy fleet");

    drop(agent);
    scene.until_fires("KeepalivesLost").await;
    let names = scene.shop.names().await.unwrap();
    for (bad, entries) in [(1, 1), (0, 0)].into_iter().cycle().take(8) {
        scene.signals.bad("bad", &scene.shop.namespace, names.iter().take(bad).cloned());
        let landed = || async { (scene.shop.entries().await == Some(entries)).then_some(()) };
        plane::until("it is withheld, or back", landed).await;
    }
    scene.until_fires("Flapping").await;
    scene.signals.bad("bad", &scene.shop.namespace, names.iter().take(2).cloned());
    for alert in ["WithheldRatioHigh", "WithheldTooLong", "FloorReached"] {
        scene.until_fires(alert).await;
    }
    for (title, query) in queries() {
        let query = query.replace("$__rate_interval", "1m");
        let query = ["cluster", "job", "namespace", "resource"]
            .iter()
            .fold(query, |query, variable| query.replace(&format!("${variable}"), ".*"));
        let rows = scene.query(&query).await.unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
        assert!(!rows.is_empty(), "{title}: nothing answers {query}");
    }
    scene.signals.fails("bad", true);
    scene.until_fires("NoData").await;
    scene.plane.kill(Component::ApiServer);
    scene.until_fires("ReconcileErrors").await;
    scene.controller.kill();
    scene.until_fires("Down").await;
    scene.plane.restart(Component::ApiServer);
}

#[tokio::test]
async fn both_formats_hold_what_prometheus_checks() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let controller = controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor)).start();
    controller.ready().await;
    let url = format!("http://{}/metrics", controller.address());
    let (http, text) = (reqwest::Client::new(), "text/plain; version=0.0.4; charset=utf-8");
    for (accept, wanted) in [
        ("text/plain", text),
        ("*/*", text),
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let answer = http.get(&url).header("accept", accept).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], wanted, "{accept}");
        let body = answer.text().await.unwrap();
        assert_eq!(body.ends_with("# EOF\n"), wanted != text, "{accept}");
        if wanted == text {
            check(&body);
        }
    }
    let plain = http.get(&url).header("accept", "text/plain").send().await.unwrap().text().await.unwrap();
    assert!(plain.contains("# TYPE kubervisor_gate_plans_total counter"), "{plain}");
}

/// `promtool check metrics` finds no syntax error and no counter without `_total`.
fn check(text: &str) {
    use std::io::Write as _;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    // The original's name, which dashboards of today use.
    let lines: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("kubervisor_breaker_count ")).collect();
    assert_eq!(lines, [] as [&str; 0], "{said}");
}
