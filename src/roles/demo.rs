//! `kubervisor demo`: the main job, for a newcomer to see and for us to hold.
//!
//! Real processes over real sockets on loopback: twelve small HTTP apps, each with its agent, one master with the
//! embedded store, and a client that goes by the endpoints file. Nothing is simulated but the fault itself. Six acts
//! do something to the fleet; each has a promise, and each promise is measured.
//!
//! | file | what |
//! |---|---|
//! | `app`, `janitor` | what the demo's own child processes do |
//! | `child`, `stage` | starts, kills and ends all processes, on a loopback network of their own |
//! | `load`, `listing` | the client and the endpoints file that it goes by |
//! | `watch` | looks at files and admin pages |
//! | `story` | the ledger of what was seen and promised |
//! | `acts` | the six acts |
//! | `live`, `report` | the story in a terminal, and as a page |

mod acts;
mod app;
mod child;
mod janitor;
mod listing;
mod live;
mod load;
mod report;
mod stage;
mod story;
mod watch;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use self::{
    acts::Play,
    live::Screen,
    stage::{APPS, BATCH, DAMPER, EVALUATION, Places, Stage, TTL},
    story::{Kind, Story},
    watch::Watch,
};
use crate::exit::Exit;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Leaves everything running after the last act, until Ctrl-C.
    #[arg(long, env = "KUBERVISOR_DEMO_KEEP")]
    pub keep: bool,
    /// Writes the timeline and the verdicts as one HTML page.
    #[arg(long, env = "KUBERVISOR_DEMO_REPORT", value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Runs without any policy, so that promises are broken: a demo that cannot fail proves nothing.
    #[arg(long, env = "KUBERVISOR_DEMO_WITHOUT_POLICY", hide = true)]
    pub without_policy: bool,
    /// Seconds that a promise is waited for.
    #[arg(long, env = "KUBERVISOR_DEMO_CAP", value_name = "SECONDS", default_value_t = 20.0, hide = true)]
    pub cap: f64,
    /// What the demo's own children are.
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// The demo's own children.
#[derive(Debug, clap::Subcommand)]
pub enum Part {
    /// One of the apps.
    #[command(hide = true)]
    App(app::AppArgs),
    /// Who cleans up.
    #[command(hide = true)]
    Janitor(janitor::JanitorArgs),
}

/// Runs the demo, or one of its parts.
///
/// # Errors
/// 1 when a promise was broken or the demo could not be set up.
pub async fn run(args: Args) -> Result<(), Exit> {
    match args.part {
        Some(Part::App(args)) => app::run(args).await,
        Some(Part::Janitor(args)) => janitor::run(args).await,
        None => perform(args).await,
    }
}

async fn perform(args: Args) -> Result<(), Exit> {
    let cap = Duration::try_from_secs_f64(args.cap).map_err(|_| {
        Exit::Usage(format!("--cap={}: not a number of seconds; write for example 20", args.cap))
    })?;
    let stop = stop_signal()?;
    let stage = Stage::set(!args.without_policy)?;
    let places = stage.places();
    let story = Story::begin();
    println!("{}", programme(&places));
    let screen = Screen::start(story.clone());
    let mut watchers = JoinSet::new();
    let (book, sending) = load::start(places.endpoints.clone())?;
    let watch = Watch::start(&places, &story, &book, &mut watchers)?;
    let mut play = Play { stage, places, watch, book, story, cap };
    let mut stop = std::pin::pin!(stop);
    let stopped = tokio::select! {
        () = play.run() => false,
        () = &mut stop => true,
    };
    // The newest sample is one span behind.
    tokio::time::sleep(Duration::from_millis(600)).await;
    screen.finish().await;
    let told = play.story.told();
    let held = told.all_held(acts::COUNT);
    let written = args.report.as_deref().map(|file| report::write(file, &play.story)).transpose();
    if args.keep && !stopped {
        println!("\n{}", play.invitation().await);
        stop.await;
    }
    sending.abort();
    watchers.shutdown().await;
    play.stage.clear().await;
    written.context("the report cannot be written")?;
    match (stopped, held) {
        (true, _) => Err(Exit::Failed(anyhow::anyhow!("stopped before the last act"))),
        (false, true) => Ok(()),
        (false, false) => Err(Exit::Failed(anyhow::anyhow!("not every promise held"))),
    }
}

/// Ready when somebody wants the demo to end.
fn stop_signal() -> Result<impl Future<Output = ()>, Exit> {
    let handed_out = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [interrupt, terminate, hangup] = handed_out;
    let failed = |error: std::io::Error| Exit::Failed(error.into());
    let (mut interrupt, mut terminate) = (interrupt.map_err(failed)?, terminate.map_err(failed)?);
    let mut hangup = hangup.map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A client that waits no longer than `deadline` and asks no proxy.
fn client(deadline: Duration) -> anyhow::Result<reqwest::Client> {
    let built = reqwest::Client::builder().timeout(deadline).no_proxy().build();
    built.context("cannot make an HTTP client")
}

fn programme(places: &Places) -> String {
    let (first, last) = (places.apps.first(), places.apps.last());
    let range = first.zip(last).map(|(first, last)| format!("{first} .. {last}")).unwrap_or_default();
    format!(
        "kubervisor demo: {APPS} apps with their agents at {range}, a master at {}, a client\n\
         TTL {} s, damper {} s, evaluationPeriod {} s, period 3 s, batch {BATCH}, panicThreshold 50 %, \
         floor 50 % of {APPS}",
        places.kontrol.trim_start_matches("http://"),
        TTL.as_secs_f64(),
        DAMPER.as_secs_f64(),
        EVALUATION.as_secs_f64(),
    )
}

impl Play {
    /// Heals everybody, and says where everything is.
    async fn invitation(&self) -> String {
        let all: Vec<usize> = (0..APPS).collect();
        if let Err(error) = self.stage.set_faults(&all, app::Fault::default()).await {
            self.story.note(Kind::Note, format!("{error:#}"));
        }
        let Places { apps, endpoints, admin, probes, directory, .. } = &self.places;
        let app = apps.first().map(ToString::to_string).unwrap_or_default();
        let directory = directory.display();
        let endpoints = endpoints.display();
        format!(
            "Everything goes on running until Ctrl-C:\n  \
             kubervisor status --admin-addr {}\n  \
             curl {admin}/services          what the gate decides, and why\n  \
             curl {probes}/metrics\n  \
             cat {endpoints}\n  \
             curl -X PUT {app}/fault -H 'content-type: application/json' -d '{{\"errorRate\": 0.4}}'\n  \
             logs, payloads, policy: {directory}",
            admin.trim_start_matches("http://"),
        )
    }
}
