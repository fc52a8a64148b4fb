//! The pure core and the store, in this process: snapshot and digest of a large fleet, the gate's plan,
//! one durable commit.

use std::time::{Duration, Instant};

use kubervisor::{
    adapters::store::{self, Leadership, Member, Membership, StoreMetrics},
    alarms::Alarms,
    clock::Clock,
    config::StoreConfig,
    decide::{
        digest::Digest,
        ensemble::{Ensemble, Settings},
        time::Moment,
    },
};

use crate::{
    callback::millis,
    fleet::Pod,
    report::{Figure, Goal, Report, median},
    world::{Sink, World, ratio},
    yardstick::one_store_commit,
};

const PODS: u32 = 50_000;
const ROUNDS: u32 = 25;

pub(crate) fn measure_snapshot(report: &mut Report) -> anyhow::Result<()> {
    let ttl = Duration::from_secs(25);
    let mut ensemble = Ensemble::new(Settings::new(ttl, ttl / 3));
    let at = Moment::after_origin(Duration::from_secs(1));
    for number in 0..PODS {
        ensemble.observe(at, Pod::new(number).keepalive().as_bytes(), None)?;
    }
    while let Some(changes) = ensemble.take_changes() {
        ensemble.confirm(changes.ticket);
    }
    let (mut whole, mut joins, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for change in 1..=ROUNDS {
        // All over the snapshot: what comes before the changed pod is not hashed again.
        let pod = Pod { load: change, ..Pod::new(change * (PODS / (ROUNDS + 1))) };
        ensemble.observe(at, pod.keepalive().as_bytes(), None)?;
        let began = Instant::now();
        let snapshot = ensemble.snapshot();
        joins.push(millis(began.elapsed()));
        let digest = snapshot.digest();
        whole.push(millis(began.elapsed()));
        let began = Instant::now();
        anyhow::ensure!(Digest::of(snapshot.pods()) == digest, "the digest is not that of the pods");
        hashes.push(millis(began.elapsed()));
    }
    let size = ensemble.snapshot().pods().len();
    report.add(
        Figure::new("digest and snapshot of 50 000 pods after one change", median(&mut whole), "ms")
            .goal(Goal::AtMost(40.0))
            .beside("MD5 of the same bytes", median(&mut hashes))
            .note(format!("{:.1} MB; the join alone {:.1} ms", size as f64 / 1e6, median(&mut joins))),
    );
    Ok(())
}

pub(crate) fn measure_gate(report: &mut Report) -> anyhow::Result<()> {
    let commit = millis(commit()?);
    for (pods, goal) in [(1000, 0.3), (10_000, 3.0)] {
        let mut world = World::new(Sink::Labels, ratio(50), pods);
        let names: Vec<String> = (0..pods).step_by(10).map(|number| format!("p{number}")).collect();
        world.bad("rate", &names.iter().map(|name| (name.as_str(), 0.5)).collect::<Vec<_>>());
        // Half of the fleet's bad tenth is withheld already: the ledger has something to say too.
        world.step();
        let fleet = world.fleet();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let plan = kubervisor::decide::gate::plan(
                world.now,
                &world.policy,
                &fleet,
                &world.ledger,
                &world.verdicts,
            );
            times.push(millis(began.elapsed()));
            anyhow::ensure!(!plan.explanations.is_empty(), "the plan has nothing to say");
        }
        report.add(
            Figure::new(format!("gate::plan, {pods} pods"), median(&mut times), "ms")
                .goal(Goal::AtMost(goal))
                .beside("one store commit", commit)
                .note("a tenth of the pods bad and withheld, verdicts for all"),
        );
    }
    Ok(())
}

/// One durable commit of the embedded store on this disk.
fn commit() -> anyhow::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let directory = tempfile::tempdir()?;
        let config = StoreConfig::Embedded(directory.path().join("store.redb"));
        let membership = Membership {
            prefix: store::prefix("bench", "shop"),
            member: Member {
                id: "bench".to_owned(),
                address: "127.0.0.1:8000".to_owned(),
                pod: String::new(),
            },
            lease: Duration::from_secs(3),
        };
        let store = store::open(
            &config,
            membership,
            &Alarms::new(Clock::start()),
            StoreMetrics::register(&mut prometheus_client::registry::Registry::default()),
        )
        .await?;
        let mut leadership = store.leadership();
        let leading =
            leadership.wait_for(|leadership| matches!(leadership, Leadership::Leading { .. })).await?.clone();
        let Leadership::Leading { term } = leading else { anyhow::bail!("nobody leads") };
        Ok(one_store_commit(store.as_ref(), term, 25).await?)
    })
}
