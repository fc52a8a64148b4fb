//! The gate's loop over one fleet: verdicts in, actions on pods out.
//!
//! Each reconcile observes, plans, reserves and sends, in this order, through a [`TrafficSink`]: a stored roster, or
//! labels in a cluster. The caller decides which process runs the loop; safety does not depend on it, but on the
//! sink's compare-and-swap.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    episodes::EpisodeKind,
    history::History,
    metrics::GateMetrics,
    reporter::Reporter,
    snapshot::{GateMode, GateSnapshot},
};
use crate::{
    adapters::sink::{Observed, Reservation, SinkError, TrafficSink},
    alarms::Alarms,
    clock::Clock,
    decide::alarm_reason::AlarmReason,
    decide::{
        gate::{
            self, PERSON, Plan, SILENCE,
            fleet_alarms::ALARMS,
            ledger::{ActionOutcome, Ledger},
        },
        policy::Policy,
        time::Timestamp,
        verdict::{self, Source, SourceKind, TrafficVerdict, Verdicts},
    },
};

/// The breaker name of a callback's verdicts.
pub const CALLBACK: &str = "callback";

/// Backoff after a failed reconcile: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Minimum interval between reconciles: changes come in bursts, and one reconcile takes in all of them.
const MIN_INTERVAL_IDLE: Duration = Duration::from_millis(20);
/// The same after a reconcile that wrote: leaves CPU to the endpoint controllers, which put the writes into effect.
const MIN_INTERVAL_AFTER_WRITES: Duration = Duration::from_millis(100);
/// Maximum interval between reconciles.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// Dependencies and settings of a [`GateReconciler`].
pub struct GateReconcilerDeps {
    /// The fleet's namespace.
    pub namespace: String,
    /// The Service's name, or the resource's.
    pub name: String,
    /// The policy in force; a change triggers a reconcile.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Changes no pod, whatever the policy says.
    pub dry_run: bool,
    /// The process's clock.
    pub clock: Clock,
    /// The fleet's alarms.
    pub alarms: Alarms,
    /// Registered by the caller.
    pub metrics: GateMetrics,
    /// Publishes status and Events.
    pub reporter: Box<dyn Reporter>,
}

/// The gate of one fleet.
pub struct GateReconciler {
    deps: GateReconcilerDeps,
    inputs: Mutex<VerdictInputs>,
    woken: Notify,
    snapshot: watch::Sender<Arc<GateSnapshot>>,
}

/// The newest verdicts; a callback's are resolved to pods at each reconcile.
#[derive(Default)]
struct VerdictInputs {
    breakers: Verdicts,
    callback: Option<(Timestamp, Vec<TrafficVerdict>)>,
}

/// State kept between reconciles.
pub(super) struct ReconcileState {
    history: History,
    shadow: Option<Ledger>,
    retry: Duration,
    /// Minimum interval before the next reconcile.
    min_interval: Duration,
}

impl Default for ReconcileState {
    fn default() -> Self {
        Self { history: History::default(), shadow: None, retry: RETRY.0, min_interval: MIN_INTERVAL_IDLE }
    }
}

impl GateReconciler {
    /// A reconciler without verdicts.
    pub fn new(deps: GateReconcilerDeps) -> Self {
        let snapshot = GateSnapshot {
            namespace: deps.namespace.clone(),
            name: deps.name.clone(),
            dry_run: deps.dry_run,
            ..GateSnapshot::default()
        };
        let snapshot = watch::Sender::new(Arc::new(snapshot));
        Self { inputs: Mutex::default(), woken: Notify::new(), snapshot, deps }
    }

    /// Replaces the verdicts of the previous callback run, and reconciles.
    pub fn set_callback_verdicts(&self, verdicts: Vec<TrafficVerdict>) {
        let mut inputs = self.inputs.lock();
        inputs.breakers.evaluation += 1;
        inputs.callback = Some((self.deps.clock.wall(), verdicts));
        drop(inputs);
        self.wake();
    }

