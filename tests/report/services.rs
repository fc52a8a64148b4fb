//! A manifest with several Services, such as `kubervisor scan` prints: each has a report of its own.

use std::process::Output;

use serde_json::{Value, json};

use crate::{
    shop::{LENGTH, Shop, policy},
    stage::{Stage, kubervisor, said},
};

/// A document for a Service whose pods the query names.
fn document(name: &str, server: &str, query: &str) -> Value {
    let mut resource = policy(&json!({}));
    (resource["metadata"]["name"], resource["spec"]["service"]) = (name.into(), name.into());
    let outlier = &mut resource["spec"]["breakers"][0]["outlier"];
    (outlier["prometheusService"], outlier["promQL"]) = (server.into(), query.into());
    resource
}

fn report(shop: &Shop, file: &str, further: &[&str]) -> Output {
    let (from, to) = (shop.start.to_string(), (shop.start + LENGTH).to_string());
    kubervisor(&[&["report", "-f", file, "--from", &from, "--to", &to], further].concat(), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_of_a_manifest_has_a_report_of_its_own_in_every_format() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let slow = document("slow", &server, "latency{pod=~\"web-[0-9]\"}");
    let calm = document("calm", &server, "latency{pod!~\"web-[35]\"}");
    let both = format!("# two\n---\n# first\n{slow}\n---\n# second\n{calm}\n");
    let file = stage.write("both.yaml", &both).display().to_string();

    let output = report(&shop, &file, &["-o", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    let models: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = |model: &Value| {
        let report = &model["policies"][0];
        let episodes = report["summary"]["episodes"].as_u64().unwrap();
        (report["name"].as_str().unwrap().to_owned(), model["fleet"]["pods"].as_u64().unwrap(), episodes)
    };
    let told: Vec<_> = models.as_array().unwrap().iter().map(told).collect();
    assert_eq!(told, [("shop/slow".to_owned(), 10, 2), ("shop/calm".to_owned(), 10, 0)]);

    let yaml = report(&shop, &file, &["-o", "yaml"]);
    let text = String::from_utf8(yaml.stdout).unwrap();
    let documents: Vec<Value> =
        text.split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    assert_eq!(documents.len(), 2);

    let page = stage.file("report.html");
    let output =
        report(&shop, &file, &["-o", "junit", "--fail-on", "withheld", "--html", page.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let xml = String::from_utf8(output.stdout).unwrap();
    assert!(xml.contains("<testsuite name=\"shop/slow\"") && xml.contains("<testsuite name=\"shop/calm\""));
    let page = std::fs::read_to_string(page).unwrap();
    for wanted in ["id=\"policy-1-title\">shop&#x2f;slow<", "id=\"policy-2-title\">shop&#x2f;calm<"] {
        assert_eq!(page.matches(wanted).count(), 1, "{wanted}: {page}");
    }
    assert_eq!((page.matches("# first").count(), page.matches("# second").count()), (1, 1), "own documents");

    let text = said(&report(&shop, &file, &[]));
    assert!(text.contains("shop/slow") && text.contains("shop/calm"), "{text}");
    let one_fleet = report(&shop, &file, &["--selector", "app=web"]);
    assert_eq!(one_fleet.status.code(), Some(2), "{}", said(&one_fleet));
    assert!(said(&one_fleet).contains("the pods of one Service"), "{}", said(&one_fleet));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_replayed_keeps_no_other_one_from_it() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let good = document("good", &prometheus.address.to_string(), "latency");
    let dead = document("dead", "127.0.0.1:1", "latency");
    let mut asked = document("asked", "127.0.0.1:1", "latency");
    asked["spec"]["breakers"] = json!([{"name": "asked", "customService": "http://judge:8080/pods"}]);
    let write = |all: &[&Value]| {
        let text: Vec<String> = all.iter().map(|one| one.to_string()).collect();
        stage.write("all.yaml", &text.join("\n---\n")).display().to_string()
    };
    let output = report(&shop, &write(&[&dead, &asked, &good]), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("2 pods, 2 times") && text.contains("not replayed: shop/dead"), "{text}");
    assert!(text.contains("shop/dead could not be replayed: Prometheus at 127.0.0.1:1"), "{text}");
    assert!(text.contains("shop/asked is left out: no breaker has a query"), "{text}");
    // What has no history is no failure.
    let output = report(&shop, &write(&[&asked, &good]), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}
