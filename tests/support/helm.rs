//! The real Helm, built by `scripts/helm`, and what it renders from our chart.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::Value;

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The chart.
pub fn chart() -> PathBuf {
    root().join("charts/kubervisor")
}

/// The program, of major version 4.
pub fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("4"))
}

/// The program of this major version.
pub fn build(version: &str) -> PathBuf {
    let built = Command::new(root().join("scripts/helm")).arg(version).output().unwrap();
    assert!(built.status.success(), "scripts/helm: {}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).unwrap().trim().into()
}

/// Runs `program` with nothing of this machine's settings.
pub fn run(program: &Path, arguments: &[&str], kubeconfig: Option<&Path>) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).env("HOME", home.path()).env_remove("KUBECONFIG");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    command.envs(kubeconfig.map(|path| ("KUBECONFIG", path)));
    command.output().unwrap()
}

/// `helm template` with each of `values` as a `--set-json`: the text.
///
/// # Errors
/// What Helm says.
pub fn text(values: &[&str], further: &[&str]) -> Result<String, String> {
    let chart = chart().display().to_string();
    // A Helm that `go install` builds takes the cluster for one of 1.20.
    let mut arguments = vec![
        "template",
        "kubervisor",
        &chart,
        "--namespace",
        "kubervisor-system",
        "--kube-version",
        "1.36.0",
    ];
    arguments.extend(values.iter().flat_map(|value| ["--set-json", value]));
    arguments.extend(further);
    let done = run(program(), &arguments, None);
    if done.status.success() {
        Ok(String::from_utf8(done.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// The kinds that only some clusters have.
pub const EXTENSIONS: [&str; 8] = [
    "--api-versions",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "--api-versions",
    "monitoring.coreos.com/v1/PodMonitor",
    "--api-versions",
    "monitoring.coreos.com/v1/PrometheusRule",
    "--api-versions",
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
];

/// The objects of a text.
pub fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("\n---").map(|part| part.trim_start_matches("---"));
    let documents =
        documents.filter(|part| part.lines().any(|line| !line.is_empty() && !line.starts_with('#')));
    documents
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}: {part}")))
        .collect()
}

/// What [`text`] has, as objects, on a cluster with all extensions.
pub fn rendered(values: &[&str]) -> Vec<Value> {
    objects(&text(values, &EXTENSIONS).unwrap())
}

/// The objects of this kind.
pub fn of_kind<'v>(objects: &'v [Value], kind: &str) -> Vec<&'v Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}
