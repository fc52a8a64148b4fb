//! The chart's release on the node, in its own image.

use std::time::{Duration, Instant};

use crate::{
    cluster::{KUBECONFIG, shell},
    helm,
};

/// The release's namespace; Pod Security `restricted` is enforced there.
pub(crate) const NAMESPACE: &str = "kubervisor";

/// Runs Helm; it has to succeed.
#[track_caller]
pub(crate) fn helm(arguments: &[&str]) -> String {
    let done = helm::run(helm::program(), arguments, Some(KUBECONFIG.as_ref()));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "helm {arguments:?}: {said}{}",
        shell("kubectl -n kubervisor get pods,events")
    );
    String::from_utf8(done.stdout).unwrap()
}

/// `helm VERB` of the chart with the test's image, until both replicas are Ready; how long that took.
#[track_caller]
pub(crate) fn deploy(verb: &str, values: &[&str]) -> Duration {
    let (chart, began) = (helm::chart().display().to_string(), Instant::now());
    let mut arguments =
        vec![verb, "kubervisor", &chart, "--namespace", NAMESPACE, "--wait", "--timeout", "60s"];
    arguments.extend(["--set", "image.tag=dev"]);
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    helm(&arguments);
    began.elapsed()
}

/// `helm rollback` or `helm uninstall`, until it is done.
#[track_caller]
pub(crate) fn on_release(verb: &str) {
    helm(&[verb, "kubervisor", "--namespace", NAMESPACE, "--wait", "--timeout", "60s"]);
}

/// No release: what an earlier test has installed is uninstalled.
pub(crate) fn gone() {
    if is_installed() {
        on_release("uninstall");
    }
}

fn is_installed() -> bool {
    !shell("kubectl -n kubervisor get deployment kubervisor --ignore-not-found -o name").is_empty()
}

/// The release as the chart makes it, installed if it is not.
pub(crate) fn installed() {
    if !is_installed() {
        namespace();
        deploy("install", &[]);
    }
}

/// The namespace, before the release.
pub(crate) fn namespace() {
    shell(
        "kubectl create namespace kubervisor --dry-run=client -o yaml | kubectl apply -f - &&
         kubectl label --overwrite namespace kubervisor pod-security.kubernetes.io/enforce=restricted",
    );
}
