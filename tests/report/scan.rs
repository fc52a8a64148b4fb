//! `kubervisor scan`: which manifests it proposes for the usual metrics of a namespace, and in which order.

use std::{collections::BTreeSet, process::Output};

use serde_json::json;

use crate::{
    front::{Fault, Front},
    shop::{LENGTH, SCRAPED, Shop},
    stage::{Stage, kubervisor, said},
};

/// Seconds after the start between which `web-3` fails.
const FAILING: std::ops::Range<u64> = 7200..9000;

/// Requests and latencies of `pods` pods of a program, four requests a second each; one of them may fail for a while.
fn serve(shop: &mut Shop, program: &str, pods: u64, failing: Option<u64>) {
    for pod in 0..pods {
        let of = format!("namespace=\"shop\",pod=\"{program}-{pod}\"");
        let mut counts = [0.0, 0.0];
        for at in (0..LENGTH).step_by(usize::try_from(SCRAPED).unwrap()) {
            let bad = failing == Some(pod) && FAILING.contains(&at);
            let failed = if bad { 120.0 } else { (pod * 7 + at / 60) as f64 % 2.0 };
            counts[0] += 240.0 - failed;
            counts[1] += failed;
            for (code, count) in ["200", "503"].iter().zip(counts) {
                shop.history.sample(
                    "http_requests_total",
                    &format!("{of},code=\"{code}\""),
                    count,
                    shop.at(at),
                );
            }
            for (le, share) in [("0.1", 0.9), ("0.5", 1.0), ("+Inf", 1.0)] {
                let labels = format!("{of},le=\"{le}\"");
                let all = (counts[0] + counts[1]) * share;
                shop.history.sample("http_request_duration_seconds_bucket", &labels, all, shop.at(at));
            }
        }
    }
}

/// What kube-state-metrics says about the Service of a program.
fn behind_service(shop: &mut Shop, program: &str, net: u64, pods: u64) {
    for pod in 0..pods {
        let address = format!("10.0.{net}.{pod}");
        let endpoint = format!("namespace=\"shop\",endpoint=\"{program}\",ip=\"{address}\",ready=\"true\"");
        shop.gauge("kube_endpoint_address", &endpoint, 0..LENGTH, |_| 1.0);
        let info = format!("namespace=\"shop\",pod=\"{program}-{pod}\",pod_ip=\"{address}\",node=\"n\"");
        shop.gauge("kube_pod_info", &info, 0..LENGTH, |_| 1.0);
    }
}

fn scan(shop: &Shop, server: &str, namespace: &str) -> Output {
    let (from, to) = (shop.start.to_string(), (shop.start + LENGTH).to_string());
    kubervisor(&["scan", "--prometheus", server, "-n", namespace, "--from", &from, "--to", &to], &[])
}

