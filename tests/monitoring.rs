//! Alerts, dashboard and runbooks: held to their conventions, and to a real Prometheus that scrapes a real controller.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/controller.rs"]
mod controller;
#[path = "monitoring/conventions.rs"]
mod conventions;
#[path = "monitoring/live.rs"]
mod live;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;

use std::{fs, path::Path};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rules of the chart.
fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read("charts/kubervisor/files/alerts.yaml")).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The alerts among them.
fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("charts/kubervisor/files/dashboard.json")).unwrap()
}

/// The queries of the dashboard's panels, with their titles.
fn queries() -> Vec<(String, String)> {
    let panels = dashboard()["panels"].as_array().unwrap().clone();
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels.iter().flat_map(of).collect()
}
