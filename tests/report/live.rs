//! The promise of a replay: of the same samples it makes the decisions that the production's loop makes, action by
//! action. The live side is [`GateReconciler`] in virtual time over pods with switches, fences and guards of their own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kubervisor::{
    adapters::sink::{ListingFindings, Observed, Reservation, SinkError, TrafficSink},
    alarms::Alarms,
    api::{self, Context, Detectors, Manifest, requests::PersonRequests},
    clock::Clock,
    decide::{
        detect::{
            LifeStatus, Observation, Windows,
            listed::FleetScope,
            queried::{self, JudgedAnswer, QueryAnswer},
            series::{Vector, VectorElement},
        },
        fleet::Traffic,
        gate::{
            Plan,
            action::{Action, Verb},
            ledger::ActionOutcome,
        },
        policy::Policy,
        replay::{
            Replay, ReplayLog, ReplayStep,
            answers::{ABSENT, RangeAnswer, RangeSeries},
            history::{FleetChange, FleetEvent, HistoricPod},
        },
        time::Timestamp,
    },
    roles::gate::{
        metrics::GateMetrics,
        reconciler::{GateReconciler, GateReconcilerDeps},
        reporter::NoReporter,
    },
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    traces::{Delivery, Trace},
    world::{Sink, World},
};

const EVERY: Duration = Duration::from_secs(5);

/// How many milliseconds after the start what was done to which pod.
type Done = (i64, Verb, String);

fn manifest(spec: &Value) -> Manifest {
    let mut resource = json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": {"name": "web"},
        "spec": {"service": "web", "breakers": [{
            "name": "slow", "evaluationPeriod": 5,
            "outlier": {"prometheusService": "p:9090", "promQL": "x", "podNamekey": "pod"},
        }]},
    });
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.into_iter()
                    .for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
            }
            (into, from) => *into = from,
        }
    }
    let breaker = spec["breaker"].clone();
    merge(&mut resource["spec"], spec["spec"].clone());
    merge(&mut resource["spec"]["breakers"][0], breaker);
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    api::parse("policy", &resource.to_string(), context).unwrap().remove(0)
}

/// The pods of a cluster behind the production's trait.
struct WorldSink(Arc<Mutex<World>>);

#[async_trait]
impl TrafficSink for WorldSink {
    async fn observe(&mut self, now: Timestamp, _: &Policy) -> Result<Observed, SinkError> {
        let mut world = self.0.lock();
        world.now = now;
        Ok(Observed {
            fleet: world.fleet(),
            ledger: world.ledger.clone(),
            details: BTreeMap::new(),
            look_again: None,
            stand_aside: None,
            hindrance: None,
            listing: ListingFindings::default(),
            requests: PersonRequests::default(),
        })
    }

    async fn reserve(&mut self, plan: Option<&Plan>, _: &Value) -> Result<Reservation, SinkError> {
        plan.into_iter().for_each(|plan| self.0.lock().store(plan));
        Ok(Reservation::Stored)
    }

    async fn send(&mut self, actions: &[Action]) -> Vec<ActionOutcome> {
        let mut world = self.0.lock();
        actions.iter().map(|action| world.carry(action).unwrap_or(ActionOutcome::Landed)).collect()
    }
}

fn value(trace: &Trace, look: usize, pod: usize) -> Option<f64> {
    let sample = trace.looks[look][pod];
    (sample.delivery == Delivery::Arrives && !trace.unanswered.contains(&look)).then_some(sample.latency)
}

fn element(pod: usize, value: Option<f64>, at: Timestamp) -> VectorElement {
    VectorElement {
        pod: Some(format!("p{pod}")),
        namespace: None,
        key: None,
        labels: HashMap::new(),
        value,
        at,
    }
}

/// The production's loop beside a breaker that is evaluated every 5 s.
async fn live(trace: &Trace, manifest: &Manifest) -> Vec<Done> {
    let clock = Clock::start();
    let mut world = World::new(Sink::Labels, manifest.policy.clone(), u32::try_from(trace.pods()).unwrap());
    world.can_kill = true;
    let world = Arc::new(Mutex::new(world));
    let (_policies, policy) = watch::channel(Arc::new(manifest.policy.clone()));
    let gate = Arc::new(GateReconciler::new(GateReconcilerDeps {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        policy,
        dry_run: false,
        clock,
        alarms: Alarms::new(clock),
        metrics: GateMetrics::register(&mut Registry::default()),
        reporter: Box::new(NoReporter),
    }));
    let (stop, (_changes, changed)) = (CancellationToken::new(), watch::channel(0));
    let running = {
        let (gate, stop, mut sink) = (Arc::clone(&gate), stop.clone(), WorldSink(Arc::clone(&world)));
        tokio::spawn(async move { gate.run(&mut sink, changed, &stop).await })
    };
    let (rule, start, begun) = (&manifest.rules[0], clock.wall(), tokio::time::Instant::now());
    let (scope, mut windows) = (FleetScope { namespace: "shop".into(), by_uid: true }, Windows::default());
    for look in 0..trace.looks.len() {
        tokio::time::sleep_until(begun + EVERY * u32::try_from(look).unwrap()).await;
        let now = clock.wall();
        let elements =
            (0..trace.pods()).filter_map(|pod| Some(element(pod, Some(value(trace, look, pod)?), now)));
        let answer = QueryAnswer::Vector(Vector { asked: now, elements: elements.collect() });
        let pods = world.lock().fleet();
        let observation = |pod: &kubervisor::decide::fleet::PodView| Observation {
            uid: pod.uid.clone(),
            id: pod.name.clone(),
            age: Duration::ZERO,
            status: LifeStatus::Live,
            heard: false,
            withheld: pod.traffic != Traffic::Yes,
            name_age: None,
            payload: Arc::default(),
        };
        let pods: Vec<Observation> = pods.pods().iter().map(observation).collect();
        let judged = queried::judge(rule, now, &pods, &answer, &scope, &mut windows);
        gate.set_breaker_verdicts(judged.source);
    }
    tokio::time::sleep(EVERY).await;
    stop.cancel();
    running.await.unwrap();
    let log = std::mem::take(&mut world.lock().log);
    let done = log.into_iter().map(|(at, verb, pod)| (at.unix_millis() - start.unix_millis(), verb, pod));
    done.filter(|(_, verb, ..)| *verb != Verb::Claim).collect()
}