/// The manifests, and their comments.
fn proposals(output: &Output) -> Vec<(serde_json::Value, String)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let documents = text.split("---\n").skip(1);
    documents.map(|text| (serde_saphyr::from_str(text).unwrap(), text.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_scanned_to_manifests_in_order_of_usefulness_that_check_accepts() {
    let (stage, mut shop) = (Stage::new(), Shop::new());
    serve(&mut shop, "cart", 12, None);
    serve(&mut shop, "web", 8, Some(3));
    serve(&mut shop, "tiny", 2, None);
    serve(&mut shop, "worker", 5, None);
    for (program, net, pods) in [("cart", 1, 12), ("web", 2, 8), ("tiny", 3, 2)] {
        behind_service(&mut shop, program, net, pods);
    }
    let prometheus = shop.serve(&stage).await;
    let front = Front::start(&stage, prometheus.address, |_| None).await;
    let before: BTreeSet<_> =
        std::fs::read_dir(stage.directory()).unwrap().map(|f| f.unwrap().path()).collect();
    let output = scan(&shop, &format!("http://{}", front.address), "shop");
    assert!(output.status.success(), "{}", said(&output));
    let found = proposals(&output);
    let names: Vec<&str> =
        found.iter().map(|(value, _)| value["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["web", "cart"],
        "what finds an outlier comes first; a worker has no Service: {}",
        said(&output)
    );
    for (value, text) in &found {
        assert_eq!(value["spec"]["dryRun"], true, "{text}");
        let breakers = value["spec"]["breakers"].as_array().unwrap();
        let names: Vec<&str> = breakers.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["errors", "latency"], "{text}");
    }
    let (_, web) = &found[0];
    assert!(web.contains("withheld 1 pods, 1 times") && web.contains("web-3 from"), "{web}");
    assert!(
        web.contains("http_requests_total (Prometheus client libraries), which 8 of 8 pods have"),
        "{web}"
    );
    let (_, cart) = &found[1];
    assert!(cart.contains("would have withheld no pod"), "{cart}");
    let all = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(all.contains("Without a proposal: tiny: at most 2 of its pods"), "{all}");

    // `web` and `cart` have twenty pods, which the report's own engine was asked about.
    let file = stage.write("proposed.yaml", &all).display().to_string();
    let checked = kubervisor(&["check", &file], &[]);
    assert!(checked.status.success(), "{}", said(&checked));
    let after: BTreeSet<_> =
        std::fs::read_dir(stage.directory()).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(after.difference(&before).count(), 1, "the scan wrote no file; the test wrote one");

    let shown = String::from_utf8(output.stderr).unwrap();
    let shown: BTreeSet<&str> = shown.lines().filter_map(|line| line.strip_prefix("query: ")).collect();
    let asked = front.asked.lock();
    let asked: BTreeSet<String> = asked.iter().map(|request| query_of(request)).collect();
    let not_shown: Vec<&String> = asked.iter().filter(|query| !shown.contains(query.as_str())).collect();
    assert!(asked.len() >= 8 && not_shown.is_empty(), "{not_shown:#?}");
}

/// The PromQL of a GET or a POST.
fn query_of(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let parameters = if head.starts_with("POST") { body } else { target.split_once('?').unwrap().1 };
    let address = reqwest::Url::parse(&format!("http://x/?{parameters}")).unwrap();
    address.query_pairs().find(|(name, _)| name == "query").unwrap().1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_scanned_with_its_credentials_and_what_is_printed_names_it_and_can_be_replayed() {
    let (stage, mut shop) = (Stage::new(), Shop::new());
    serve(&mut shop, "cart", 5, None);
    serve(&mut shop, "web", 6, Some(3));
    let prometheus = shop.serve(&stage).await;
    let front = Front::start(&stage, prometheus.address, |request| {
        let refused = "HTTP/1.1 401 X\r\nContent-Length: 9\r\nConnection: close\r\n\r\nwho is it";
        (!request.contains("authorization: Bearer s3cret\r\n")).then(|| Fault::Says(refused.to_owned()))
    })
    .await;
    let token = stage.write("token", "s3cret").display().to_string();
    let source = json!({"name": "central", "url": format!("http://{}", front.address), "auth": {"bearer": {"file": token}}});
    let sources =
        stage.write("sources.json", &json!({"sources": [source]}).to_string()).display().to_string();
    let (from, to) = (shop.start.to_string(), (shop.start + LENGTH).to_string());
    let scan = |server: &[&str]| {
        kubervisor(&[&["scan", "-n", "shop", "--from", &from, "--to", &to], server].concat(), &[])
    };
    let output = scan(&["--source", "central", "--sources", &sources]);
    assert!(output.status.success(), "{}", said(&output));
    let found = proposals(&output);
    assert_eq!(found.len(), 2, "{}", said(&output));
    for (value, text) in &found {
        assert_eq!(value["spec"]["breakers"][0]["source"], "central", "{text}");
        assert!(!text.contains("prometheusService:") && !text.contains("s3cret"), "{text}");
    }
    let file = stage.write("proposed.yaml", &String::from_utf8(output.stdout).unwrap()).display().to_string();
    let replayed = kubervisor(
        &["report", "-f", &file, "--sources", &sources, "--from", &from, "--to", &to, "-o", "json"],
        &[],
    );
    assert!(replayed.status.success(), "{}", said(&replayed));
    let models: serde_json::Value = serde_json::from_slice(&replayed.stdout).unwrap();
    let names: Vec<&str> = (0..2).map(|n| models[n]["policies"][0]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop/web", "shop/cart"], "in the order of the scan");
    assert_eq!(models[0]["policies"][0]["summary"]["episodes"], 1);

    let address = format!("http://{}", front.address);
    let without = scan(&["--prometheus", &address]);
    assert_eq!(without.status.code(), Some(1));
    assert!(said(&without).contains("401"), "{}", said(&without));
    let unknown = scan(&["--source", "elsewhere", "--sources", &sources]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("--sources has central"), "{}", said(&unknown));
    let both = scan(&["--source", "central", "--sources", &sources, "--prometheus", &address]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_grouped_by_workload_where_no_series_names_a_service_and_the_scan_says_so() {
    let (stage, mut shop) = (Stage::new(), Shop::new());
    serve(&mut shop, "web", 6, Some(3));
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let output = scan(&shop, &server, "shop");
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("pods are grouped by workload"), "{text}");
    let found = proposals(&output);
    assert_eq!((found.len(), &found[0].0["spec"]["service"]), (1, &"web".into()), "{text}");

    let nothing = scan(&shop, &server, "elsewhere");
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("no series of the namespace \"elsewhere\""), "{}", said(&nothing));
    let wrong = scan(&shop, &server, "shop\"} or vector(1) #");
    assert_eq!(wrong.status.code(), Some(2));
    let closed = scan(&shop, "127.0.0.1:1", "shop");
    assert_eq!(closed.status.code(), Some(1));
    assert!(said(&closed).contains("Prometheus at 127.0.0.1:1"), "{}", said(&closed));
}
