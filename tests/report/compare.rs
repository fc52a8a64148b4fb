//! Several policies over one fetch of the data, so that a threshold is chosen by looking.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    front::Front,
    shop::{SLOW, Shop, policy},
    stage::{Stage, kubervisor, said},
};

/// The known incidents of a shop.
fn labels(shop: &Shop) -> String {
    let mut labels = "# by hand\npod,from,to\n".to_owned();
    for (pod, from, to) in SLOW {
        writeln!(labels, "web-{pod},{},{}", shop.time(from), shop.time(to)).unwrap();
    }
    labels
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_share_one_fetch_and_each_is_what_it_is_alone() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let front = Front::start(&stage, prometheus.address, |_| None).await;
    let server = front.address.to_string();
    let asked = || std::mem::take(&mut *front.asked.lock()).len();
    let alone = shop.model(&stage, &server, &policy(&json!({})), &[]);
    let once = asked();
    assert!(once > 0);

    let labels = stage.write("labels.csv", &labels(&shop)).display().to_string();
    let second = policy(&json!({"activator": {"mode": "periodic", "period": 1800}}));
    let second = stage.write("second.json", &second.to_string()).display().to_string();
    let try_three = ["--set", "breakers[slow].outlier.threshold=3.5,40,900", "--labels", &labels];
    let several = ["-f", &second, "-o", "json"];
    let output = shop.report(&stage, &server, &policy(&json!({})), &[&try_three[..], &several[..]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(asked(), once, "six policies are asked for once");
    let model: Value = serde_json::from_slice(&output.stdout).unwrap();
    let policies = model["policies"].as_array().unwrap();
    let changes: Vec<&str> = policies.iter().map(|policy| policy["changes"][0].as_str().unwrap()).collect();
    let thresholds = ["3.5", "40", "900"].map(|value| format!("breakers[slow].outlier.threshold={value}"));
    assert_eq!(changes, [&thresholds[..], &thresholds[..]].concat());
    // 3.5 is the default.
    for member in ["episodes", "summary", "worst", "noData"] {
        assert_eq!(policies[0][member], alone["policies"][0][member], "{member}");
    }
    let episodes = |index: usize| policies[index]["summary"]["episodes"].as_u64().unwrap();
    assert_eq!((episodes(0), episodes(2), episodes(3), episodes(5)), (2, 0, 2, 0));
    let longer = |index: usize| policies[index]["summary"]["podMinutesWithheld"].as_f64().unwrap();
    assert!(longer(3) > longer(0) + 10.0, "an activator of half an hour: {} {}", longer(3), longer(0));
    let score = |index: usize, name: &str| policies[index]["score"][name].as_f64();
    assert!(score(0, "recall").unwrap() > 99.0 && score(0, "f1").unwrap() > 90.0, "{}", policies[0]["score"]);
    assert_eq!((score(2, "recall"), score(2, "precision")), (Some(0.0), None), "nothing is found");
    assert!(score(3, "precision").unwrap() < score(0, "precision").unwrap(), "withheld for too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_has_a_row_for_each_policy_and_with_labels_what_it_is_worth() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let labels = stage.write("labels.csv", &labels(&shop)).display().to_string();
    let further = ["--set", "breakers[slow].outlier.threshold=3,900", "--labels", &labels];
    let output = shop.report(&stage, &prometheus.address.to_string(), &policy(&json!({})), &further);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("POLICY"))
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let header = [
        "POLICY",
        "EPISODES",
        "POD-MINUTES",
        "HIGHEST SHARE",
        "NEAR-FLOOR MIN",
        "FLAPS",
        "PRECISION",
        "RECALL",
        "F1",
    ];
    assert_eq!(rows[0], header, "{text}");
    assert_eq!(rows[1][..2], ["shop/web with breakers[slow].outlier.threshold=3", "2"], "{text}");
    let none = [
        "shop/web with breakers[slow].outlier.threshold=900",
        "0",
        "0.0",
        "0.0 %",
        "0.0",
        "0",
        "-",
        "0.00 %",
        "0.00 %",
    ];
    assert_eq!(rows[2], none, "{text}");
}

#[test]
fn policies_that_do_not_go_together_and_labels_with_mistakes_are_refused() {
    let stage = Stage::new();
    let good = policy(&json!({}));
    let mut other = good.clone();
    other["spec"]["service"] = "api".into();
    let good = stage.write("good.json", &good.to_string()).display().to_string();
    let other = stage.write("other.json", &other.to_string()).display().to_string();
    let refused = |further: &[&str], words: &str| {
        let output =
            kubervisor(&[&["report", "-f", &good, "--prometheus", "127.0.0.1:1"], further].concat(), &[]);
        let text = said(&output);
        assert_eq!((output.status.code(), text.contains(words)), (Some(2), true), "{further:?}: {text}");
    };
    refused(&["-f", &other, "--selector", "app=web"], "give the pods of one Service");
    refused(&["--set", "breakers[nobody].outlier.threshold=3"], "no such field");
    refused(&["--set", "breakers[slow].outlier.thresholt=3"], "thresholt");
    refused(&["--set", "breakers[slow].outlier.threshold=-3"], "threshold");
    refused(&["--set", "breakers[slow].outlier.threshold"], "path=value");
    let many: Vec<String> = (1..70).map(|value| value.to_string()).collect();
    refused(&["--set", &format!("panicThreshold={}", many.join(","))], "more than 64");
    for (labels, words) in [
        ("", "no incident"),
        ("web-1,soon,later\n", "soon"),
        ("web-1,2026-01-02T00:00:00Z\n", "line 1"),
        ("web-1,2026-01-02T00:00:00Z,2026-01-01T00:00:00Z\n", "earlier"),
        ("[{\"pod\": \"web-1\"}]", "{pod, from, to}"),
    ] {
        let file = stage.write("labels.csv", labels).display().to_string();
        refused(&["--labels", &file], words);
    }
    refused(&["--labels", &stage.file("nowhere.csv").display().to_string()], "nowhere.csv");
}
