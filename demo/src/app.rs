//! One small HTTP app of the demo, a process of its own: it answers, its fault can be set, and it writes its error rate
//! into its payload file.
//!
//! The error rate comes from probes of itself, ten times a second over a real socket, and does not depend on client
//! traffic: an app that is withheld still measures whether it has recovered.

use std::{
    collections::VecDeque,
    net::SocketAddrV4,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client;
use kubervisor::exit::Exit;

/// Time between two probes of itself.
const PROBE: Duration = Duration::from_millis(100);
/// Probes that the error rate is computed over.
const WINDOW: usize = 10;
/// Latencies are rounded down to multiples of this many milliseconds, so that noise is no change of the payload.
const STEP: u64 = 10;

/// Arguments of an app.
#[derive(Debug, clap::Args)]
pub(crate) struct AppArgs {
    /// Address to serve on.
    pub(crate) address: SocketAddrV4,
    /// Its payload file.
    #[arg(env = "DEMO_PAYLOAD")]
    pub(crate) payload: PathBuf,
}

/// An app's fault; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Fault {
    /// Share of answers that are a 500.
    pub(super) error_rate: f64,
    /// Milliseconds that each answer takes.
    pub(super) latency_ms: u64,
}

/// The payload that the app's agent sends with each keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payload {
    /// Share of its own probes that failed.
    pub(super) error_rate: f64,
    /// Median answer to its own probes.
    pub(super) latency_ms: u64,
    /// Where it takes traffic.
    pub(super) port: u16,
}

#[derive(Default)]
struct App {
    fault: Mutex<Fault>,
    answers: AtomicU32,
}

/// Serves until it is killed.
pub(super) async fn run(args: AppArgs) -> Result<(), Exit> {
    let listener = tokio::net::TcpListener::bind(args.address)
        .await
        .with_context(|| format!("the app cannot listen on {}", args.address))?;
    let app = Arc::new(App::default());
    let router = Router::new()
        .route("/", get(answer))
        .route("/fault", put(set_fault).get(get_fault))
        .with_state(Arc::clone(&app));
    tokio::spawn(report(args));
    axum::serve(listener, router).await.context("the app ended").map_err(Exit::Failed)
}

async fn answer(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    let fault = *app.fault.lock().unwrap_or_else(PoisonError::into_inner);
    if fault.latency_ms > 0 {
        sleep(Duration::from_millis(fault.latency_ms)).await;
    }
    let count = app.answers.fetch_add(1, Ordering::Relaxed);
    if fails(count, fault.error_rate) {
        return (StatusCode::INTERNAL_SERVER_ERROR, "broken, as it was told to be\n");
    }
    (StatusCode::OK, "fine\n")
}

/// Whether the answer with this number fails: the golden ratio spreads failures evenly over any few answers in a
/// row, so that a second of probes shows the true rate.
fn fails(count: u32, rate: f64) -> bool {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    (f64::from(count) * GOLDEN).fract() < rate
}

async fn set_fault(State(app): State<Arc<App>>, Json(fault): Json<Fault>) -> Json<Fault> {
    *app.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    Json(fault)
}

async fn get_fault(State(app): State<Arc<App>>) -> Json<Fault> {
    Json(*app.fault.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Probes, and rewrites the payload file when there is something new to say.
async fn report(args: AppArgs) {
    let port = args.address.port();
    let mut written = None;
    let mut seen = VecDeque::with_capacity(WINDOW);
    let mut round = interval(PROBE);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Ok(client) = client(Duration::from_secs(1)) else { return };
    let url = format!("http://{}/", args.address);
    loop {
        let payload = sum_up(&seen, port);
        if written != Some(payload) {
            match write(&args, payload).await {
                Ok(()) => written = Some(payload),
                Err(error) => tracing::warn!("cannot write {}: {error}", args.payload.display()),
            }
        }
        round.tick().await;
        let asked = Instant::now();
        let good = client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        if seen.len() == WINDOW {
            seen.pop_front();
        }
        seen.push_back((good, asked.elapsed()));
    }
}

fn sum_up(seen: &VecDeque<(bool, Duration)>, port: u16) -> Payload {
    let failed = seen.iter().filter(|(good, _)| !good).count();
    // Divided by a full window, so that one failure of a new app is a rate of 0.1.
    let error_rate = (failed * 100 / WINDOW) as f64 / 100.0;
    let mut latencies: Vec<Duration> = seen.iter().map(|&(_, latency)| latency).collect();
    latencies.sort_unstable();
    let median = latencies.get(latencies.len() / 2).map_or(0, |median| median.as_millis());
    let latency_ms = u64::try_from(median).unwrap_or(u64::MAX) / STEP * STEP;
    Payload { error_rate, latency_ms, port }
}

/// Replaces the file atomically: the agent may read at any time.
async fn write(args: &AppArgs, payload: Payload) -> anyhow::Result<()> {
    let fresh = args.payload.with_extension("new");
    tokio::fs::write(&fresh, serde_json::to_vec(&payload)?).await?;
    tokio::fs::rename(&fresh, &args.payload).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ten_answers_in_a_row_fail_at_their_rate() {
        for start in 0..1000 {
            let failed = (start..start + 10).filter(|&count| fails(count, 0.4)).count();
            assert!((3..=5).contains(&failed), "{failed} of 10 from {start}");
            assert!(!(start..start + 10).any(|count| fails(count, 0.0)));
            assert!((start..start + 10).all(|count| fails(count, 1.0)));
        }
    }

    #[test]
    fn a_payload_is_over_a_full_window_and_ignores_noise() {
        let mut seen = VecDeque::from(vec![(false, Duration::from_millis(3)); 2]);
        assert_eq!(sum_up(&seen, 80), Payload { error_rate: 0.2, latency_ms: 0, port: 80 });
        seen.extend([(true, Duration::from_millis(27)); 8]);
        assert_eq!(sum_up(&seen, 80), Payload { error_rate: 0.2, latency_ms: 20, port: 80 });
        assert_eq!(sum_up(&VecDeque::new(), 80), Payload { error_rate: 0.0, latency_ms: 0, port: 80 });
    }
}
