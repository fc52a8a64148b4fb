//! The page of a report: what it holds, and where it cannot be written.

use serde_json::json;

use crate::{
    shop::{LENGTH, PODS, Shop, policy},
    stage::{Stage, said},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_holds_rows_values_episodes_and_the_manifest_and_compares_policies() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let (server, policy) = (prometheus.address.to_string(), policy(&json!({})));
    let file = stage.file("report.html");
    let flags = ["--html", file.to_str().unwrap(), "--set", "breakers[slow].outlier.threshold=3.5,1000"];
    let output = shop.report(&stage, &server, &policy, &flags);
    assert!(output.status.success(), "{}", said(&output));
    let page = std::fs::read_to_string(&file).unwrap();
    for pod in 0..PODS {
        assert!(
            page.matches(&format!(">web-{pod}<title>")).count() == 2,
            "a row of web-{pod} for each policy"
        );
    }
    // Two episodes of the first policy, and none of the second.
    assert_eq!(page.matches("<a href=\"#policy-1-row-").count(), 2, "{page}");
    assert_eq!(page.matches("<a href=\"#policy-2-row-").count(), 0);
    assert_eq!(page.matches("<path class=\"out\" d=\"M").count(), 2);
    for wanted in [
        "None: no pod would have been withheld",
        "HIGHEST SHARE",
        "class=\"threshold\" d=\"M",
        "KubervisorService",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains("<script") && !page.contains("://cdn"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_a_folder_that_is_not_there_are_named_the_latter_before_the_replay() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let (server, policy) = (prometheus.address.to_string(), policy(&json!({})));
    let full = shop.report(&stage, &server, &policy, &["--html", "/dev/full"]);
    assert_eq!(full.status.code(), Some(1));
    let text = said(&full);
    assert!(text.contains("cannot write the page to /dev/full") && text.contains("No space left"), "{text}");
    let missing = stage.file("missing/report.html").display().to_string();
    let output = shop.report(&stage, "127.0.0.1:1", &policy, &["--html", &missing]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("cannot write the page to {missing}")), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_of_a_servers_series_stay_text_on_the_page() {
    let (stage, mut shop) = (Stage::new(), Shop::measured());
    let name = "<script>alert(1)</script>\u{202e}&";
    let labels = format!("namespace=\"shop\",pod=\"{name}\"");
    shop.gauge("latency", &labels, 0..LENGTH, |at| if (3600..7200).contains(&at) { 5.0 } else { 0.11 });
    let prometheus = shop.serve(&stage).await;
    let file = stage.file("report.html");
    let flags = ["--html", file.to_str().unwrap()];
    let output = shop.report(&stage, &prometheus.address.to_string(), &policy(&json!({})), &flags);
    assert!(output.status.success(), "{}", said(&output));
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
    let row = "\">&lt;script&gt;alert(1)&lt;&#x2f;script&gt;\\u{202e}&amp;</a></th>";
    assert!(page.contains(row), "{page}");
}
