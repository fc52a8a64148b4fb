//! `kubervisor breaker`: the built-in breakers as a callback, and the loop that runs them in a master or a controller.
//!
//! The callback is stateless: its state is part of its output, which the master passes to the next run.
//!
//! | file | content |
//! |---|---|
//! | `input` | a callback's input: pods, fleet, and the state that the last run printed |
//! | `output` | a callback's output: verdicts, under coverage and panic threshold |
//! | `asker` | queries to Prometheus and custom services |
//! | `runner` | the loop inside a master or a controller |

pub mod asker;
mod input;
mod output;
pub mod runner;

use std::path::PathBuf;

use anyhow::Context as _;

pub use self::asker::{AskError, Asker, AskerMetrics};
pub use self::runner::{BreakerHost, Superseded, run_breakers};
use self::{input::BreakerInput, output::CallbackOutput};
use crate::{
    api::{self, Context, Detectors, Timing},
    clock::Clock,
    exit::Exit,
    roles,
};

/// Arguments of `breaker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The KubervisorService manifest whose breakers judge.
    #[arg(long, env = "KUBERVISOR_POLICY", value_name = "FILE")]
    pub policy: PathBuf,
}

/// Reads the pods from the environment, and prints verdicts.
///
/// # Errors
/// 2 when the policy or a variable is wrong, 1 when the input cannot be read; the verdicts of the last run then stay in
/// force.
pub async fn run(args: Args) -> Result<(), Exit> {
    let context = Context { detectors: Detectors::Keepalives, timing: timing()?, sources: &[] };
    let manifest = api::load(&args.policy, context)
        .map_err(|problems| Exit::Usage(format!("policy refused\n{problems}")))?;
    let input = BreakerInput::read()?;
    let output = CallbackOutput::new(&manifest, Clock::start().wall(), input);
    let printed = serde_json::to_string(&output).context("cannot print the verdicts")?;
    roles::output::print(&(printed + "\n"))
}

/// The ensemble's times from the master's environment; `None` without `KONTROL_TTL`.
fn timing() -> Result<Option<Timing>, Exit> {
    let seconds = |name: &str| match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => {
            let number = text.trim().parse().ok().filter(|seconds: &f64| *seconds > 0.0);
            let duration = number.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
            let refuse = || Exit::Usage(format!("{name} is {text:?}; write a number of seconds, such as 25"));
            duration.map(Some).ok_or_else(refuse)
        }
    };
    let ping = seconds("KONTROL_PING")?;
    Ok(seconds("KONTROL_TTL")?.map(|ttl| Timing { ttl, ping_every: ping.unwrap_or(ttl / 3) }))
}
