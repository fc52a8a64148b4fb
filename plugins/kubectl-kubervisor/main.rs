//! `kubectl kubervisor`: kubectl runs this program if it is in the PATH.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use clap::Parser;
use kubervisor::{
    exit::Exit,
    roles::plugin::{self, PluginCli},
};

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
        });
    match ended {
        Ok(output) => {
            // A reader such as `head` may have closed the pipe: not an error.
            let _closed_pipe = stderr().write_all(output.notice.as_bytes());
            let _closed_pipe = stdout().write_all(output.data.as_bytes());
            ExitCode::SUCCESS
        }
        Err(exit) => {
            eprintln!("kubectl kubervisor: {exit}");
            exit.code()
        }
    }
}
