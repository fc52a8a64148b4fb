//! `kubervisor run`: an agent, a master, or both.

use crate::{config::flags::Flags, exit::Exit};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the variables say, said again and louder.
    #[command(flatten)]
    pub flags: Flags,
}

/// Runs until told to stop.
///
/// # Errors
/// Wrong configuration (2), or what made the process unable to go on (1).
pub async fn run(args: Args) -> Result<(), Exit> {
    let config = crate::config::load(&args.flags).await?;
    tracing::debug!(?config, "configured");
    Err(Exit::Failed(anyhow::anyhow!("no role is built in yet")))
}
