//! The page of a report: drawn from a file, with its own style only, in dark, light and on paper.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    backfill::Backfill,
    chromium::Browser,
    live::{CUT_OFF, UNNAMED},
    stage::{PROGRAM, Stage, kubervisor, said, until},
};

/// Milliseconds from the start until the page is loaded, and until it was first painted; null before that.
const DRAWN: &str = "
    const [loaded] = performance.getEntriesByType('navigation');
    const [painted] = performance.getEntriesByType('paint');
    return painted && loaded.loadEventEnd > 0 ? [loaded.loadEventEnd, painted.startTime] : null";

const BACKGROUND: &str = "return getComputedStyle(document.body).backgroundColor";

/// Links whose target is not on the page.
const BROKEN: &str = "
    const broken = (link) => !document.getElementById(link.getAttribute('href').slice(1));
    return [...document.querySelectorAll('a')].filter(broken).length";

fn address(page: &Path) -> String {
    format!("file://{}", page.display())
}

#[tokio::test]
async fn the_demo_makes_the_page_within_a_minute_and_a_browser_shows_it_without_a_complaint() {
    let stage = Stage::new();
    let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), stage.file("demo"));
    let begun = Instant::now();
    let demo =
        Command::new(root.join("scripts/report-demo")).arg(&folder).env("KUBERVISOR", PROGRAM).output();
    let demo = demo.unwrap();
    assert!(demo.status.success(), "{}", said(&demo));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let page = folder.join("report.html");
    assert!(said(&demo).contains(&format!("The page: {}", page.display())), "{}", said(&demo));

    let browser = Browser::start().await;
    browser.open(&address(&page)).await;
    let text = browser.text().await;
    for wanted in ["4 pods, 4 times", "web-6d4cf56db6-tw6hr", "minDeviation: 0.05"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    let complaints = browser.console().await;
    assert!(complaints.is_empty(), "a policy is violated: {complaints:?}");
    assert_eq!(browser.run(CUT_OFF).await, json!(0), "everything fits into the width of the window");
    assert_eq!(browser.run(UNNAMED).await, json!(0), "pictures and tables have names for screen readers");
    assert_eq!(browser.run(BROKEN).await, json!(0), "every link leads to a place on the page");

    browser.emulate("screen", "prefers-color-scheme", "dark").await;
    assert_eq!(browser.run(BACKGROUND).await, "rgb(15, 19, 26)");
    browser.emulate("print", "prefers-color-scheme", "dark").await;
    assert_eq!(browser.run(BACKGROUND).await, "rgb(255, 255, 255)");
    browser.emulate("screen", "prefers-color-scheme", "light").await;
    assert_eq!(browser.run(BACKGROUND).await, "rgb(247, 248, 250)");

    let size = (1000, 1140);
    browser.picture(size).await;
    for (name, place) in [("report.png", "main"), ("report-values.png", "policy-1-values")] {
        browser.run(&format!("document.getElementById('{place}').scrollIntoView()")).await;
        let picture = browser.picture(size).await;
        assert!((5_000..200_000).contains(&picture.len()), "{name}: {} bytes", picture.len());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(root.join("docs/pictures").join(name), picture).unwrap();
        }
    }
    browser.quit().await;
}

/// A hundred pods for a week, one of which is slow for a while on each day.
async fn week(stage: &Stage) -> Value {
    const SCRAPED: u64 = 240;
    const DAY: u64 = 86_400;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let start = now - 7 * DAY;
    let mut history = Backfill::default();
    for pod in 0..100 {
        let labels = format!("namespace=\"shop\",pod=\"web-6d4cf56db6-{pod:05}\"");
        for at in (0..7 * DAY).step_by(SCRAPED.try_into().unwrap()) {
            let slow = pod % 14 == at / DAY && (pod * 900..pod * 900 + 3600).contains(&(at % DAY));
            let usual = 0.1 + 0.002 * ((pod * 7 + at / SCRAPED * 3) % 11) as f64;
            let value = if slow { usual * 8.0 } else { usual };
            history.sample("latency", &labels, value, (start + at) as f64);
        }
    }
    let prometheus = history.serve(stage.directory(), stage.ip(200), &[]).await;
    let policy = json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "breakers": [{
            "name": "slow", "evaluationPeriod": 60, "minPodsAvailableRatio": 50, "maxSampleAge": 300,
            "activator": {"mode": "periodic", "period": 60},
            "outlier": {"prometheusService": prometheus.address.to_string(), "promQL": "latency", "podNamekey": "pod"},
        }]},
    });
    let file = stage.write("policy.json", &policy.to_string()).display().to_string();
    let page = stage.file("week.html").display().to_string();
    let thresholds = "breakers[slow].outlier.threshold=3,3.5,5";
    let compared = stage.file("compared.html").display().to_string();
    let one = kubervisor(&["report", "-f", &file, "--from", "7d", "--html", &page, "-o", "json"], &[]);
    assert!(one.status.success(), "{}", said(&one));
    let several =
        kubervisor(&["report", "-f", &file, "--from", "1d", "--set", thresholds, "--html", &compared], &[]);
    assert!(several.status.success(), "{}", said(&several));
    serde_json::from_slice(&one.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_hundred_pods_and_a_week_is_small_and_drawn_within_a_second() {
    let stage = Stage::new();
    let model = week(&stage).await;
    assert!(
        model["policies"][0]["summary"]["episodes"].as_u64().unwrap() >= 40,
        "{}",
        model["policies"][0]["summary"]
    );
    let page = stage.file("week.html");
    let size = std::fs::metadata(&page).unwrap().len();
    assert!(size <= 2 << 20, "{size} bytes");
    let browser = Browser::start().await;
    // The best of a few, because other tests may use the machine.
    let mut best = f64::MAX;
    for _ in 0..3 {
        browser.open(&address(&page)).await;
        let drawn = until("the page is painted", async || browser.run(DRAWN).await.as_array().cloned()).await;
        let times = drawn.iter().map(|time| time.as_f64().unwrap());
        best = best.min(times.fold(0.0, f64::max));
    }
    println!("{size} bytes, drawn within {best:.0} ms");
    assert!(best <= 1000.0, "{best} ms");
    let rows = browser.run("return document.querySelectorAll('text[id*=row-]').length").await;
    assert_eq!(rows, json!(100), "a row for each pod");
    let withheld = browser.run("return document.querySelectorAll('rect.withheld').length").await;
    assert!(withheld.as_u64().unwrap() >= 40, "{withheld}");
    browser.open(&address(&stage.file("compared.html"))).await;
    assert_eq!(browser.run("return document.querySelectorAll('h2.policy').length").await, json!(3));
    assert_eq!(browser.run(BROKEN).await, json!(0));
    let complaints = browser.console().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.quit().await;
}
