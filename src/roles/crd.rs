//! `kubervisor crd`: the CustomResourceDefinition, for `kubectl apply -f -`.

use std::io::Write;

use anyhow::Context;

use crate::{api::crd, exit::Exit};

/// Arguments of `crd`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints it.
///
/// # Errors
/// When standard output does not take it.
pub async fn run(_: Args) -> Result<(), Exit> {
    let text = crd::yaml().context("cannot write the definition as YAML").map_err(Exit::Failed)?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the definition").map_err(Exit::Failed)
}