/// What a replay does.
#[derive(Default)]
struct Actions {
    start: i64,
    done: Vec<Done>,
    killed: Vec<String>,
}

impl ReplayLog for Actions {
    fn evaluated(&mut self, _: &JudgedAnswer) {}

    fn planned(&mut self, step: &ReplayStep<'_>) {
        for action in &step.plan.actions {
            let lands = !matches!(action.verb, Verb::Release | Verb::Forget);
            // A replay's pod that is to be killed stays; its kill is repeated by every plan.
            let again = action.verb == Verb::Kill && self.killed.contains(&action.name);
            if lands && !again {
                if action.verb == Verb::Kill {
                    self.killed.push(action.name.clone());
                }
                let at = step.plan.at.unix_millis() - self.start;
                self.done.push((at, action.verb, action.name.clone()));
            }
        }
    }
}

fn replayed(trace: &Trace, manifest: &Manifest) -> Vec<Done> {
    let start = Timestamp::from_unix_millis(1_700_000_000_000);
    let every = i64::try_from(EVERY.as_millis()).unwrap();
    let series = |pod: usize| RangeSeries {
        element: element(pod, None, start),
        values: (0..trace.looks.len()).map(|look| value(trace, look, pod).unwrap_or(ABSENT)).collect(),
    };
    let series = (0..trace.pods()).map(series).collect();
    let answer = RangeAnswer { start, step: every, steps: trace.looks.len(), series };
    let appears = |pod: usize| FleetEvent {
        at: start,
        change: FleetChange::Appears(HistoricPod {
            uid: format!("u{pod:05}").into(),
            name: format!("p{pod}"),
            created: None,
            reusable_name: false,
            has_controller: true,
            node: None,
            ready: true,
        }),
    };
    let events: Vec<FleetEvent> = (0..trace.pods()).map(appears).collect();
    let scope = FleetScope { namespace: "shop".into(), by_uid: true };
    let mut replay = Replay::new(&manifest.policy, &manifest.rules, scope, start);
    let mut log = Actions { start: start.unix_millis(), ..Actions::default() };
    let answers = HashMap::from([("slow", &answer)]);
    // In parts, as a report does it.
    let middle = answer.time(trace.looks.len() / 2);
    replay.advance(middle, &events, &answers, &mut log);
    replay.advance(answer.time(trace.looks.len()), &[], &answers, &mut log);
    log.done
}

async fn assert_equal(numbers: std::ops::Range<u64>, spec: &Value) {
    let manifest = manifest(spec);
    let mut all = 0;
    for number in numbers {
        let trace = Trace::new(number);
        let (live, replayed) = (live(&trace, &manifest).await, replayed(&trace, &manifest));
        let end = i64::try_from(trace.looks.len()).unwrap() * 5000;
        // A timer's resolution is 1 ms, and two actions in a row are up to 100 ms apart.
        let rounded = |done: Vec<Done>| -> Vec<Done> {
            let quarter = |at: i64| (at + 50) / 250;
            done.into_iter()
                .filter(|done| done.0 < end)
                .map(|(at, verb, pod)| (quarter(at), verb, pod))
                .collect()
        };
        let (live, replayed) = (rounded(live), rounded(replayed));
        for (index, (live, replayed)) in live.iter().zip(&replayed).enumerate() {
            assert_eq!(live, replayed, "trace {number}, action {index}");
        }
        assert_eq!(live.len(), replayed.len(), "trace {number}: {live:?} {replayed:?}");
        all += live.len();
    }
    assert!(all > 20, "only {all} actions were compared");
}

#[tokio::test(start_paused = true)]
async fn a_replay_takes_the_actions_of_the_production_s_loop_one_by_one() {
    let activator = json!({"mode": "periodic", "period": 20});
    assert_equal(
        0..14,
        &json!({"spec": {}, "breaker": {"minPodsAvailableRatio": 60, "activator": activator}}),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn so_it_does_with_jitter_batches_panic_pauses_and_a_reverted_withdrawal() {
    let activator =
        json!({"mode": "retryAndPause", "period": 15, "maxRetryCount": 2, "jitter": 0.5, "batch": 1});
    let spec = json!({"panicThreshold": 20, "revertIfNoBetter": 30});
    assert_equal(
        0..14,
        &json!({"spec": spec, "breaker": {"minPodsAvailableRatio": 80, "activator": activator}}),
    )
    .await;
}
