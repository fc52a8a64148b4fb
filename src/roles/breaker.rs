//! `kubervisor breaker`: the built-in breaker as a callback. It reads what any callback reads and prints
//! what any callback may print; what it must remember it prints too, so that it is a plain stateless
//! command.

use std::path::PathBuf;

use crate::exit::Exit;

pub mod in_process;

pub use in_process::InProcessBreakers;

/// Arguments of `breaker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The KubervisorService manifest whose breakers judge.
    #[arg(long, env = "KUBERVISOR_POLICY", value_name = "FILE")]
    pub policy: PathBuf,
}

/// Judges once: reads the pods, prints verdicts.
///
/// # Errors
/// 2 when the policy or the environment is wrong, 1 when what the master said cannot be read.
pub async fn run(args: Args) -> Result<(), Exit> {
    Err(Exit::Failed(anyhow::anyhow!("cannot judge by {} yet", args.policy.display())))
}