    /// Replaces this breaker's verdicts, and reconciles.
    pub fn set_breaker_verdicts(&self, source: Source) {
        self.inputs.lock().breakers.replace(source);
        self.wake();
    }

    /// Drops the verdicts of the breakers that `keep` refuses, and reconciles.
    pub fn retain_breakers(&self, keep: impl Fn(&str) -> bool) {
        self.inputs.lock().breakers.sources.retain(|source| keep(&source.name));
        self.wake();
    }

    /// Reconciles as soon as the minimum interval permits.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<GateSnapshot> {
        self.snapshot.borrow().clone()
    }

    /// The snapshots as they change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<GateSnapshot>> {
        self.snapshot.subscribe()
    }

    /// Reconciles the fleet of `sink` after each change and at each plan's next wake-up, until `stop`, or until the sink
    /// finds that another leader was elected.
    pub async fn run(
        &self,
        sink: &mut dyn TrafficSink,
        mut changes: watch::Receiver<u64>,
        stop: &CancellationToken,
    ) {
        let mut state = ReconcileState::default();
        let mut policies = self.deps.policy.clone();
        loop {
            changes.borrow_and_update();
            let policy = policies.borrow_and_update().clone();
            // Boxed: tens of KiB that a worker needs only while it reconciles.
            let reconciled = Box::pin(self.reconcile(sink, &mut state, &policy)).await;
            let wait = match reconciled {
                Ok(wait) => {
                    state.retry = RETRY.0;
                    self.deps.alarms.clear(AlarmReason::GateFrozen);
                    self.deps.alarms.clear(AlarmReason::StatusForbidden);
                    wait
                }
                Err(error) if error.leadership_lost() => break,
                Err(error) => {
                    let wait = self.freeze(&error, &mut state);
                    if error.hindrance().is_some() {
                        let report = self.deps.reporter.report(&self.snapshot());
                        sink.publish_report(&report).await;
                    }
                    wait
                }
            };
            let earliest = Instant::now() + state.min_interval;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.woken.notified() => {}
                // A closed channel, as of a policy without a file, waits for ever.
                Ok(()) = changes.changed() => {}
                Ok(()) = policies.changed() => {}
            }
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// Observes, plans, reserves and sends; returns the time until the next reconcile is due.
    async fn reconcile(
        &self,
        sink: &mut dyn TrafficSink,
        state: &mut ReconcileState,
        policy: &Policy,
    ) -> Result<Duration, SinkError> {
        let dry_run = self.deps.dry_run;
        state.min_interval = MIN_INTERVAL_IDLE;
        let mut now = self.deps.clock.wall();
        let mut observed = sink.observe(now, policy).await?;
        if let Some(until) = observed.stand_aside {
            return Ok(until.since(now).clamp(MIN_INTERVAL_IDLE, MAX_INTERVAL));
        }
        let (mut verdicts, mut unknown) = self.verdicts_for(now, &observed);
        let mut in_force = observed.in_force(now, policy);
        let mut plan = gate::plan(now, &in_force, &observed.fleet, &observed.ledger, &verdicts);
        if !dry_run && confirmation_needed(&plan, &in_force, &observed, &verdicts) {
            now = self.deps.clock.wall();
            observed = sink.confirm(now, policy).await?;
            if let Some(until) = observed.stand_aside {
                return Ok(until.since(now).clamp(MIN_INTERVAL_IDLE, MAX_INTERVAL));
            }
            (verdicts, unknown) = self.verdicts_for(now, &observed);
            in_force = observed.in_force(now, policy);
            plan = gate::plan(now, &in_force, &observed.fleet, &observed.ledger, &verdicts);
        }
        let rehearsal = self.rehearse(now, state, &in_force, &observed, &verdicts);
        if let Some(rehearsal) = rehearsal.as_ref().filter(|_| dry_run) {
            plan = rehearsal.clone();
        }
        let wait = until(now, &plan, &observed);
        state.history.observe(now, &observed.fleet, &observed.details);
        let mut snapshot = self.snapshot.borrow().next();
        (snapshot.unknown_verdicts, snapshot.rehearsal) = (unknown, rehearsal);
        snapshot.record_readings(&verdicts);
        snapshot.record(observed, plan.clone(), &state.history);
        // In a process that only decides, the snapshot's ledger is what it would be.
        let real = snapshot.ledger.as_ref().filter(|_| !dry_run);
        snapshot.episodes.observe(now, EpisodeKind::Real, real);
        // A rehearsal repeats what is done in fact.
        let mut would = state.shadow.clone();
        for (shadow, real) in would.iter_mut().zip(real) {
            shadow.entries.retain(|uid, _| !real.entries.contains_key(uid));
        }
        snapshot.episodes.observe(now, EpisodeKind::DryRun, would.as_ref());
        self.set_alarms(&snapshot, &plan);
        let report = self.deps.reporter.report(&snapshot);
        let wait = match sink.reserve((!dry_run).then_some(&plan), &report).await? {
            Reservation::Stored => wait,
            Reservation::Later(left) => wait.min(left),
            Reservation::Conflict => return Ok(Duration::ZERO),
        };
        let outcomes = match dry_run {
            true => vec![ActionOutcome::Landed; plan.actions.len()],
            false => sink.send(&plan.actions).await,
        };
        if !dry_run && !plan.actions.is_empty() {
            state.min_interval = MIN_INTERVAL_AFTER_WRITES;
        }
        self.publish(state, policy, snapshot, &plan, &outcomes);
        Ok(wait)
    }

    /// The plan if no policy and no breaker were a dry run; `None` when none is.
    fn rehearse(
        &self,
        now: Timestamp,
        state: &mut ReconcileState,
        policy: &Policy,
        observed: &Observed,
        verdicts: &Verdicts,
    ) -> Option<Plan> {
        let rehearses = policy.dry_run || policy.breakers.iter().any(|breaker| breaker.dry_run);
        if !self.deps.dry_run && !rehearses {
            state.shadow = None;
            return None;
        }
        let shadow = state.shadow.get_or_insert_with(|| observed.ledger.clone());
        let (plan, next) = gate::rehearse(now, policy, &observed.fleet, shadow, verdicts);
        *shadow = next;
        Some(plan)
    }

    /// The verdicts on the observed pods, and how many of the callback's name an unknown pod.
    fn verdicts_for(&self, now: Timestamp, observed: &Observed) -> (Verdicts, usize) {
        let inputs = self.inputs.lock();
        let mut verdicts = inputs.breakers.clone();
        verdicts.sources.extend(observed.requests.source(now, &observed.fleet));
        let Some((at, callback)) = &inputs.callback else { return (verdicts, 0) };
        let (opinions, unknown) = verdict::resolve(callback.clone(), |named| observed.pod_of(named));
        verdicts.sources.push(Source::new(CALLBACK, SourceKind::Callback, *at, opinions));
        (verdicts, unknown)
    }

    /// Raises and clears a plan's alarms, before its report is stored: no condition or label is seen without its alarm.
    fn set_alarms(&self, snapshot: &GateSnapshot, plan: &Plan) {
        for &reason in ALARMS {
            let alarm = plan.alarms.iter().find(|alarm| alarm.reason == reason);
            self.deps.alarms.set(reason, alarm.is_some(), || {
                alarm.map(|alarm| alarm.message.clone()).unwrap_or_default()
            });
        }
        let silent = snapshot.silent_listed();
        self.deps.alarms.set(AlarmReason::SilentListed, silent > 0, || {
            format!(
                "{silent} of {} pods are silent and stay listed: the floor, the panic threshold or missing \
                 keepalives of most pods forbid to take them out; if they have ended for good, start pods in their place or lower KUBERVISOR_FLEET_SIZE",
                snapshot.pods.len()
            )
        });
    }

    /// Logs, counts and reports an executed plan, and replaces the snapshot.
    fn publish(
        &self,
        state: &mut ReconcileState,
        policy: &Policy,
        mut snapshot: GateSnapshot,
        plan: &Plan,
        outcomes: &[ActionOutcome],
    ) {
        for action in &plan.actions {
            tracing::info!(verb = ?action.verb, pod = action.name, breaker = action.breaker, "{}", action.reason);
        }
        state.history.act(plan, outcomes, self.deps.dry_run);
        snapshot.refresh_history(plan, &state.history);
        let known = policy.breakers.iter().map(|breaker| breaker.name.as_str());
        let known: BTreeSet<&str> = known.chain([CALLBACK, SILENCE, PERSON]).collect();
        if !self.deps.dry_run {
            self.deps.metrics.acted((&*self.deps.namespace, &*self.deps.name), &known, plan, outcomes);
        }
        self.deps.metrics.planned(&snapshot);
        let snapshot = Arc::new(snapshot);
        self.snapshot.send_replace(Arc::clone(&snapshot));
        self.deps.reporter.plan_executed(&snapshot, plan, outcomes);
    }

    /// Marks the fleet as frozen: traffic stays as it is. Returns the backoff before the next try.
    pub(super) fn freeze(&self, error: &SinkError, state: &mut ReconcileState) -> Duration {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let source = source.filter(|source| *source != error.to_string());
        let source = source.map(|source| format!(": {source}")).unwrap_or_default();
        let message = format!("{error}{source}; traffic stays as it is");
        // A start takes up to 1 s until the sink is ready, which is no reason for an alarm.
        if !matches!(error, SinkError::NotReady { .. }) || state.retry >= Duration::from_secs(1) {
            self.deps.alarms.raise(AlarmReason::GateFrozen, message.clone());
        }
        let forbidden = matches!(error, SinkError::Forbidden { .. });
        self.deps.alarms.set(AlarmReason::StatusForbidden, forbidden, || message.clone());
        self.deps.metrics.failed(error.category());
        let now = self.deps.clock.wall();
        self.snapshot.send_modify(|shared| {
            let snapshot = Arc::make_mut(shared);
            (snapshot.part, snapshot.frozen, snapshot.hindrance) =
                (GateMode::Frozen, Some(message), error.hindrance());
            snapshot.at = now;
        });
        let wait = state.retry;
        state.retry = (wait * 2).min(RETRY.1);
        wait
    }

    /// Clears the fleet's alarms: this process no longer decides.
    pub fn stop_leading(&self) {
        for &reason in ALARMS.iter().chain(&[
            AlarmReason::GateFrozen,
            AlarmReason::StatusForbidden,
            AlarmReason::SilentListed,
        ]) {
            self.deps.alarms.clear(reason);
        }
        self.snapshot.send_modify(|shared| {
            let snapshot = Arc::make_mut(shared);
            (snapshot.part, snapshot.frozen) = (GateMode::Following, None);
        });
    }
}

impl Drop for GateReconciler {
    fn drop(&mut self) {
        self.deps.metrics.forget(&self.deps.namespace, &self.deps.name);
    }
}

/// A LIST begun after the ledger was read would change the plan.
fn confirmation_needed(plan: &Plan, policy: &Policy, observed: &Observed, verdicts: &Verdicts) -> bool {
    if observed.fleet.absence_proven {
        return false;
    }
    let mut fleet = observed.fleet.clone();
    fleet.absence_proven = true;
    let confirmed = gate::plan(plan.at, policy, &fleet, &observed.ledger, verdicts);
    (&confirmed.actions, &confirmed.next) != (&plan.actions, &plan.next)
}

/// Time until the next reconcile; the minimum after a plan with actions, because it was made on the fleet before them.
fn until(now: Timestamp, plan: &Plan, observed: &Observed) -> Duration {
    if !plan.actions.is_empty() {
        return MIN_INTERVAL_IDLE;
    }
    let next = [plan.next_wakeup, observed.look_again].into_iter().flatten().min();
    next.map_or(MAX_INTERVAL, |at| at.since(now)).clamp(MIN_INTERVAL_IDLE, MAX_INTERVAL)
}
