//! `kubervisor breaker`: the built-in breaker as a callback. It reads what any callback reads and prints
//! what any callback may print; what it must remember it prints too, so that it is a plain stateless
//! command.
//!
//! | file | step |
//! |---|---|
//! | `briefing` | what the master said: pods, fleet, the last run's output |
//! | `answer` | judgements → verdicts, under coverage and panic threshold |
//! | `asker` | questions to Prometheus and custom services |
//! | `in_process` | the same breakers inside a master or a controller |
//! | `round` | the loop that runs those |

mod answer;
pub mod asker;
mod briefing;
pub mod in_process;
pub mod round;

use std::path::PathBuf;

use anyhow::Context as _;

pub use self::asker::{AskError, Asker, AskerMetrics};
pub use self::in_process::InProcessBreakers;
pub use self::round::{BreakerHost, Succeeded, run_breakers};
use self::{answer::Answer, briefing::Briefing};
use crate::{
    api::{self, Context, Detectors, Timing},
    clock::Clock,
    exit::Exit,
};

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
/// 2 when the policy or the environment is wrong, 1 when what the master said cannot be read: the
/// verdicts of the last run then stay in force.
pub async fn run(args: Args) -> Result<(), Exit> {
    let context = Context { detectors: Detectors::Keepalives, timing: timing()? };
    let manifest = api::load(&args.policy, context)
        .map_err(|problems| Exit::Usage(format!("policy refused\n{problems}")))?;
    let briefing = Briefing::read()?;
    let answer = Answer::new(&manifest, Clock::start().wall(), briefing);
    let printed = serde_json::to_string(&answer).context("cannot print the verdicts")?;
    println!("{printed}");
    Ok(())
}

/// The ensemble's times, as the master that runs us was given them; `None` when nobody said.
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
