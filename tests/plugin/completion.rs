//! Completion through a real kubectl.

use std::{
    env,
    path::Path,
    process::{Command, Output},
};

use crate::{
    fixture::{PLUGIN, out},
    plane::{self, Plane},
};

/// What kubectl answers the shell's question about these words.
fn asked(plane: &Plane, words: &[&str]) -> Output {
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/kubectl-kubervisor");
    let folders = [Path::new(PLUGIN).parent().unwrap().to_owned(), shim];
    let path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    Command::new(plane.directory().join("bin/kubectl"))
        .args(["__complete", "kubervisor"])
        .args(words)
        .env("PATH", env::join_paths(folders.into_iter().chain(path)).unwrap())
        .env("HOME", plane.directory())
        .output()
        .unwrap()
}

#[tokio::test]
async fn kubectl_completes_commands_flags_and_values_of_the_plugin() {
    let plane = plane::shared().await;
    for (words, expected) in [
        (&["expl"][..], "explain\tShows why a pod"),
        (&["tree", "--all-n"], "--all-namespaces\t"),
        (&["list", "--color", "nev"], "never"),
    ] {
        let answer = out(&asked(&plane, words));
        assert!(answer.lines().any(|line| line.starts_with(expected)), "{words:?}: {answer}");
        assert!(answer.lines().any(|line| line == ":4"), "names of files are no candidates: {answer}");
    }
}

#[test]
fn each_shell_has_a_script_that_it_can_read() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = out(&Command::new(PLUGIN).args(["completion", shell]).output().unwrap());
        assert!(script.contains("kubectl-kubervisor") && script.contains("explain"), "{shell}");
        if shell == "bash" {
            let checked = Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
            assert!(checked.success(), "{script}");
        }
    }
    let refused = Command::new(PLUGIN).args(["completion", "tcl"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
