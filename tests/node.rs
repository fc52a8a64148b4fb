//! What is promised about traffic, on a real node: kubelet, containerd, kube-proxy, pods and connections. Run by
//! `make test-node`. `scripts/node` starts the node and runs this binary again beside it, so that everything here is in
//! the cluster's network; all tests share the node, one after the other.
//! On a machine that cannot run a node they are skipped, with what it lacks; `KUBERVISOR_NODE=required` makes that a failure,
//! and `KUBERVISOR_NODE=demo` plays only the last one (`make node-demo`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "node/application.rs"]
mod application;
#[path = "node/cluster.rs"]
mod cluster;
#[path = "node/figures.rs"]
mod figures;
#[path = "node/gate.rs"]
mod gate;
#[path = "support/helm.rs"]
mod helm;
#[path = "node/load.rs"]
mod load;
#[path = "node/pods.rs"]
mod pods;
#[path = "node/probes.rs"]
mod probes;
#[path = "node/proof.rs"]
mod proof;
#[path = "node/release.rs"]
mod release;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "node/services.rs"]
mod services;
#[path = "node/story.rs"]
mod story;

use std::{
    env,
    ffi::OsString,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use libtest_mimic::{Arguments, Trial};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A test for each name, called as its path.
macro_rules! trials {
    ($($test:path),* $(,)?) => { vec![$(trial(stringify!($test), || block_on($test()))),*] };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They measure times, and the node is one.
    arguments.test_threads = Some(1);
    let inside = env::var_os("NODE").is_some();
    let wanted = env::var("KUBERVISOR_NODE").unwrap_or_default();
    if inside && wanted == "demo" {
        block_on(story::an_installation_from_install_to_uninstall_under_load_fails_no_request());
        return ExitCode::SUCCESS;
    }
    if arguments.list || inside {
        return libtest_mimic::run(&arguments, trials()).exit_code();
    }
    if wanted.is_empty() && !can_run() {
        eprintln!("the tests on the real node are skipped; KUBERVISOR_NODE=required makes this a failure");
        arguments.ignored = false;
        let skipped = trials().into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
        return libtest_mimic::run(&arguments, skipped).exit_code();
    }
    // Nothing can be downloaded inside.
    helm::program();
    let images = env::var_os("IMAGES").unwrap_or_else(image);
    let mut node = Command::new(Path::new(ROOT).join("scripts/node"));
    node.env("NODES", "2").env("IMAGES", images).env("LOGS", Path::new(ROOT).join("target/node/log"));
    match node.arg(env::current_exe().unwrap()).args(env::args_os().skip(1)).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("the tests on the real node: {status}; logs are in target/node/log");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("scripts/node: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether this machine can run a node; the script says what it lacks.
fn can_run() -> bool {
    let checked = Command::new(Path::new(ROOT).join("scripts/node")).arg("--check").status();
    checked.is_ok_and(|status| status.code() != Some(3))
}

/// The image of this source; `IMAGES=ARCHIVE` has another one tested.
fn image() -> OsString {
    let built =
        Command::new(Path::new(ROOT).join("scripts/image")).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "scripts/image: {}", built.status);
    Path::new(ROOT).join("target/image/kubervisor.tar").into()
}

fn trials() -> Vec<Trial> {
    trials![
        pods::a_machine_that_cannot_run_a_node_is_told_what_it_lacks,
        pods::a_pod_has_a_token_that_the_api_server_takes_and_the_restrictions_that_it_asked_for,
        services::a_service_spreads_new_connections_over_its_pods,
        services::a_pod_whose_label_leaves_the_selector_gets_no_new_connection,
        services::an_open_connection_stays_with_a_pod_that_left_the_service,
        proof::installation::an_install_is_ready_and_reports_a_bad_pod_in_a_dry_run,
        proof::errors::a_pod_that_answers_errors_leaves_the_traffic_and_comes_back_when_it_recovers,
        proof::errors::a_breaker_by_promql_takes_a_failing_pod_out_of_the_traffic,
        proof::errors::a_notified_pod_ends_its_open_connections,
        probes::a_controller_is_alive_and_not_ready_while_the_api_server_is_away,
        probes::a_controller_that_is_stuck_is_restarted,
        proof::places::a_controller_works_as_root_as_any_user_and_with_a_root_that_can_be_written,
        proof::places::a_deleted_namespace_of_the_release_moves_no_traffic_and_a_new_install_goes_on,
        proof::lost::a_node_that_is_lost_with_the_leader_is_replaced_by_the_other_controller,
        story::an_installation_from_install_to_uninstall_under_load_fails_no_request,
    ]
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn block_on<F: Future<Output = ()>>(test: F) {
    let _already = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}
