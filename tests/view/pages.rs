//! What the pages of a master show, and what they refuse.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    http::{ask, page, read_until, sent},
    stage::{Node, Puppet, Stage, keeping_alive, until},
};

/// Judges `/errors`; half must serve.
fn policy() -> String {
    json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
        "spec": {
            "service": "shop",
            "defaultActivator": {"mode": "periodic", "period": 300, "jitter": 0},
            "breakers": [{
                "name": "errors", "evaluationPeriod": 0.3, "minPodsAvailableRatio": 50,
                "keepalive": {"pointer": "/errors", "max": 0.1},
            }],
        },
    })
    .to_string()
}

/// A master with that policy and an endpoints file, and five pods.
pub(super) async fn shop(stage: &Stage) -> (Node, Vec<Puppet>) {
    let file = stage.write("policy.yaml", &policy());
    let master = stage.master(1).env("KUBERVISOR_POLICY", file.display());
    let endpoints = stage.file("endpoints");
    let master = master.env("KUBERVISOR_ENDPOINTS", endpoints.display()).env("KUBERVISOR_TARGET_PORT", 80);
    let pods = (0..5).map(|number| Puppet::new(stage, 10 + number).paying(json!({"errors": 0.02})));
    let master = master.start().await;
    // It opens after the port of the keepalives.
    until("the admin port is open", async || TcpStream::connect(master.admin()).await.is_ok()).await;
    (master, pods.collect())
}

#[tokio::test]
async fn the_pages_show_fleet_pods_floor_values_ledger_ensemble_and_members() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    pods[1].payload = json!({"errors": 0.75});
    keeping_alive(&master, &mut pods, async {
        master.until_withheld("pod-11").await;
        let at = master.admin();
        let overview = until("it is withheld", async || {
            let overview = page(at, "/view").await;
            overview.body.contains("\u{d7} withholding").then_some(overview)
        })
        .await;
        for wanted in ["href=\"/view/services/test/shop\"", "4/3/5"] {
            assert!(overview.body.contains(wanted), "{wanted} in {}", overview.body);
        }
        let fleet = until("the time line has the pod", async || {
            let fleet = page(at, "/view/services/test/shop").await;
            fleet.body.contains("<title>withheld ").then_some(fleet)
        })
        .await;
        for wanted in [
            "from 0.02 to 0.75",
            "up to 0.1",
            "1 beyond",
            "existing 5) - floor 3",
            "pod-11",
            "keepalive.max",
            "withhold <strong>pod-11",
        ] {
            assert!(fleet.body.contains(wanted), "{wanted} in {}", fleet.body);
        }
        let pod = page(at, "/view/pods/test/shop/pod-11").await;
        for wanted in
            ["What was measured?", "errors: 0.75 (good up to 0.1)", "no: it is withheld", "What is next?"]
        {
            assert!(pod.body.contains(wanted), "{wanted} in {}", pod.body);
        }
        let good = page(at, "/view/pods/test/shop/pod-12").await;
        assert!(good.body.contains("it serves, and nothing objects"), "{}", good.body);
        let ensemble = page(at, "/view/ensemble?q=pod-1").await;
        assert!(
            ensemble.body.contains("5 of 5 pods are shown") && ensemble.body.contains("pod-14"),
            "{}",
            ensemble.body
        );
        let members = page(at, "/view/members").await;
        assert!(
            members.body.contains("leading") && members.body.contains(":8000</td>")
                || members.body.contains("<td>127."),
            "{}",
            members.body
        );
        for missing in ["/view/services/test/none", "/view/pods/test/shop/none", "/view/services/%00/%22"] {
            assert_eq!(page(at, missing).await.code, 404, "{missing}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_overview_is_sorted_and_filtered_by_its_address_and_works_without_a_script() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    keeping_alive(&master, &mut pods, async {
        until("all serve", async || master.page("services/test/shop").await["floor"]["serving"] == 5).await;
        let at = master.admin();
        let none = page(at, "/view?q=nothing&sort=alarms").await;
        assert!(
            none.body.contains("No service contains") && none.body.contains("0 of 1 services"),
            "{}",
            none.body
        );
        let some = page(at, "/view?q=SHOP&sort=alarms").await;
        assert!(some.body.contains("1 of 1 services"), "{}", some.body);
        assert!(some.body.contains("aria-sort=\"descending\"><a href=\"/view?sort=alarms"), "{}", some.body);
        let strange = page(at, "/view?q=%22%3E%3Cscript%3E&sort=%3Cb%3E&unknown=1").await;
        assert_eq!(strange.code, 200);
        assert!(!strange.body.contains("<script>") && !strange.body.contains("<b>"), "{}", strange.body);
    })
    .await;
}

#[tokio::test]
async fn every_answer_forbids_scripts_and_frames_of_others_and_loads_nothing_from_elsewhere() {
    let stage = Stage::new();
    let (master, _) = shop(&stage).await;
    let at = master.admin();
    for path in ["/view", "/view/style.css", "/view/live.js", "/view/services/no/no", "/services", "/nowhere"]
    {
        let answer = page(at, path).await;
        let policy = answer.head.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
        assert!(
            !answer.body.contains("//") || path.ends_with(".js") || !answer.body.contains("http"),
            "{path}"
        );
        assert!(!answer.body.contains(" style=") && !answer.body.contains("<button"), "{path}");
    }
    assert_eq!(page(at, "/").await.code, 307);
}

#[tokio::test]
async fn a_forged_host_is_refused_on_every_page() {
    let stage = Stage::new();
    let (master, _) = shop(&stage).await;
    let at = master.admin();
    for path in ["/view", "/services", "/ensemble", "/view/live"] {
        for host in ["evil.example", "evil.example:8087", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            let answer = ask(at, path, &format!("host: {host}\r\n")).await;
            assert_eq!(answer.code, 421, "{path} for {host}");
            assert!(answer.body.contains("--view-host"), "{}", answer.body);
        }
        let twice = ask(at, path, "host: localhost\r\nhost: evil.example\r\n").await;
        assert!(matches!(twice.code, 400 | 421), "{path}: {}", twice.code);
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]", "10.1.2.3:8087"] {
        assert_eq!(ask(at, "/view", &format!("host: {host}\r\n")).await.code, 200, "{host}");
    }
}

