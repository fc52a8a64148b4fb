//! `docs/metrics.md` against a live master: every metric is in the table, with its type and labels, and none else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/ports.rs"]
mod ports;
#[path = "support/stage.rs"]
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use kubervisor::decide::alarm_reason::AlarmReason;
use serde_json::json;

use stage::{Node, Puppet, Stage, keeping_alive, until};

/// What a metric is: its type and its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    kind: String,
    labels: BTreeSet<String>,
}

type Shapes = BTreeMap<String, Shape>;

/// The metrics of a scrape. A family without samples shows its type only.
fn scraped(text: &str) -> Shapes {
    let mut shapes = Shapes::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            current = name.to_owned();
            shapes.insert(current.clone(), Shape { kind: kind.to_owned(), labels: BTreeSet::new() });
        } else if !line.starts_with('#')
            && let Some((name, rest)) = line.split_once('{')
        {
            assert!(name.starts_with(&*current), "{line} stands under {current}");
            let labels = rest.split_once('}').unwrap().0;
            let names =
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            // A histogram's own label.
            shapes.get_mut(&current).unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    shapes
}

/// The rows of the table.
fn documented() -> Shapes {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `kubervisor_"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("not four cells: {row}") };
        assert!(meaning.len() > 10, "says nothing: {row}");
        let labels =
            labels.split(',').map(|label| label.trim().trim_matches('`')).filter(|label| !label.is_empty());
        let shape = Shape { kind: kind.to_owned(), labels: labels.map(str::to_owned).collect() };
        (name.trim_matches('`').to_owned(), shape)
    })
    .collect()
}

/// The names that the source registers with a literal: a controller's are not shown by a master.
fn registered() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                // What a file's own tests register is no metric of ours.
                names.extend(registrations(text.split("#[cfg(test)]").next().unwrap()));
            }
        }
    }
    names
}

fn registrations(text: &str) -> impl Iterator<Item = String> {
    let calls = [
        "registry.register(",
        "registry.register_with_unit(",
        "encoder.encode_descriptor(",
        " registered(",
        "LabelledCounter::register(",
    ];
    calls.into_iter().flat_map(move |call| {
        text.split(call).skip(1).filter_map(move |rest| {
            // The last two take the registry first.
            let rest =
                rest.trim_start().trim_start_matches(|c: char| c.is_alphabetic() || c == ',').trim_start();
            let name = rest.strip_prefix('"')?.split('"').next()?;
            let unit = rest.split(';').next().unwrap().split("Unit::").nth(1).map(|unit| {
                let name: String = unit.chars().take_while(|letter| letter.is_alphabetic()).collect();
                format!("_{}", name.to_lowercase())
            });
            Some(format!("kubervisor_{name}{}", unit.unwrap_or_default()))
        })
    })
}

/// A master that uses everything that is measured.
async fn busy_master(stage: &Stage) -> Node {
    stage.write("answer", r#"{"traffic": {"pod-10": "withhold"}, "again": 0.2}"#);
    let policy = json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
        "spec": {"service": "shop", "breakers": [{"name": "errors", "evaluationPeriod": 0.3,
            "keepalive": {"pointer": "/errors", "max": 0.1}}]},
    });
    let policy = stage.write("policy.yaml", &policy.to_string());
    let master = stage
        .master(1)
        .env("KUBERVISOR_ENDPOINTS", stage.file("endpoints").display())
        .env("KUBERVISOR_TARGET_PORT", 80)
        .env("KUBERVISOR_POLICY", policy.display());
    master.start().await
}

#[tokio::test]
async fn the_table_of_metrics_is_what_a_live_master_shows() {
    let stage = Stage::new();
    let master = busy_master(&stage).await;
    let mut pods: Vec<_> =
        (10..14).map(|host| Puppet::new(&stage, host).paying(json!({"errors": 0}))).collect();
    let mut stranger = Puppet::new(&stage, 20);
    let text = keeping_alive(&master, &mut pods, async {
        master.until_withheld("pod-10").await;
        let _refused = stranger.say(&master, "{}").await;
        // In the older dialect too.
        let url = format!("http://{}/state", master.address);
        until("a state", async || stage::get(&url).await.is_some_and(|(status, _)| status == 200)).await;
        stage.write("fail", "yes");
        until("an alarm", async || master.alarm_is_up("callback_failed").await).await;
        master.metrics().await
    })
    .await;
    assert!(text.ends_with("# EOF\n"), "OpenMetrics");
    let (shown, told) = (scraped(&text), documented());
    if std::env::var_os("PRINT").is_some() {
        println!("{text}");
    }
    let names = |shapes: &Shapes| shapes.keys().cloned().collect::<BTreeSet<_>>();
    let (shown_names, told_names, registered) = (names(&shown), names(&told), registered());
    let existing: BTreeSet<_> = registered.union(&shown_names).cloned().collect();
    let missing: Vec<_> = existing.difference(&told_names).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    let unregistered: Vec<_> = told_names.difference(&existing).collect();
    assert!(unregistered.is_empty(), "in docs/metrics.md, but not registered: {unregistered:?}");
    let silent: Vec<_> = told_names.difference(&shown_names).collect();
    assert_eq!(
        silent,
        [
            "kubervisor_callback_warnings",
            "kubervisor_cluster_hand_over_seconds",
            "kubervisor_cluster_members",
            "kubervisor_cluster_moves",
            "kubervisor_cluster_owned_services",
            "kubervisor_detector_queries",
            "kubervisor_events",
            "kubervisor_gate_failures",
            "kubervisor_notifications",
            "kubervisor_store_errors"
        ],
        "without a sample"
    );
    for (name, shape) in shown {
        assert_eq!(shape.kind, told[&name].kind, "the type of {name}");
        if !shape.labels.is_empty() {
            assert_eq!(shape.labels, told[&name].labels, "the labels of {name}");
        }
    }
    for pod in ["pod-10", "pod-11"] {
        assert!(!text.contains(pod), "no pod's name in a label");
    }
}

#[test]
fn the_table_of_alarms_in_the_docs_is_the_one_in_the_code() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let table = text.split("| alarm | what it means |\n|---|---|\n").nth(1).unwrap();
    let documented: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let rows = AlarmReason::ALL.iter().map(|reason| format!("| `{reason}` | {} |", reason.help()));
    assert_eq!(documented, rows.collect::<Vec<_>>());
}
