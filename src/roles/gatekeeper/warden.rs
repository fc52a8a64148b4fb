//! The warden: what was said about the pods goes in, plans are carried out, and people can see why.
//!
//! It observes, plans, reserves and sends, in that order and never otherwise, on whatever sink it is given:
//! a roster that is projected to a file, or labels in a cluster. Who may run it, and when, is its caller's
//! to say; what makes it safe is the sink's compare-and-swap, not who runs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    history::History,
    metrics::GateMetrics,
    view::{GatekeeperView, Part},
};
use crate::{
    adapters::sink::{Observed, Reserved, SinkError, TrafficSink},
    alarms::Alarms,
    clock::Clock,
    decide::{
        fleet::{Fleet, Uid},
        gate::{
            self, Plan,
            explain::ALARMS,
            ledger::{Ledger, Outcome},
        },
        policy::Policy,
        time::Timestamp,
        verdict::{self, Named, Source, SourceKind, TrafficVerdict, Verdicts},
    },
};

/// The alarm that is up while no decision can be made or stored.
pub const ALARM_FROZEN: &str = "gate_frozen";
/// The alarm that is up while the ledger may not be stored, or read.
pub const ALARM_STATUS_FORBIDDEN: &str = "status_forbidden";
/// The alarm that is up while pods are silent and listed all the same.
pub const ALARM_SILENT: &str = "silent_listed";
/// The name under which a callback's verdicts are heard.
pub const CALLBACK: &str = "callback";

const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Steps follow each other no faster than this: news come in swarms, and a look takes all of them in.
const BREATH: Duration = Duration::from_millis(20);
/// And after one that did something: whoever puts it into effect needs the processor more, and the next look is the more
/// worth the later it comes.
const REST: Duration = Duration::from_millis(100);
/// And no slower.
const LONGEST: Duration = Duration::from_secs(60);

/// Who is told of each step, beside the metrics, the alarms and the view.
pub trait Audience: Send + Sync + 'static {
    /// What the sink is to show of the fleet beside the ledger; `Null`: nothing.
    fn report(&self, _view: &GatekeeperView) -> Value {
        Value::Null
    }

    /// A plan was carried out: how the fleet was seen before and after it, and what became of its actions.
    fn carried_out(
        &self,
        _before: &GatekeeperView,
        _after: &GatekeeperView,
        _plan: &Plan,
        _outcomes: &[Outcome],
    ) {
    }
}

/// Nobody beside those who read metrics, alarms and views.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudience;

impl Audience for NoAudience {}

/// What a warden needs.
pub struct WardenDeps {
    /// The fleet's namespace.
    pub namespace: String,
    /// What people know it by: the Service's name, or the resource's.
    pub name: String,
    /// The policy in force; a new one counts at once.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Decide and report only, whatever the policy says.
    pub dry_run: bool,
    /// The clocks.
    pub clock: Clock,
    /// The alarms.
    pub alarms: Alarms,
    /// The metrics, registered by the caller.
    pub metrics: GateMetrics,
    /// Who else is told.
    pub audience: Box<dyn Audience>,
}

/// Decides for one fleet.
pub struct Warden {
    deps: WardenDeps,
    word: Mutex<Word>,
    woken: Notify,
    view: watch::Sender<Arc<GatekeeperView>>,
}

/// What was said, as it was said: names are put to pods when a plan is made.
#[derive(Default)]
struct Word {
    heard: Verdicts,
    callback: Option<(Timestamp, Vec<TrafficVerdict>)>,
}

/// What a warden remembers from step to step.
pub(super) struct Memory {
    history: History,
    shadow: Option<Ledger>,
    retry: Duration,
    /// How soon the next step may come.
    rest: Duration,
}

impl Default for Memory {
    fn default() -> Self {
        Self { history: History::default(), shadow: None, retry: RETRY.0, rest: BREATH }
    }
}

impl Warden {
    /// One that has heard nothing yet.
    #[must_use]
    pub fn new(deps: WardenDeps) -> Self {
        let view = GatekeeperView {
            namespace: deps.namespace.clone(),
            name: deps.name.clone(),
            dry_run: deps.dry_run,
            ..GatekeeperView::default()
        };
        let (word, woken) = (Mutex::default(), Notify::new());
        Self { word, woken, view: watch::Sender::new(Arc::new(view)), deps }
    }

    /// A callback run ended well: this replaces all that its last one said.
    pub fn callback_said(&self, verdicts: Vec<TrafficVerdict>) {
        let mut word = lock(&self.word);
        word.heard.evaluation += 1;
        word.callback = Some((self.deps.clock.wall(), verdicts));
        drop(word);
        self.wake();
    }

    /// A breaker of the policy ran: this replaces all that it said before.
    pub fn breaker_said(&self, source: Source) {
        lock(&self.word).heard.replace(source);
        self.wake();
    }

