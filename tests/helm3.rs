//! The chart with Helm 3. Run by `make test-node`: Helm is built twice for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/helm.rs"]
mod helm;

use helm::{EXTENSIONS, build, chart, objects, run, text};

#[test]
fn helm_3_and_4_render_the_same_and_refuse_the_same() {
    let (three, path) = (build("3"), chart().display().to_string());
    let fixed =
        ["template", "kubervisor", &path, "--namespace", "kubervisor-system", "--kube-version", "1.36.0"];
    for value in [
        "dryRun=true",
        "namespaces=[\"shop\"]",
        "metrics.serviceMonitor.enabled=true",
        "admissionPolicy.enabled=true",
    ] {
        let done = run(&three, &[&fixed[..], &["--set-json", value], &EXTENSIONS].concat(), None);
        let made = objects(&String::from_utf8(done.stdout).unwrap());
        assert_eq!(made, objects(&text(&[value], &EXTENSIONS).unwrap()), "{value}");
    }
    for value in ["replicas=2", "replicaCount=1"] {
        let done = run(&three, &[&fixed[..], &["--set-json", value]].concat(), None);
        assert!(!done.status.success() && text(&[value], &[]).is_err(), "{value}");
    }
}

#[test]
fn helm_3_finds_nothing_to_complain_about() {
    let done = run(&build("3"), &["lint", "--strict", &chart().display().to_string()], None);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
