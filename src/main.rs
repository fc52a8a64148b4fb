//! The `kubervisor` command: arguments, logs, one role, an exit code.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::CommandFactory;
use kubervisor::{args::Cli, exit::Exit, roles::output::notice, telemetry};

fn main() -> ExitCode {
    // The provider of all TLS clients in the process; the error means that one is installed already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::read(std::env::args_os().collect(), std::env::var_os("KONTROL_MODE").is_some()) {
        Ok(cli) => cli,
        Err(usage) => usage.exit(),
    };
    let Some(command) = cli.command else {
        notice(&format!(
            "{}\nno command given: name one, or set KONTROL_MODE (slave, master or both) to run as Kontrol\n",
            Cli::command().render_help()
        ));
        return ExitCode::from(2);
    };
    telemetry::start(cli.log_format, command.verbosity());
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::Failed(anyhow::Error::new(error).context("cannot start the runtime")))
        .and_then(|runtime| {
            let ended = runtime.block_on(command.run());
            // Bounds the exit when a blocking task hangs, for instance a DNS lookup.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            ended
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            notice(&format!("kubervisor: {exit}\n"));
            exit.code()
        }
    }
}
