//! The policy file is reloaded when it changes; an invalid version is rejected.

use std::{fs, os::unix::fs::symlink, path::Path};

use kubervisor::{
    adapters::policy_file::PolicyFile,
    api::{Context, Detectors},
};

const CONTEXT: Context = Context { detectors: Detectors::Keepalives, timing: None, sources: &[] };

fn policy(seconds: u32) -> String {
    format!(
        "apiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata: {{name: web}}\nspec:\n  \
         service: web\n  paused: {}\n  breakers: [{{name: silent, keepalive: {{silentAfter: {seconds}}}}}]\n",
        seconds > 10
    )
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn a_changed_file_is_loaded_and_an_unchanged_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    write(&path, &policy(10));
    let mut file = PolicyFile::open(&path, CONTEXT).unwrap();
    assert!(!file.reload().unwrap());
    write(&path, &format!("# a remark\n{}", policy(10)));
    assert!(!file.reload().unwrap(), "the same policy");
    write(&path, &policy(20));
    assert!(file.reload().unwrap());
    assert!(file.current().policy.paused);
}

#[test]
fn a_bad_or_missing_new_file_is_refused_once_and_the_old_policy_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    write(&path, &policy(10));
    let mut file = PolicyFile::open(&path, CONTEXT).unwrap();
    let old = file.current();
    write(&path, &policy(10).replace("silentAfter", "sillyAfter"));
    assert!(file.reload().unwrap_err().to_string().contains("instead write silentAfter"));
    assert!(!file.reload().unwrap(), "reported once");
    fs::remove_file(&path).unwrap();
    assert!(file.reload().unwrap_err().to_string().contains("cannot be read"));
    assert_eq!(file.current(), old);
    write(&path, &policy(20));
    assert!(file.reload().unwrap(), "a valid one is accepted again");
}

#[test]
fn the_symlink_swap_of_a_config_map_is_detected() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, seconds) in [("v1", 10), ("v2", 20)] {
        fs::create_dir(at(version)).unwrap();
        write(&at(version).join("policy.yaml"), &policy(seconds));
    }
    symlink("v1", at("..data")).unwrap();
    symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
    let mut file = PolicyFile::open(at("policy.yaml"), CONTEXT).unwrap();
    symlink("v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert!(file.reload().unwrap());
}
