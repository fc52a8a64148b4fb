//! The view of a real master with a fleet that goes bad.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    chromium::Browser,
    stage::{Node, Puppet, Stage, keeping_alive, until},
};

/// The number of elements that stick out of the window.
pub(super) const CUT_OFF: &str = "return document.documentElement.scrollWidth > innerWidth ? 1 : 0";

/// The number of pictures, tables and fields without a name.
pub(super) const UNNAMED: &str = "
    const nameless = (element) => !element.getAttribute('aria-label') && !element.querySelector('caption')
        && !(element.labels && element.labels.length);
    return [...document.querySelectorAll('svg, table, input:not([type=hidden])')].filter(nameless).length";

/// Judges `/errors` against the peers; half must serve.
fn policy() -> String {
    json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
        "spec": {
            "service": "shop",
            "defaultActivator": {"mode": "periodic", "period": 300, "jitter": 0},
            "breakers": [{
                "name": "errors", "evaluationPeriod": 0.5, "minPodsAvailableRatio": 50,
                "outlier": {"pointer": "/errors", "minDeviation": 0.05, "consecutive": {"of": 3, "bad": 2}},
            }],
        },
    })
    .to_string()
}

async fn shop(stage: &Stage) -> (Node, Vec<Puppet>) {
    let file = stage.write("policy.yaml", &policy());
    let master = stage.master(1).env("KUBERVISOR_POLICY", file.display());
    let endpoints = stage.file("endpoints");
    let master = master.env("KUBERVISOR_ENDPOINTS", endpoints.display()).env("KUBERVISOR_TARGET_PORT", 80);
    let pod = |number: u8| {
        Puppet::new(stage, 10 + number).paying(json!({"errors": 0.01 + f64::from(number) / 300.0}))
    };
    (master.start().await, (0..12).map(pod).collect())
}

async fn withheld(master: &Node, pods: usize) {
    until(&format!("{pods} are withheld"), async || {
        let page = master.page("services/test/shop").await;
        page["ledger"]["entries"].as_object().is_some_and(|entries| entries.len() == pods)
    })
    .await;
}

#[tokio::test]
async fn an_open_page_changes_by_itself_and_its_console_has_no_complaint() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    let browser = Browser::start().await;
    keeping_alive(&master, &mut pods, async {
        withheld(&master, 0).await;
        browser.open(&format!("http://{}/view/services/test/shop", master.admin())).await;
        until("the page is live", async || browser.text().await.contains("live")).await;
        browser.run("window.opened = true").await;
    })
    .await;
    pods[3].payload = json!({"errors": 0.9});
    keeping_alive(&master, &mut pods, async {
        until("the page shows the withdrawal", async || browser.text().await.contains("withhold pod-13"))
            .await;
        assert_eq!(browser.run("return window.opened").await, json!(true), "it was not loaded as a whole");
        let complaints = browser.console().await;
        assert!(complaints.is_empty(), "a policy is violated or a script failed: {complaints:?}");
        assert_eq!(browser.run(CUT_OFF).await, json!(0), "everything fits into the width of the window");
    })
    .await;
    browser.quit().await;
}

#[tokio::test]
async fn a_page_is_used_with_the_keyboard_and_keeps_what_is_being_typed() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    let browser = Browser::start().await;
    keeping_alive(&master, &mut pods, async {
        withheld(&master, 0).await;
        browser.open(&format!("http://{}/view", master.admin())).await;
        until("the page is live", async || browser.text().await.contains("live")).await;
        browser.run("const q = document.getElementById('q'); q.focus(); q.value = 'sho'").await;
    })
    .await;
    pods[3].payload = json!({"errors": 0.9});
    keeping_alive(&master, &mut pods, async {
        until("the page shows the withdrawal", async || browser.text().await.contains("11/6/12")).await;
        let typed = browser.run("return [document.activeElement.id, document.activeElement.value]").await;
        assert_eq!(typed, json!(["q", "sho"]));
        browser.run("document.getElementById('q').form.requestSubmit()").await;
        until("the filter is in the address", async || {
            browser.run("return location.search").await.as_str().is_some_and(|found| found.contains("q=sho"))
        })
        .await;
        let named = browser.run(UNNAMED).await;
        assert_eq!(named, json!(0), "pictures, tables and fields have names for screen readers");
    })
    .await;
    browser.quit().await;
}

#[tokio::test]
async fn pictures_of_the_view_for_the_docs() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    keeping_alive(&master, &mut pods, async {
        withheld(&master, 0).await;
        tokio::time::sleep(Duration::from_secs(40)).await;
    })
    .await;
    for (bad, count) in [(3, 1), (7, 2)] {
        pods[bad].payload = json!({"errors": 0.9});
        keeping_alive(&master, &mut pods, async {
            withheld(&master, count).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
        })
        .await;
    }
    let browser = Browser::start().await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    keeping_alive(&master, &mut pods, async {
        let pages = [
            ("view-overview.png", "/view", (900, 300)),
            ("view-service.png", "/view/services/test/shop", (900, 1000)),
            ("view-pod.png", "/view/pods/test/shop/pod-13", (900, 720)),
        ];
        for (name, page, size) in pages {
            browser.open(&format!("http://{}{page}", master.admin())).await;
            until("it is live", async || browser.text().await.contains("live")).await;
            let bytes = browser.picture(size).await;
            assert!(bytes.len() > 5_000, "{name} is empty: {} bytes", bytes.len());
            assert!(bytes.len() < 200_000, "{name} is too large for the repository: {} bytes", bytes.len());
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::create_dir_all(&docs).unwrap();
                std::fs::write(docs.join(name), bytes).unwrap();
            }
        }
    })
    .await;
    browser.quit().await;
}
