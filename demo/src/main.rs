//! The `kubervisor-demo` command, started by `kubervisor demo`: the main job, shown to newcomers and held by CI.
//!
//! Real processes over real sockets on loopback: twelve small HTTP apps, each with its agent, one master with the
//! embedded store, and a client that reads the endpoints file. Only the faults are simulated. Each act changes
//! the fleet and has a promise, which is measured.
//!
//! | file | what |
//! |---|---|
//! | `app`, `janitor` | the demo's own child processes |
//! | `child`, `stage` | starts, kills and ends all processes, on a loopback network of their own |
//! | `load`, `listing` | the client, and the endpoints file as it reads it |
//! | `watch` | reads files and admin pages |
//! | `story` | everything that was observed and promised, in the order of time |
//! | `acts` | the first six acts |
//! | `masters` | the last act: nine masters on one etcd |
//! | `live`, `report` | the story in a terminal, and as a page |

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod acts;
mod app;
mod child;
mod janitor;
mod listing;
mod live;
mod load;
mod masters;
mod report;
mod stage;
mod story;
mod watch;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use kubervisor::{
    exit::Exit,
    roles::demo::Args,
    roles::output::{notice, print},
    telemetry::{self, LogFormat, Verbosity},
};
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

#[derive(Debug, Parser)]
#[command(
    name = "kubervisor demo",
    about = "Runs the main job on this machine, with figures: 12 apps, one master, and nine masters on one etcd",
    max_term_width = 110,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    args: Args,
    /// How log lines look on stderr; data is always on stdout.
    #[arg(long, env = "KUBERVISOR_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The demo's own child processes.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// One of the apps.
    #[command(hide = true)]
    App(app::AppArgs),
    /// Removes the demo's directory once the demo has ended.
    #[command(hide = true)]
    Janitor(janitor::JanitorArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Every HTTP client in the process uses this provider; an error only says that one is installed already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    telemetry::start(cli.log_format, Verbosity::Warnings);
    let ended = match cli.part {
        Some(Part::App(args)) => app::run(args).await,
        Some(Part::Janitor(args)) => janitor::run(args).await,
        None => run(cli.args).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            notice(&format!("kubervisor: {exit}\n"));
            exit.code()
        }
    }
}

async fn run(args: Args) -> Result<(), Exit> {
    let cap = Duration::try_from_secs_f64(args.cap).map_err(|_| {
        Exit::Usage(format!("--cap={}: not a number of seconds; write for example 20", args.cap))
    })?;
    let stop = stop_signal()?;
    let stage = Stage::set(!args.without_policy)?;
    let places = stage.places();
    let story = Story::begin();
    print(&(summary(&places) + "\n"))?;
    if stage.masters.is_none() {
        print("the last act is left out: it needs etcd on PATH (Debian: etcd-server)\n")?;
    }
    let screen = Screen::start(story.clone());
    let mut watchers = JoinSet::new();
    let (log, sending) = load::start(places.endpoints.clone())?;
    let watch = Watch::start(&places, &story, &log, &mut watchers)?;
    let mut play = Play { stage, places, watch, log, story, cap };
    let mut stop = std::pin::pin!(stop);
    let stopped = tokio::select! {
        () = play.run() => false,
        () = &mut stop => true,
    };
    // Samples are one span late.
    tokio::time::sleep(Duration::from_millis(600)).await;
    screen.finish().await;
    let record = play.story.record();
    let held = record.all_held(play.acts());
    let written = args.report.as_deref().map(|file| report::write(file, &play.story)).transpose();
    if args.keep && !stopped {
        print(&format!("\n{}\n", play.invitation().await))?;
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

/// Ready at SIGINT, SIGTERM or SIGHUP.
fn stop_signal() -> Result<impl Future<Output = ()>, Exit> {
    let streams = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [interrupt, terminate, hangup] = streams;
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

/// A client with this deadline and without a proxy.
fn client(deadline: Duration) -> anyhow::Result<reqwest::Client> {
    let built = reqwest::Client::builder().timeout(deadline).no_proxy().build();
    built.context("cannot make an HTTP client")
}

fn summary(places: &Places) -> String {
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
    /// Ends all faults, and lists addresses and files.
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
