//! `kubectl kubervisor`: kubectl runs this program if it is in the PATH.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use kubervisor::{
    exit::Exit,
    roles::{
        output::{notice, print},
        plugin::{self, PluginCli},
    },
};

/// The exit code when a check failed.
const FINDINGS: u8 = 3;

fn main() -> ExitCode {
    // For the TLS client; an error means that a provider is installed already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let cli = PluginCli::parse();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::Failed(anyhow::Error::new(error).context("cannot start the runtime")))
        .and_then(|runtime| {
            let ended = runtime.block_on(plugin::run(cli));
            // A lookup on a dead resolver must not delay the exit.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            ended
        })
        .and_then(|output| {
            notice(&output.notice);
            print(&output.data)?;
            Ok(output.findings)
        });
    match ended {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(FINDINGS),
        Err(exit) => {
            notice(&format!("kubectl kubervisor: {exit}\n"));
            exit.code()
        }
    }
}
