//! `kubectl kubervisor`: kubectl runs it for the word `kubervisor` when it finds it in the PATH.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use clap::Parser;
use kubervisor::{
    exit::Exit,
    roles::plugin::{self, Cli},
};

fn main() -> ExitCode {
    // The TLS client uses this provider; an error would only say that there is one already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::Failed(anyhow::Error::new(error).context("cannot start the runtime")))
        .and_then(|runtime| {
            let ended = runtime.block_on(plugin::run(cli));
            // A look-up on a dead resolver must not hold up the exit.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            ended
        });
    match ended {
        Ok(said) => {
            // Whoever reads may have had enough, `head` for instance: no failure of ours.
            let _closed_pipe = stderr().write_all(said.aside.as_bytes());
            let _closed_pipe = stdout().write_all(said.data.as_bytes());
            ExitCode::SUCCESS
        }
        Err(exit) => {
            eprintln!("kubectl kubervisor: {exit}");
            exit.code()
        }
    }
}
