//! Values that are wrong, or make no sense together: refused before anything is sent, with the words to write.

use crate::helm::{EXTENSIONS, text};

#[track_caller]
fn assert_refused(values: &[&str], words: &str) {
    let said = text(values, &EXTENSIONS).expect_err(&format!("{values:?} are rendered"));
    assert!(said.contains(words), "{values:?}: {said}");
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    for value in [
        "replicas=2",
        "image.tags=\"x\"",
        "metrics.serviceMonitor.scrapeInterval=\"1s\"",
        "grafana.dashboards.title=\"x\"",
    ] {
        let key = value.split('=').next().unwrap().rsplit('.').next().unwrap();
        assert_refused(&[value], &format!("'{key}' not allowed"));
    }
}

#[test]
fn values_of_a_wrong_type_or_out_of_range_are_refused() {
    for (value, words) in [
        ("replicaCount=\"two\"", "replicaCount"),
        ("replicaCount=-1", "replicaCount"),
        ("dryRun=\"yes\"", "dryRun"),
        ("image.pullPolicy=\"Sometimes\"", "pullPolicy"),
        ("image.digest=\"sha256:12\"", "digest"),
        ("namespaces=\"shop\"", "namespaces"),
        ("namespaces=[\"Shop\"]", "namespaces"),
        ("namespaces=[\"shop\",\"shop\"]", "namespaces"),
        ("addr=\"8086\"", "addr"),
        ("keepalives.port=70000", "port"),
        ("release.timeoutSeconds=1", "timeoutSeconds"),
        ("metrics.serviceMonitor.interval=\"15\"", "interval"),
        ("logFormat=\"xml\"", "logFormat"),
    ] {
        assert_refused(&[value], words);
    }
}

#[test]
fn values_that_make_no_sense_together_are_refused_with_what_to_write() {
    for (values, words) in [
        (&["replicaCount=1"][..], "Set replicaCount to 2, or podDisruptionBudget.enabled to false"),
        (&["podDisruptionBudget.minAvailable=2"], "Set replicaCount to 3"),
        (
            &["metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true"],
            "Set one of them to false",
        ),
        (
            &["metrics.serviceMonitor.enabled=true", "metrics.service.enabled=false"],
            "Set metrics.service.enabled to true",
        ),
        (&["sources.config={\"a\":1}", "sources.existingConfigMap=\"b\""], "only one file of sources"),
        (&["sources.secrets=[\"a\"]"], "Write sources.config"),
        (&["keepalives.enabled=true", "keepalives.port=8086"], "keepalives.port 8086 is the port of addr"),
        (&["view.enabled=true"], "set view.tlsSecret, or view.behindProxy"),
        (&["view.enabled=true", "view.tlsSecret=\"a\"", "view.behindProxy=true"], "not both"),
        (&["view.enabled=true", "view.behindProxy=true", "view.port=8086"], "view.port 8086 is taken"),
        (&["serviceAccount.create=false"], "Set serviceAccount.name"),
        (&["rbac.create=false"], "Set serviceAccount.name to an account with these rights"),
    ] {
        assert_refused(values, words);
    }
}

#[test]
fn kinds_that_the_cluster_lacks_are_named_with_what_to_do() {
    for (value, words) in [
        ("metrics.serviceMonitor.enabled=true", "set metrics.serviceMonitor.enabled to false"),
        ("metrics.podMonitor.enabled=true", "set metrics.podMonitor.enabled to false"),
        ("metrics.prometheusRule.enabled=true", "set metrics.prometheusRule.enabled to false"),
        ("admissionPolicy.enabled=true", "set admissionPolicy.enabled to false"),
    ] {
        let said = text(&[value], &[]).expect_err(value);
        assert!(said.contains(words), "{value}: {said}");
        assert!(text(&[value], &EXTENSIONS).is_ok(), "{value}");
    }
}
