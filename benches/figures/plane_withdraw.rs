//! From a verdict to 100 of 1000 pods out of the EndpointSlices, and what that asks of the API server.
//!
//! The yardstick is a bare loop in this process: the same 100 pods, one merge patch of the label each, 32 at a time.
//! Both take turns, and for both the clock stops when the slices show 900 pods. The controller's starts when the
//! custom service answers with the bad pods, so that its question's pace is not in it.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    callback::millis,
    plane_stage::{Asked, Controller, Detector, Fleets, Stage, Witness, counted, on_a_plane, wait},
    report::{Figure, Goal, Report, median},
};

const PODS: u32 = 1000;
const BAD: usize = 100;
const ROUNDS: usize = 5;
const AT_A_TIME: usize = 32;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    on_a_plane(async |stage| withdraw(report, stage).await)
}

async fn withdraw(report: &mut Report, stage: &Stage) -> anyhow::Result<()> {
    let fleets = Fleets::make(stage, "withdraw", 1, PODS).await?;
    let mut bad = fleets.ready(None).await?;
    bad.sort_unstable();
    bad.truncate(BAD);
    let left = fleets.size() - BAD;
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        let mut shown = fleets.follow().await?;
        let began = Instant::now();
        label(&fleets, &bad, "no").await?;
        let labelled = millis(began.elapsed());
        bare.push(millis(shown.until(left).await? - began));
        eprintln!("  bare loop: {labelled:.0}, {:.0} ms", bare.last().copied().unwrap_or_default());
        label(&fleets, &bad, "yes").await?;
        shown.until(fleets.size()).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let signal = Detector::start().await?;
    fleets.gate(&signal, 0.2)?;
    let mut controller = Controller::start(&fleets)?;
    fleets.adopted().await?;
    let (mut ours, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        controller.lives()?;
        let witness = Witness::new(&stage.plane)?;
        let named = bad.iter().map(|pod| (fleets.namespace.clone(), pod.clone()));
        let mut shown = fleets.follow().await?;
        signal.name(named.collect());
        let out = shown.until(left).await?;
        let told = wait("the verdict", Duration::from_secs(1), async || Ok(signal.told())).await?;
        ours.push(millis(out - told));
        eprintln!("  controller: {:.0} ms", ours.last().copied().unwrap_or_default());
        // Who is out stays so while it is named: what comes now are releases and Events.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let asked = witness.asked()?;
        eprintln!("    {}", course(&asked));
        requests.push(asked);
        signal.name(Vec::new());
        shown.until(fleets.size()).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    tell(report, &mut ours, &mut bare, &requests);
    Ok(())
}

async fn label(fleets: &Fleets<'_>, pods: &[String], to: &str) -> anyhow::Result<()> {
    let api = Api::<Pod>::namespaced(fleets.stage.client.clone(), &fleets.namespace);
    let patch = Patch::Merge(json!({"metadata": {"labels": {"kubervisor/traffic": to}}}));
    let (params, api, patch) = (PatchParams::default(), &api, &patch);
    let one = |pod: &String| {
        let pod = pod.clone();
        let params = params.clone();
        async move { api.patch_metadata(&pod, &params, patch).await.map(drop) }
    };
    Ok(stream::iter(pods).map(one).buffer_unordered(AT_A_TIME).try_collect().await?)
}

fn tell(report: &mut Report, ours: &mut [f64], bare: &mut [f64], requests: &[Vec<Asked>]) {
    let (took, yardstick) = (median(ours), median(bare));
    let slowest = ours.iter().copied().fold(0.0, f64::max);
    report.add(
        Figure::new("verdict -> 100 of 1000 pods out of the slices", took, "ms")
            .goal(Goal::AtMost(1000.0))
            .beside("bare loop of 32", yardstick)
            .note(format!("median of {ROUNDS}, slowest {slowest:.0}")),
    );
    report.add(Figure::new("withdrawal over a bare loop", took / yardstick, "x").goal(Goal::AtMost(1.2)));
    let most = requests.iter().max_by_key(|asked| needed(asked));
    let note = most.map_or_else(String::new, |asked| format!("all within 3 s: {}", counted(asked)));
    let count = most.map_or(0, |asked| needed(asked));
    report.add(
        Figure::new("API requests for 100 withdrawals", count as f64, "requests")
            // Beside the patches: the LIST, the PUT, the slices, and one for each kind of owner (Deployments, autoscalers).
            .goal(Goal::AtMost((BAD + 5) as f64))
            .note(note),
    );
}

/// What the withdrawal itself needed: all up to the last patch of a pod. What is written to the ledger later are releases,
/// and Events are told apart too.
fn needed(asked: &[Asked]) -> usize {
    let last = asked.iter().filter(|one| is_patch(one)).map(|one| one.at.as_str()).max().unwrap_or_default();
    asked.iter().filter(|one| one.at.as_str() <= last && one.resource != "events").count()
}

fn is_patch(one: &Asked) -> bool {
    one.resource == "pods" && one.verb == "patch"
}

/// When the steps began, after the LIST.
fn course(asked: &[Asked]) -> String {
    let at = |one: &Asked| one.at.parse::<jiff::Timestamp>().ok();
    let times = |is: fn(&Asked) -> bool| asked.iter().filter(move |one| is(one)).filter_map(at);
    let list = times(|one| one.resource == "pods" && one.verb == "list").min();
    let after = |time: Option<jiff::Timestamp>| {
        let span = time.zip(list).map(|(time, list)| time.duration_since(list).as_millis());
        span.map_or_else(|| "never".to_owned(), |span| format!("{span} ms"))
    };
    let owners = times(|one| matches!(one.resource.as_str(), "deployments" | "horizontalpodautoscalers"));
    let ledger = times(|one| one.resource.ends_with("/status"));
    format!(
        "after the list began: owners {}, ledger {}, patches {} to {}",
        after(owners.min()),
        after(ledger.min()),
        after(times(is_patch).min()),
        after(times(is_patch).max()),
    )
}
