//! What needs no process of ours: promtool, and the rules that Grafana's linter and the monitoring mixins have.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::{alerts, dashboard, queries, read, root, rules};

const NAMES: [&str; 8] = [
    "KubervisorDown",
    "KubervisorFloorReached",
    "KubervisorWithheldRatioHigh",
    "KubervisorWithheldTooLong",
    "KubervisorNoData",
    "KubervisorFlapping",
    "KubervisorReconcileErrors",
    "KubervisorKeepalivesLost",
];

fn promtool(arguments: &[&str]) {
    let done =
        Command::new("promtool").args(arguments).current_dir(root()).output().expect("run scripts/need test");
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_finds_the_rules_right_and_each_alert_fires_and_does_not_fire_when_it_should() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "charts/kubervisor/files/alerts.yaml"]);
    promtool(&["test", "rules", "tests/monitoring/alerts.yaml"]);
    let tests: Value = serde_saphyr::from_str(&read("tests/monitoring/alerts.yaml")).unwrap();
    for name in NAMES {
        let all = tests["tests"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|test| test["alert_rule_test"].as_array().unwrap());
        let (fires, quiet): (Vec<_>, Vec<_>) = all
            .filter(|test| test["alertname"] == name)
            .partition(|test| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()));
        assert!(!fires.is_empty() && !quiet.is_empty(), "{name} needs a case of both kinds");
    }
}

#[test]
fn each_alert_has_severity_summary_description_and_a_runbook() {
    let names: Vec<String> =
        alerts().iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, NAMES);
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&alert["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        assert!(alert["for"].is_string(), "{name} fires at once");
        let annotation =
            |key: &str| alert["annotations"][key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"));
        assert!(
            annotation("summary").ends_with('.') && !annotation("summary").contains("{{"),
            "{name}: a fixed sentence"
        );
        assert!(annotation("description").len() > 40, "{name}");
        let page = annotation("runbook_url").rsplit('/').next().unwrap();
        assert_eq!(page, format!("{name}.md"));
        assert!(read("docs/runbooks/README.md").contains(&format!("[{name}]({name}.md)")));
        let text = read(&format!("docs/runbooks/{page}"));
        let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, ["Meaning", "Impact", "Diagnosis", "Mitigation"], "{page}");
    }
    let pages = std::fs::read_dir(root().join("docs/runbooks")).unwrap().count();
    assert_eq!(pages, NAMES.len() + 1, "no page without an alert");
}

#[test]
fn rules_and_dashboard_use_metrics_that_the_documentation_has() {
    let table = read("docs/metrics.md");
    let texts = rules().iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let texts = texts.into_iter().chain(queries().into_iter().map(|(_, query)| query));
    for text in texts {
        let words = text.split(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | ':'));
        for metric in words.filter(|word| word.starts_with("kubervisor_")) {
            let suffixes = ["_total", "_info", "_bucket", "_sum", "_count", ""];
            let known = suffixes.iter().filter_map(|suffix| metric.strip_suffix(suffix));
            let known = known.into_iter().any(|family| table.contains(&format!("| `{family}` |")));
            assert!(known, "{metric} of {text}");
        }
    }
}

/// The rules of Grafana's dashboard linter, which cannot be had here.
#[test]
fn the_dashboard_keeps_the_rules_of_grafanas_linter() {
    let board = dashboard();
    assert!(board["uid"].as_str().is_some_and(|uid| !uid.is_empty()) && board["title"].is_string());
    assert_eq!(board["editable"], false);
    let variables = board["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "cluster", "job", "namespace", "resource"]);
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
    for variable in &variables[1..] {
        assert_eq!(variable["datasource"]["uid"], "${datasource}", "{variable}");
        assert!(
            variable["label"].is_string() && variable["allValue"] == ".*" && variable["multi"] == true,
            "{variable}"
        );
        assert_eq!(variable["refresh"], 2, "on a change of the time range: {variable}");
    }
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64()) && titles.insert(title.to_owned()),
            "{title} is there twice"
        );
        assert!(
            ["stat", "timeseries", "table"].contains(&panel["type"].as_str().unwrap()),
            "{title}: a legacy panel"
        );
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()),
            "{title}"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(
            panel["gridPos"]["x"].as_u64().unwrap() + panel["gridPos"]["w"].as_u64().unwrap() <= 24,
            "{title}"
        );
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(
                query.contains("job=~\"$job\"") && query.contains("cluster=~\"$cluster\""),
                "{title}: {query}"
            );
            for range in query.split('[').skip(1) {
                assert!(range.starts_with("$__rate_interval]"), "{title}: a fixed range in {query}");
            }
        }
    }
}
