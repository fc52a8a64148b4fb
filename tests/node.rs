//! What is promised about traffic, on a real node: kubelet, containerd, kube-proxy, pods and connections. Run by
//! `make test-node`. `scripts/node` starts the node and runs this binary again beside it, so that everything here is in
//! the cluster's network; all tests share the node, one after the other.
//! `KUBERVISOR_SKIP_NODE=1` skips them, on a machine whose kernel cannot run a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "node/application.rs"]
mod application;
#[path = "node/cluster.rs"]
mod cluster;
#[path = "node/figures.rs"]
mod figures;
#[path = "node/load.rs"]
mod load;
#[path = "node/pods.rs"]
mod pods;
#[path = "node/services.rs"]
mod services;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Trial};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A test for each name, called as its path.
macro_rules! trials {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$(trial(concat!(stringify!($module), "::", stringify!($test)), || block_on($module::$test()))),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They measure times, and the node is one.
    arguments.test_threads = Some(1);
    let inside = env::var_os("NODE").is_some();
    if env::var_os("KUBERVISOR_SKIP_NODE").is_some() {
        eprintln!("KUBERVISOR_SKIP_NODE is set: the tests on the real node are skipped");
        arguments.ignored = false;
        let skipped = trials().into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
        return libtest_mimic::run(&arguments, skipped).exit_code();
    }
    if arguments.list || inside {
        return libtest_mimic::run(&arguments, trials()).exit_code();
    }
    let mut node = Command::new(Path::new(ROOT).join("scripts/node"));
    node.env("LOGS", Path::new(ROOT).join("target/node/log"));
    match node.arg(env::current_exe().unwrap()).args(env::args_os().skip(1)).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!(
                "the tests on the real node: {status}; logs are in target/node/log; KUBERVISOR_SKIP_NODE=1 skips the tests"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("scripts/node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Vec<Trial> {
    trials![
        pods::a_machine_that_cannot_run_a_node_is_told_what_it_lacks,
        pods::a_pod_has_a_token_that_the_api_server_takes_and_the_restrictions_that_it_asked_for,
        services::a_service_spreads_new_connections_over_its_pods,
        services::a_pod_whose_label_leaves_the_selector_gets_no_new_connection,
        services::an_open_connection_stays_with_a_pod_that_left_the_service,
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
