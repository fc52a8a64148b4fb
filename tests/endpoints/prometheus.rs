//! The `file_sd` format, read by a real Prometheus.

use std::collections::BTreeSet;

use kubervisor::{
    adapters::sink::endpoints::EndpointsFile, alarms::Alarms, clock::Clock, config::EndpointsFormat,
};
use serde_json::Value;

use crate::stage::{Server, config, free_address, get, listing, until};

/// The targets that Prometheus has now: address and the fleet's label.
fn targets(address: std::net::SocketAddrV4) -> Option<BTreeSet<(String, String)>> {
    let (status, body) = get(address, "/api/v1/targets?state=active")?;
    if status != 200 {
        return None; // still starting
    }
    let answer: Value = serde_json::from_str(&body).unwrap();
    let active = answer.pointer("/data/activeTargets")?.as_array()?.clone();
    let of = |target: &Value| {
        let label = |name: &str| Some(target["labels"][name].as_str()?.to_owned());
        Some((label("instance")?, label("kubervisor_fleet")?))
    };
    active.iter().map(of).collect()
}

fn web(addresses: &[&str]) -> Option<BTreeSet<(String, String)>> {
    Some(addresses.iter().map(|address| ((*address).to_owned(), "web".to_owned())).collect())
}

#[tokio::test]
async fn prometheus_scrapes_exactly_the_pods_that_may_get_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let address = free_address([127, 77, 1, 1]);
    let scrape = format!(
        "global: {{scrape_interval: 1h}}\nscrape_configs:\n- job_name: fleet\n  file_sd_configs:\n  - files: ['{}']\n    refresh_interval: 1s\n",
        at("*.json")
    );
    std::fs::write(at("prometheus.yml"), scrape).unwrap();
    let settings = config(at("web.json").as_ref(), EndpointsFormat::FileSd, None);
    let file = EndpointsFile::start(&settings, "web", &Alarms::new(Clock::start()));
    file.project(listing(["127.77.1.2:80", "127.77.1.3:80", "127.77.1.4:8080"]));

    let _prometheus = Server::start(
        "prometheus",
        &[
            &format!("--config.file={}", at("prometheus.yml")),
            &format!("--storage.tsdb.path={}", at("data")),
            &format!("--web.listen-address={address}"),
        ],
    );
    until("Prometheus has all three", || {
        targets(address) == web(&["127.77.1.2:80", "127.77.1.3:80", "127.77.1.4:8080"])
    })
    .await;

    file.project(listing(["127.77.1.2:80", "127.77.1.4:8080"]));
    until("the withheld one is gone", || targets(address) == web(&["127.77.1.2:80", "127.77.1.4:8080"]))
        .await;
}
