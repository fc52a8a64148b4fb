//! The page of a report: what it holds, and where it cannot be written.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use serde_json::json;

use crate::{
    shop::{LENGTH, PODS, Shop, policy},
    stage::{PROGRAM, Stage, said},
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
async fn the_page_of_before_is_kept_until_the_new_one_is_complete() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let (server, policy) = (prometheus.address.to_string(), policy(&json!({})));
    let folder = stage.file("pages");
    std::fs::create_dir(&folder).unwrap();
    let (page, link) = (folder.join("report.html"), stage.file("link.html"));
    std::fs::write(&page, "the page of before").unwrap();
    std::fs::set_permissions(&page, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&page, &link).unwrap();
    let flags = ["--html", link.to_str().unwrap()];
    let failed = shop.report(&stage, "127.0.0.1:1", &policy, &flags);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "the page of before");

    let output = shop.report(&stage, &server, &policy, &flags);
    assert!(output.status.success(), "{}", said(&output));
    assert!(std::fs::read_to_string(&page).unwrap().contains("web-3"));
    assert_eq!(std::fs::metadata(&page).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(link.is_symlink());
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["report.html"], "nothing is left beside it");
}

/// On a disk of 16 KiB, which only root can make.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_becomes_full_keeps_the_page_of_before() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let policy = stage.write("policy.json", &policy(&json!({})).to_string()).display().to_string();
    let disk = stage.file("disk");
    std::fs::create_dir(&disk).unwrap();
    let (from, to) = (shop.start.to_string(), (shop.start + LENGTH).to_string());
    let script = "mount -t tmpfs -o size=16k none \"$DISK\" || exit 77\n\
                  echo before > \"$DISK/report.html\"\n\
                  \"$@\" --html \"$DISK/report.html\"; echo \"code $?\"; cat \"$DISK/report.html\"; ls -A \"$DISK\"";
    let output = std::process::Command::new("unshare")
        .args([
            "--mount", "sh", "-c", script, "sh", PROGRAM, "report", "-f", &policy, "--from", &from, "--to",
            &to,
        ])
        .args(["--prometheus", &prometheus.address.to_string(), "-o", "junit"])
        .env("DISK", &disk)
        .output()
        .unwrap();
    if !nix::unistd::geteuid().is_root() || output.status.code() == Some(77) {
        return eprintln!("not root, or no disk can be mounted: a full disk is not tested here");
    }
    let text = said(&output);
    assert!(text.contains("code 1\nbefore\nreport.html\n"), "{text}");
    assert!(text.contains("cannot write the page to") && text.contains("No space left"), "{text}");
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
