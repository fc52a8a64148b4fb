//! `kubervisor keygen`: the key pair that `invoke` needs. The private half stays with the master; agents get the public one.

use std::path::PathBuf;

use crate::exit::Exit;

/// Arguments of `keygen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the private key goes (mode 0600); the public one goes beside it, with `.pub` added.
    #[arg(
        long,
        env = "KONTROL_INVOKE_KEY_FILE",
        value_name = "FILE",
        default_value = "kubervisor-invoke.pem"
    )]
    pub out: PathBuf,
}

/// Writes both files; never over existing ones.
///
/// # Errors
/// 2 when a file is there already, 1 when one cannot be written.
pub async fn run(args: Args) -> Result<(), Exit> {
    Err(Exit::Failed(anyhow::anyhow!("cannot write {} yet", args.out.display())))
}