#[tokio::test]
async fn hostile_names_and_reasons_are_text() {
    let stage = Stage::new();
    let long = format!("<img src=x>\u{202e}\u{7}{}", "y".repeat(10_000));
    let answer = json!({"again": 0.3, "traffic": [{"id": "<script>alert(1)</script>", "verdict": "withhold", "reason": long}]});
    stage.write("answer", &answer.to_string());
    let master = stage.master(1).env("KONTROL_CALLBACK", stage.recorder().display());
    let endpoints = stage.file("endpoints");
    let master = master.env("KUBERVISOR_ENDPOINTS", endpoints.display()).env("KUBERVISOR_TARGET_PORT", 80);
    let master = master.start().await;
    let mut pods: Vec<Puppet> = (0..4).map(|number| Puppet::new(&stage, 10 + number)).collect();
    pods[0].id = "<script>alert(1)</script>".to_owned();
    keeping_alive(&master, &mut pods, async {
        let at = master.admin();
        let fleet = until("it is withheld", async || {
            let fleet = page(at, "/view/services/test/shop").await.body;
            fleet.contains("&lt;img src=x&gt;").then_some(fleet)
        })
        .await;
        let pod = page(at, "/view/pods/test/shop/%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
        assert_eq!(pod.code, 200);
        for body in [fleet, pod.body, page(at, "/view").await.body, page(at, "/view/ensemble").await.body] {
            assert!(!body.contains("<script>alert") && !body.contains("<img"), "markup: {body}");
            assert!(!body.contains('\u{202e}') && !body.contains('\u{7}'), "turned text: {body}");
            assert!(!body.contains(&"y".repeat(1000)), "text without an end");
        }
    })
    .await;
}

#[tokio::test]
async fn an_open_page_is_told_when_it_is_out_of_date_and_not_while_nothing_changes() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    keeping_alive(&master, &mut pods, async {
        until("all serve", async || master.page("services/test/shop").await["floor"]["serving"] == 5).await;
        until("the time line is quiet", async || {
            let mut quiet = sent(master.admin(), "/view/live", "host: localhost\r\n").await;
            read_until(&mut quiet, "event: changed", Duration::from_secs(4)).await.is_none()
        })
        .await;
    })
    .await;
    let mut open = sent(master.admin(), "/view/live", "host: localhost\r\n").await;
    let mut page_of_shop =
        sent(master.admin(), "/view/live?of=service&namespace=test&name=shop", "host: localhost\r\n").await;
    pods[2].payload = json!({"errors": 0.9});
    keeping_alive(&master, &mut pods, async {
        for stream in [&mut open, &mut page_of_shop] {
            let told = read_until(stream, "event: changed", Duration::from_secs(20)).await.unwrap();
            assert!(told.contains("text/event-stream") && !told.contains("pod-12"), "{told}");
        }
    })
    .await;
}