    /// Forgets what a breaker said that is not in the policy any more.
    pub fn forget_breakers(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.word).heard.sources.retain(|source| keep(&source.name));
        self.wake();
    }

    /// Has a new plan made now.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// What people may see, now.
    #[must_use]
    pub fn view(&self) -> Arc<GatekeeperView> {
        self.view.borrow().clone()
    }

    /// The view as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<GatekeeperView>> {
        self.view.subscribe()
    }

    /// Decides for the fleet of `sink`, whenever `changes` or time asks for it, until `stop`, or until the sink says
    /// that somebody else was elected.
    pub async fn govern(
        &self,
        sink: &mut dyn TrafficSink,
        mut changes: watch::Receiver<u64>,
        stop: &CancellationToken,
    ) {
        let mut memory = Memory::default();
        let mut policies = self.deps.policy.clone();
        loop {
            changes.borrow_and_update();
            let policy = policies.borrow_and_update().clone();
            let wait = match self.step(sink, &mut memory, &policy).await {
                Ok(wait) => {
                    memory.retry = RETRY.0;
                    self.deps.alarms.clear(ALARM_FROZEN);
                    self.deps.alarms.clear(ALARM_STATUS_FORBIDDEN);
                    wait
                }
                Err(error) if error.deposed() => break,
                Err(error) => {
                    let wait = self.freeze(&error, &mut memory);
                    if error.hindrance().is_some() {
                        let report = self.deps.audience.report(&self.view());
                        sink.tell(&report).await;
                    }
                    wait
                }
            };
            // Whatever happens meanwhile is seen by the next step; it only must not come too soon.
            let earliest = Instant::now() + memory.rest;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.woken.notified() => {}
                () = another(&mut changes) => {}
                () = another(&mut policies) => {}
            }
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// Observe, plan, reserve, send; how long to wait before the next time.
    async fn step(
        &self,
        sink: &mut dyn TrafficSink,
        memory: &mut Memory,
        policy: &Policy,
    ) -> Result<Duration, SinkError> {
        let dry_run = self.deps.dry_run;
        memory.rest = BREATH;
        let mut now = self.deps.clock.wall();
        let mut observed = sink.observe(now, policy).await?;
        if let Some(until) = observed.stand_aside {
            return Ok(until.since(now).clamp(BREATH, LONGEST));
        }
        let (mut verdicts, mut unknown) = self.verdicts_for(&observed);
        let mut plan = gate::plan(now, policy, &observed.fleet, &observed.ledger, &verdicts);
        if !dry_run && proof_would_help(&plan, policy, &observed, &verdicts) {
            now = self.deps.clock.wall();
            observed = sink.prove(now, policy).await?;
            (verdicts, unknown) = self.verdicts_for(&observed);
            plan = gate::plan(now, policy, &observed.fleet, &observed.ledger, &verdicts);
        }
        let rehearsal = self.rehearse(now, memory, policy, &observed, &verdicts);
        if let Some(rehearsal) = rehearsal.as_ref().filter(|_| dry_run) {
            plan = rehearsal.clone();
        }
        let wait = until(now, &plan, &observed);
        memory.history.observe(now, &observed);
        let mut view = GatekeeperView::clone(&self.view.borrow());
        (view.unknown_verdicts, view.rehearsal) = (unknown, rehearsal);
        view.record(observed, plan.clone(), &memory.history);
        let report = self.deps.audience.report(&view);
        let wait = match sink.reserve((!dry_run).then_some(&plan), &report).await? {
            Reserved::Stored => wait,
            Reserved::Later(left) => wait.min(left),
            Reserved::Conflict => return Ok(Duration::ZERO),
        };
        let outcomes = match dry_run {
            true => vec![Outcome::Landed; plan.actions.len()],
            false => sink.send(&plan.actions).await,
        };
        if !dry_run && !plan.actions.is_empty() {
            memory.rest = REST;
        }
        self.tell(memory, policy, view, &plan, &outcomes);
        Ok(wait)
    }

    /// What would be done if nothing were a rehearsal; `None` when nothing is.
    fn rehearse(
        &self,
        now: Timestamp,
        memory: &mut Memory,
        policy: &Policy,
        observed: &Observed,
        verdicts: &Verdicts,
    ) -> Option<Plan> {
        let rehearses = policy.dry_run || policy.breakers.iter().any(|breaker| breaker.dry_run);
        if !self.deps.dry_run && !rehearses {
            memory.shadow = None;
            return None;
        }
        let shadow = memory.shadow.get_or_insert_with(|| observed.ledger.clone());
        let (plan, next) = gate::rehearse(now, policy, &observed.fleet, shadow, verdicts);
        *shadow = next;
        Some(plan)
    }

    /// What was said, put to the pods that there are; and how much of it names nobody.
    fn verdicts_for(&self, observed: &Observed) -> (Verdicts, usize) {
        let word = lock(&self.word);
        let mut verdicts = word.heard.clone();
        let Some((at, said)) = &word.callback else { return (verdicts, 0) };
        let (opinions, unknown) = verdict::resolve(said.clone(), |named| named_pod(observed, named));
        verdicts.sources.push(Source::new(CALLBACK, SourceKind::Callback, *at, opinions));
        (verdicts, unknown)
    }

    fn tell(
        &self,
        memory: &mut Memory,
        policy: &Policy,
        mut view: GatekeeperView,
        plan: &Plan,
        outcomes: &[Outcome],
    ) {
        for action in &plan.actions {
            tracing::info!(verb = ?action.verb, pod = action.name, breaker = action.breaker, "{}", action.reason);
        }
        memory.history.act(plan, outcomes, self.deps.dry_run);
        view.tell_history(plan, &memory.history);
        let known = policy.breakers.iter().map(|breaker| breaker.name.as_str());
        let known: BTreeSet<&str> = known.chain([CALLBACK, "silence"]).collect();
        if !self.deps.dry_run {
            self.deps.metrics.acted(&self.deps.namespace, &known, plan, outcomes);
        }
        for reason in ALARMS {
            let alarm = plan.alarms.iter().find(|alarm| alarm.reason == *reason);
            self.deps.alarms.set(reason, alarm.is_some(), || {
                alarm.map(|alarm| alarm.message.clone()).unwrap_or_default()
            });
        }
        self.deps.metrics.planned(&view);
        let silent = view.silent_listed();
        self.deps.alarms.set(ALARM_SILENT, silent > 0, || {
            format!(
                "{silent} of {} pods are silent and stay listed: the floor, the panic threshold or our own deafness \
                 forbids to take them out; if they are gone for good, start pods in their place or lower KUBERVISOR_FLEET_SIZE",
                view.pods.len()
            )
        });
        let after = Arc::new(view);
        let before = self.view.send_replace(Arc::clone(&after));
        self.deps.audience.carried_out(&before, &after, plan, outcomes);
    }

    /// Everything stays as it is; how long before the next try.
    pub(super) fn freeze(&self, error: &SinkError, memory: &mut Memory) -> Duration {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let source = source.filter(|source| *source != error.to_string());
        let source = source.map(|source| format!(": {source}")).unwrap_or_default();
        let message = format!("{error}{source}; traffic stays as it is");
        // The first moments are no reason to wake anybody.
        if !matches!(error, SinkError::NotReady { .. }) || memory.retry >= Duration::from_secs(1) {
            self.deps.alarms.raise(ALARM_FROZEN, message.clone());
        }
        let forbidden = matches!(error, SinkError::Forbidden { .. });
        self.deps.alarms.set(ALARM_STATUS_FORBIDDEN, forbidden, || message.clone());
        self.deps.metrics.failed(error.category());
        let now = self.deps.clock.wall();
        self.view.send_modify(|shared| {
            let view = Arc::make_mut(shared);
            (view.part, view.frozen, view.hindrance) = (Part::Frozen, Some(message), error.hindrance());
            view.at = now;
        });
        let wait = memory.retry;
        memory.retry = (wait * 2).min(RETRY.1);
        wait
    }

    /// Somebody else decides now, or nobody: the alarms of the fleet are not ours any more.
    pub fn step_back(&self) {
        for reason in ALARMS.iter().chain(&[ALARM_FROZEN, ALARM_STATUS_FORBIDDEN, ALARM_SILENT]) {
            self.deps.alarms.clear(reason);
        }
        self.view.send_modify(|shared| {
            let view = Arc::make_mut(shared);
            (view.part, view.frozen) = (Part::Following, None);
        });
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.deps.metrics.forget(&self.deps.namespace, &self.deps.name);
    }
}

