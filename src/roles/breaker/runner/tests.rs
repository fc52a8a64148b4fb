//! The loop over a host that records its calls.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::*;
use crate::{
    adapters::secrets::Files,
    api::{self, Context, Detectors},
    decide::detect::LifeStatus,
    roles::breaker::AskerMetrics,
};

/// Pods `a` and `b`; records every call of the loop.
struct RecordingHost {
    clock: Clock,
    asker: Arc<Asker>,
    receives: bool,
    superseded: bool,
    notes: Mutex<Vec<String>>,
}

impl RecordingHost {
    fn new() -> Self {
        let clock = Clock::start();
        let metrics = AskerMetrics::register(&mut Registry::default());
        let asker = Arc::new(Asker::new(Arc::new(Files), clock, metrics).unwrap());
        Self { clock, asker, receives: true, superseded: false, notes: Mutex::default() }
    }

    fn note(&self, text: String) {
        self.notes.lock().push(text);
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }
}

impl BreakerHost for RecordingHost {
    fn clock(&self) -> Clock {
        self.clock
    }

    fn asker(&self) -> &Arc<Asker> {
        &self.asker
    }

    fn observations(&self) -> Vec<Observation> {
        let pod = |name: &str, number: u32| Observation {
            uid: name.into(),
            id: name.into(),
            age: Duration::ZERO,
            status: LifeStatus::Live,
            heard: true,
            withheld: false,
            name_age: None,
            payload: Arc::new(number.into()),
        };
        vec![pod("a", 1), pod("b", 9)]
    }

    fn receives_keepalives(&self) -> bool {
        self.receives
    }

    fn scope(&self) -> FleetScope {
        FleetScope { namespace: "shop".into(), by_uid: true }
    }

    fn publish(&self, source: Source) {
        let bad = source.opinions().iter().filter(|(_, opinion)| opinion.objects());
        let bad: Vec<_> = bad.map(|(uid, _)| uid.as_str()).collect();
        self.note(format!("{}: {}", source.name, bad.join(" ")));
    }

    fn retain_breakers(&self, left: &BTreeSet<&str>) {
        self.note(format!("left: {left:?}"));
    }

    fn publish_failures(&self, failures: &BTreeMap<String, String>) {
        self.note(format!("failures: {:?}", failures.keys()));
    }

    async fn persist(&self, windows: Bytes) -> Result<(), Superseded> {
        self.note(format!("kept: {}", String::from_utf8_lossy(&windows)));
        if self.superseded { Err(Superseded) } else { Ok(()) }
    }
}

/// One breaker that judges payloads each second, or queries a service that does not exist.
fn manifest(name: &str, detector: &str) -> Option<Arc<Manifest>> {
    let period = if detector.contains("evaluationPeriod") { "" } else { "evaluationPeriod: 1, " };
    let text = format!(
        "{{apiVersion: kubervisor.k8s.io/v1alpha1, kind: KubervisorService, metadata: {{name: shop}}, spec: \
         {{service: shop, breakers: [{{name: {name}, {period}{detector}}}]}}}}"
    );
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    let mut manifests = api::parse("policy", &text, context).unwrap();
    Some(Arc::new(manifests.remove(0)))
}

const BY_PAYLOAD: &str = "keepalive: {pointer: \"\", max: 5}";

/// The loop over `host`, beside what the test does for `seconds`.
async fn run(host: &Arc<RecordingHost>, policies: &watch::Sender<Option<Arc<Manifest>>>, seconds: f64) {
    let stop = CancellationToken::new();
    let running = run_breakers(Arc::clone(host), policies.subscribe(), None, &stop);
    let _over = tokio::time::timeout(Duration::from_secs_f64(seconds), running).await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_is_evaluated_at_its_period_and_unchanged_windows_are_stored_once() {
    let host = Arc::new(RecordingHost::new());
    run(&host, &watch::Sender::new(manifest("load", BY_PAYLOAD)), 2.5).await;
    assert_eq!(host.taken(), ["load: b", "kept: {}", "load: b", "load: b"]);
}

#[tokio::test(start_paused = true)]
async fn without_keepalives_a_breaker_that_needs_them_has_no_verdicts() {
    let host = Arc::new(RecordingHost { receives: false, ..RecordingHost::new() });
    run(&host, &watch::Sender::new(manifest("load", BY_PAYLOAD)), 2.5).await;
    assert_eq!(host.taken(), ["kept: {}"]);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_loop_ends_and_clears_its_failures() {
    let host = Arc::new(RecordingHost { superseded: true, ..RecordingHost::new() });
    run(&host, &watch::Sender::new(manifest("load", BY_PAYLOAD)), 60.0).await;
    assert_eq!(host.taken(), ["load: b", "kept: {}", "failures: []"]);
}

#[tokio::test(start_paused = true)]
async fn it_starts_with_the_first_policy_follows_the_next_and_keeps_the_last() {
    let host = Arc::new(RecordingHost::new());
    let policies = watch::Sender::new(None);
    let second = Duration::from_secs(1);
    let changes = async {
        tokio::time::sleep(second * 3 / 2).await;
        policies.send_replace(manifest("load", BY_PAYLOAD));
        tokio::time::sleep(second * 3 / 2).await;
        policies.send_replace(manifest("weight", BY_PAYLOAD));
        tokio::time::sleep(second / 2).await;
        policies.send_replace(None);
    };
    tokio::join!(run(&host, &policies, 4.5), changes);
    let expected = ["load: b", "kept: {}", "load: b", "left: {}", "failures: []", "weight: b", "weight: b"];
    assert_eq!(host.taken(), expected);
}

/// Until the new one has run there is no verdict rather than the old detector's; another period alone changes nothing.
#[tokio::test(start_paused = true)]
async fn a_detector_that_is_exchanged_under_the_same_name_loses_its_verdict_at_once() {
    let host = Arc::new(RecordingHost::new());
    let policies = watch::Sender::new(manifest("load", BY_PAYLOAD));
    let changes = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        policies.send_replace(manifest("load", "evaluationPeriod: 2, keepalive: {pointer: \"\", max: 5}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        policies.send_replace(manifest("load", "keepalive: {pointer: \"\", max: 50}"));
    };
    tokio::join!(run(&host, &policies, 1.7), changes);
    let expected = [
        "load: b",
        "kept: {}",
        "load: b",
        "left: {\"load\"}",
        "failures: []",
        "left: {}",
        "failures: []",
        "load: ",
    ];
    assert_eq!(host.taken(), expected);
}

#[tokio::test]
async fn a_failed_query_gives_no_verdict_and_a_failure() {
    let host = Arc::new(RecordingHost::new());
    run(&host, &watch::Sender::new(manifest("custom", "customService: \"127.0.0.1:1\"")), 0.5).await;
    assert_eq!(host.taken(), ["kept: {}", "custom: ", "failures: [\"custom\"]"]);
}
