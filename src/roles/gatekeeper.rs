//! The gatekeeper: what was said about the pods goes in, plans are carried out, and people can see why.
//!
//! One per process. While this process leads, [`Gatekeeper::reign`] observes, plans, reserves and sends,
//! in that order and never otherwise; on every process the projector keeps the endpoints file in step
//! with what was committed, whoever committed it.

pub mod history;
pub mod metrics;
pub mod view;

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

use self::{
    history::History,
    metrics::GateMetrics,
    view::{GatekeeperView, Part},
};
use crate::{
    adapters::{
        sink::{
            Observed, Reserved, SinkError, TrafficSink,
            endpoints::FileStatus,
            projector::Projector,
            roster::{EnsembleSource, RosterSettings, RosterSink},
        },
        store::{Store, Term},
    },
    alarms::Alarms,
    clock::Clock,
    config::TargetPort,
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
/// The alarm that is up while pods are silent and listed all the same.
pub const ALARM_SILENT: &str = "silent_listed";
/// The name under which a callback's verdicts are heard.
pub const CALLBACK: &str = "callback";

const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Steps follow each other no faster than this.
const BREATH: Duration = Duration::from_millis(5);
/// And no slower.
const LONGEST: Duration = Duration::from_secs(60);

/// What a gatekeeper needs.
pub struct GatekeeperDeps {
    /// Where rosters are committed.
    pub store: Arc<dyn Store>,
    /// The ensemble while this process leads.
    pub ensemble: EnsembleSource,
    /// Changes whenever the ensemble does.
    pub changes: watch::Receiver<u64>,
    /// The policy in force; a new one counts at once.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Whose fleet, where its file is, and whether anything is written.
    pub roster: RosterSettings,
    /// The namespace.
    pub namespace: String,
    /// The clocks.
    pub clock: Clock,
    /// The alarms.
    pub alarms: Alarms,
    /// The metrics, registered by the caller.
    pub metrics: GateMetrics,
}

/// The gatekeeper of one process.
pub struct Gatekeeper {
    deps: GatekeeperDeps,
    verdicts: Mutex<Word>,
    woken: Notify,
    view: watch::Sender<Arc<GatekeeperView>>,
    projector: Mutex<Option<Projector>>,
    file: Option<watch::Receiver<FileStatus>>,
}

/// What was said, as it was said: names are put to pods when a plan is made.
#[derive(Default)]
struct Word {
    heard: Verdicts,
    callback: Option<(Timestamp, Vec<TrafficVerdict>)>,
}

/// What one reign remembers between its steps.
struct Reign {
    history: History,
    shadow: Option<Ledger>,
    retry: Duration,
}

impl Gatekeeper {
    /// Starts projecting, unless this is a dry run or there is no endpoints file.
    #[must_use]
    pub fn start(deps: GatekeeperDeps) -> Arc<Self> {
        let settings = &deps.roster;
        let config = settings.endpoints.as_ref().filter(|_| !settings.dry_run);
        let name = deps.policy.borrow().service.clone();
        let projector =
            config.map(|config| Projector::start(&*deps.store, config, &settings.of, &name, &deps.alarms));
        let view = GatekeeperView {
            namespace: deps.namespace.clone(),
            name,
            dry_run: settings.dry_run,
            ..GatekeeperView::default()
        };
        Arc::new(Self {
            file: projector.as_ref().map(Projector::status),
            projector: Mutex::new(projector),
            verdicts: Mutex::default(),
            woken: Notify::new(),
            view: watch::Sender::new(Arc::new(view)),
            deps,
        })
    }

    /// A callback run ended well: this replaces all that its last one said.
    pub fn callback_said(&self, verdicts: Vec<TrafficVerdict>) {
        let mut word = lock(&self.verdicts);
        word.heard.evaluation += 1;
        word.callback = Some((self.deps.clock.wall(), verdicts));
        drop(word);
        self.wake();
    }

    /// A breaker of the policy ran: this replaces all that it said before.
    pub fn breaker_said(&self, source: Source) {
        lock(&self.verdicts).heard.replace(source);
        self.wake();
    }

    /// Forgets what a breaker said that is not in the policy any more.
    pub fn forget_breakers(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.verdicts).heard.sources.retain(|source| keep(&source.name));
        self.wake();
    }

    /// Has a new plan made now.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// What people may see, now.
    #[must_use]
    pub fn view(&self) -> Arc<GatekeeperView> {
        let mut view = GatekeeperView::clone(&self.view.borrow());
        view.endpoints = self.file.as_ref().map(|file| file.borrow().clone());
        Arc::new(view)
    }

    /// The view as it changes (without the file's status).
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<GatekeeperView>> {
        self.view.subscribe()
    }

    /// Ends the projection after its last write and that one's command.
    pub async fn stop(&self) {
        let projector = lock(&self.projector).take();
        if let Some(projector) = projector {
            projector.stop().await;
        }
    }

    /// Decides for the fleet under `term`, until `stop`, or until another term has begun.
    pub async fn reign(&self, term: Term, stop: CancellationToken) {
        let mut reign = Reign { history: History::default(), shadow: None, retry: RETRY.0 };
        let Some(mut sink) = self.open(term, &stop, &mut reign).await else { return self.follow() };
        let mut changes = self.deps.changes.clone();
        let mut policies = self.deps.policy.clone();
        loop {
            changes.borrow_and_update();
            let policy = policies.borrow_and_update().clone();
            let wait = match self.step(&mut sink, &mut reign, &policy).await {
                Ok(wait) => {
                    reign.retry = RETRY.0;
                    self.deps.alarms.clear(ALARM_FROZEN);
                    wait
                }
                Err(error) if error.deposed() => break,
                Err(error) => self.freeze(&error, &mut reign),
            };
            // Whatever happens meanwhile is seen by the next step; it only must not come too soon.
            let earliest = Instant::now() + BREATH;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.woken.notified() => {}
                () = another(&mut changes) => {}
                () = another(&mut policies) => {}
            }
            tokio::time::sleep_until(earliest).await;
        }
        self.follow();
    }

    /// Opens the roster, however long the store takes; `None` when the reign ended first.
    async fn open(&self, term: Term, stop: &CancellationToken, reign: &mut Reign) -> Option<RosterSink> {
        loop {
            let now = self.deps.clock.wall();
            let (settings, store) = (self.deps.roster.clone(), self.deps.store.clone());
            let wait = match RosterSink::open(settings, store, term, self.deps.ensemble.clone(), now).await {
                Ok(sink) => return Some(sink),
                Err(error) if error.deposed() => return None,
                Err(error) => self.freeze(&error, reign),
            };
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Observe, plan, reserve, send; how long to wait before the next time.
    async fn step(
        &self,
        sink: &mut dyn TrafficSink,
        reign: &mut Reign,
        policy: &Policy,
    ) -> Result<Duration, SinkError> {
        let now = self.deps.clock.wall();
        let observed = sink.observe(now, policy).await?;
        let (verdicts, unknown) = self.verdicts_for(&observed);
        let dry_run = self.deps.roster.dry_run;
        let rehearsal = self.rehearse(now, reign, policy, &observed, &verdicts);
        let plan = match &rehearsal {
            Some(rehearsal) if dry_run => rehearsal.clone(),
            _ => gate::plan(now, policy, &observed.fleet, &observed.ledger, &verdicts),
        };
        if !dry_run && sink.reserve(&plan).await? == Reserved::Conflict {
            return Ok(Duration::ZERO);
        }
        let mut outcomes = Vec::with_capacity(plan.actions.len());
        for action in &plan.actions {
            outcomes.push(if dry_run { Outcome::Landed } else { sink.send(action).await });
        }
        let wait = until(now, &plan, &observed);
        self.view.send_modify(|shared| {
            let view = Arc::make_mut(shared);
            (view.unknown_verdicts, view.rehearsal) = (unknown, rehearsal);
        });
        self.report(reign, policy, observed, plan, &outcomes);
        Ok(wait)
    }

    /// What would be done if nothing were a rehearsal; `None` when nothing is.
    fn rehearse(
        &self,
        now: Timestamp,
        reign: &mut Reign,
        policy: &Policy,
        observed: &Observed,
        verdicts: &Verdicts,
    ) -> Option<Plan> {
        let rehearses = policy.dry_run || policy.breakers.iter().any(|breaker| breaker.dry_run);
        if !self.deps.roster.dry_run && !rehearses {
            reign.shadow = None;
            return None;
        }
        let shadow = reign.shadow.get_or_insert_with(|| observed.ledger.clone());
        let (plan, next) = gate::rehearse(now, policy, &observed.fleet, shadow, verdicts);
        *shadow = next;
        Some(plan)
    }

    /// What was said, put to the pods that there are; and how much of it names nobody.
    fn verdicts_for(&self, observed: &Observed) -> (Verdicts, usize) {
        let word = lock(&self.verdicts);
        let mut verdicts = word.heard.clone();
        let Some((at, said)) = &word.callback else { return (verdicts, 0) };
        let (opinions, unknown) = verdict::resolve(said.clone(), |named| named_pod(observed, named));
        verdicts.sources.push(Source::new(CALLBACK, SourceKind::Callback, *at, opinions));
        (verdicts, unknown)
    }

    fn report(
        &self,
        reign: &mut Reign,
        policy: &Policy,
        observed: Observed,
        plan: Plan,
        outcomes: &[Outcome],
    ) {
        for action in &plan.actions {
            tracing::info!(verb = ?action.verb, pod = action.name, breaker = action.breaker, "{}", action.reason);
        }
        reign.history.observe(plan.at, &observed);
        reign.history.act(&plan, outcomes, self.deps.roster.dry_run);
        let known = policy.breakers.iter().map(|breaker| breaker.name.as_str());
        let known: BTreeSet<&str> = known.chain([CALLBACK, "silence"]).collect();
        if !self.deps.roster.dry_run {
            self.deps.metrics.acted(&self.deps.namespace, &known, &plan, outcomes);
        }
        for reason in ALARMS {
            let alarm = plan.alarms.iter().find(|alarm| alarm.reason == *reason);
            self.deps.alarms.set(reason, alarm.is_some(), || {
                alarm.map(|alarm| alarm.message.clone()).unwrap_or_default()
            });
        }
        self.view.send_modify(|shared| {
            let view = Arc::make_mut(shared);
            view.record(observed, plan, &reign.history);
        });
        let view = self.view.borrow().clone();
        self.deps.metrics.planned(&view);
        let silent = view.silent_listed();
        self.deps.alarms.set(ALARM_SILENT, silent > 0, || {
            format!(
                "{silent} of {} pods are silent and stay listed: the floor, the panic threshold or our own deafness \
                 forbids to take them out; if they are gone for good, start pods in their place or lower KUBERVISOR_FLEET_SIZE",
                view.pods.len()
            )
        });
    }

    /// Everything stays as it is; how long before the next try.
    fn freeze(&self, error: &SinkError, reign: &mut Reign) -> Duration {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        let message = format!("{error}{source}; traffic stays as it is");
        // The first moments of a reign are no reason to wake anybody.
        if !matches!(error, SinkError::NotReady { .. }) || reign.retry >= Duration::from_secs(1) {
            self.deps.alarms.raise(ALARM_FROZEN, message.clone());
        }
        self.deps.metrics.failed(error.category());
        self.view.send_modify(|shared| {
            let view = Arc::make_mut(shared);
            (view.part, view.frozen) = (Part::Frozen, Some(message));
        });
        let wait = reign.retry;
        reign.retry = (wait * 2).min(RETRY.1);
        wait
    }

    /// Somebody else decides now: the alarms of the fleet are theirs.
    fn follow(&self) {
        for reason in ALARMS.iter().chain(&[ALARM_FROZEN, ALARM_SILENT]) {
            self.deps.alarms.clear(reason);
        }
        self.view.send_modify(|shared| {
            let view = Arc::make_mut(shared);
            (view.part, view.frozen) = (Part::Following, None);
        });
    }
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

/// A pod's port: the configured one, or the integer that its payload says.
#[must_use]
pub fn port(target: &TargetPort, payload: &Value) -> Option<u16> {
    match target {
        TargetPort::Fixed(port) => Some(*port),
        TargetPort::Pointer(pointer) => {
            let port = payload.pointer(pointer)?.as_u64()?;
            u16::try_from(port).ok().filter(|port| *port != 0)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