/// A list that is known to be no older than the ledger would let more be done than this plan does.
fn proof_would_help(plan: &Plan, policy: &Policy, observed: &Observed, verdicts: &Verdicts) -> bool {
    if observed.fleet.absence_proven {
        return false;
    }
    let mut fleet = observed.fleet.clone();
    fleet.absence_proven = true;
    let hoped = gate::plan(plan.at, policy, &fleet, &observed.ledger, verdicts);
    (&hoped.actions, &hoped.next) != (&plan.actions, &plan.next)
}

/// Time alone changes something then; after a plan that did something, soon: it was made on the fleet before it.
fn until(now: Timestamp, plan: &Plan, observed: &Observed) -> Duration {
    if !plan.actions.is_empty() {
        return BREATH;
    }
    let next = [plan.next_wakeup, observed.look_again].into_iter().flatten().min();
    next.map_or(LONGEST, |at| at.since(now)).clamp(BREATH, LONGEST)
}

/// The next value; never, once nobody can send one (a policy that is in no file stays what it is).
async fn another<T>(values: &mut watch::Receiver<T>) {
    if values.changed().await.is_err() {
        std::future::pending().await
    }
}

fn named_pod(observed: &Observed, named: &Named) -> Option<Uid> {
    let fleet: &Fleet = &observed.fleet;
    match named {
        Named::Id(id) => fleet.pods().iter().find(|pod| pod.name == *id).map(|pod| pod.uid.clone()),
        Named::Key(key) => {
            let keyed = observed.details.iter().find(|(_, detail)| detail.key.as_deref() == Some(key));
            keyed.map(|(uid, _)| uid.clone())
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
