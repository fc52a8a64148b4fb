//! `kubervisor crd`: the CustomResourceDefinition, for `kubectl apply -f -`.

use anyhow::Context;

use super::output;
use crate::{api::crd, exit::Exit};

/// Arguments of `crd`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints it.
///
/// # Errors
/// [`Exit::Failed`] when it cannot be written to stdout.
pub async fn run(_: Args) -> Result<(), Exit> {
    output::print(&crd::yaml().context("cannot write the definition as YAML")?)
}
