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
    plane_stage::{Asked, Controller, Fleets, Signal, Stage, Witness, counted, on_a_plane, wait},
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
        let began = Instant::now();
        label(&fleets, &bad, "no").await?;
        bare.push(millis(fleets.show(left).await? - began));
        eprintln!("  bare loop: {:.0} ms", bare.last().copied().unwrap_or_default());
        label(&fleets, &bad, "yes").await?;
        fleets.show(fleets.size()).await?;
    }
    let signal = Signal::start().await?;
    fleets.gate(&signal, 0.2)?;
    let mut controller = Controller::start(&fleets)?;
    fleets.adopted().await?;
    let (mut ours, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        controller.lives()?;
        let witness = Witness::new(&stage.plane)?;
        let named = bad.iter().map(|pod| (fleets.namespace.clone(), pod.clone()));
        signal.name(named.collect());
        let out = fleets.show(left).await?;
        let told = wait("the verdict", Duration::from_secs(1), async || Ok(signal.told())).await?;
        ours.push(millis(out - told));
        eprintln!("  controller: {:.0} ms", ours.last().copied().unwrap_or_default());
        // Who is out stays so while it is named: what comes now are releases and Events.
        tokio::time::sleep(Duration::from_secs(3)).await;
        requests.push(witness.asked()?);
        signal.name(Vec::new());
        fleets.show(fleets.size()).await?;
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
    report.add(Figure::new("withdrawal over a bare loop", took / yardstick, "x").goal(Goal::AtMost(1.3)));
    let most = requests.iter().max_by_key(|asked| needed(asked));
    let note = most.map_or_else(String::new, |asked| format!("all within 3 s: {}", counted(asked)));
    let count = most.map_or(0, |asked| needed(asked));
    report.add(
        Figure::new("API requests for 100 withdrawals", count as f64, "requests")
            .goal(Goal::AtMost((BAD + 2) as f64))
            .note(note),
    );
}

/// What the withdrawal itself needed: patches of pods, lists, and the ledger up to the first patch. What is written to
/// the ledger later are releases, and Events are told apart too.
fn needed(asked: &[Asked]) -> usize {
    let patches = || asked.iter().filter(|one| one.resource == "pods" && one.verb == "patch");
    let first = patches().map(|one| one.at.as_str()).min().unwrap_or_default();
    let before = |one: &&Asked| {
        one.resource == "pods" && one.verb == "list"
            || one.resource.ends_with("/status") && one.at.as_str() <= first
    };
    patches().count() + asked.iter().filter(before).count()
}
