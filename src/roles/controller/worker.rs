//! One KubervisorService at work: its warden, its breakers, and its end.
//!
//! The worker's tasks live as long as the resource: the warden governs the labels, the breakers look at
//! their own pace, and the farewell waits for the moment when everything has to be, and has been, given back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Deps, audience::FleetAudience, conditions::Problem, farewell};
use crate::{
    adapters::{
        kubernetes::objects::ResourceRecord,
        sink::{
            SinkError,
            labels::{LabelSettings, LabelSink, Posture, fleet_of},
        },
    },
    api::Manifest,
    clock::Clock,
    decide::{
        detect::{
            Observation,
            listed::Scope,
            members::{self, Attendance, ListedPod},
        },
        fleet::Traffic,
        policy::Policy,
        verdict::Source,
    },
    roles::{
        breaker::{
            Asker,
            round::{BreakerHost, Succeeded, run_breakers},
        },
        gatekeeper::warden::{Warden, WardenDeps},
        master::LiveEnsemble,
    },
};

/// Between two tries to put the finalizer on, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What is found out about a resource beside what its warden sees.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Why it is of no use.
    pub(super) problem: Option<Problem>,
    /// Who else claims its pods.
    pub(super) overlap: Option<String>,
    /// Which breakers get no usable answer.
    pub(super) troubles: BTreeMap<String, String>,
    /// Breakers that look at keepalives where none are taken.
    pub(super) deaf: Vec<String>,
}

impl Standing {
    /// What is wrong with whose data.
    pub(super) fn all_troubles(&self) -> BTreeMap<String, String> {
        let deaf = "no keepalives are taken here: start the controller with --keepalives ADDR";
        let deaf = self.deaf.iter().map(|breaker| (breaker.clone(), deaf.to_owned()));
        self.troubles.clone().into_iter().chain(deaf).collect()
    }
}

/// A resource that is worked on.
pub(super) struct Worker {
    /// Whose.
    pub(super) settings: LabelSettings,
    /// The generation that its policy is of.
    pub(super) generation: Option<i64>,
    /// Everything that may change while it runs.
    pub(super) core: Arc<Core>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// What a worker's tasks share.
pub(super) struct Core {
    pub(super) deps: Arc<Deps>,
    pub(super) settings: LabelSettings,
    pub(super) warden: Warden,
    pub(super) standing: Arc<Mutex<Standing>>,
    pub(super) policy: watch::Sender<Arc<Policy>>,
    pub(super) manifest: watch::Sender<Option<Arc<Manifest>>>,
    pub(super) posture: watch::Sender<Posture>,
    pub(super) changes: watch::Sender<u64>,
    asker: Arc<Asker>,
    attendance: Mutex<Attendance>,
}

impl Worker {
    /// Starts working on `resource` with `policy`.
    pub(super) fn start(deps: &Arc<Deps>, resource: &ResourceRecord, asker: Arc<Asker>) -> Self {
        let settings = LabelSettings {
            namespace: resource.namespace.to_string(),
            name: resource.name.to_string(),
            uid: resource.uid.to_string(),
        };
        let policy = watch::Sender::new(Arc::new(Policy::without_manifest(&settings.name)));
        let standing = Arc::new(Mutex::new(Standing::default()));
        let posture = watch::Sender::new(Posture::default());
        let audience = FleetAudience::new(deps, settings.clone(), policy.subscribe(), Arc::clone(&standing));
        let warden = Warden::new(WardenDeps {
            namespace: settings.namespace.clone(),
            name: settings.name.clone(),
            policy: policy.subscribe(),
            dry_run: deps.dry_run,
            clock: deps.process.clock,
            alarms: deps.process.alarms.of(&format!("{}/{}", settings.namespace, settings.name)),
            metrics: deps.gate_metrics.clone(),
            audience: Box::new(audience),
        });
        let core = Arc::new(Core {
            deps: Arc::clone(deps),
            settings: settings.clone(),
            warden,
            standing,
            policy,
            manifest: watch::Sender::new(None),
            posture,
            changes: watch::Sender::new(0),
            asker,
            attendance: Mutex::default(),
        });
        let stop = deps.stop.child_token();
        let task = tokio::spawn(run(Arc::clone(&core), stop.clone()));
        Self { settings, generation: None, core, task, stop }
    }

    /// Something that its decisions rest on has changed.
    pub(super) fn wake(&self) {
        self.core.changes.send_modify(|count| *count += 1);
    }

    /// Ends its tasks; what is withheld stays so.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, service = self.settings.name, "a worker ended badly");
        }
    }
}

impl Core {
    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource as it is now, if it is still this one.
    pub(super) fn resource(&self) -> Option<Arc<ResourceRecord>> {
        let found = self.deps.cluster.resource(&self.settings.namespace, &self.settings.name)?;
        (*found.uid == *self.settings.uid).then_some(found)
    }
}

async fn run(core: Arc<Core>, stop: CancellationToken) {
    let secured = core.deps.dry_run
        || tokio::select! {
            () = stop.cancelled() => return,
            secured = secure(&core, false) => secured,
        };
    let mut sink = LabelSink::new(
        core.deps.client.clone(),
        Arc::clone(&core.deps.lanes),
        core.deps.cluster.clone(),
        core.settings.clone(),
        core.posture.subscribe(),
    );
    let breakers = run_breakers(Arc::new(Host(Arc::clone(&core))), core.manifest.subscribe(), None, &stop);
    tokio::select! {
        () = core.warden.govern(&mut sink, core.changes.subscribe(), &stop) => {}
        () = breakers => {}
        () = farewell::say(&core) => {}
        () = secure_later(&core, secured) => {}
    }
    core.warden.step_back();
}

/// The finalizer comes before anything is withheld. `false`: there is no right to it; once it is given back, only who is
/// `stubborn` learns of it.
async fn secure(core: &Core, stubborn: bool) -> bool {
    let mut waits = ExponentialBuilder::new().with_jitter().without_max_times().build();
    while let Some(resource) = core.resource() {
        if resource.deleting {
            return true;
        }
        let Deps { client, cluster, .. } = &*core.deps;
        match crate::adapters::sink::labels::farewell::set_finalizer(client, cluster, &resource, true).await {
            Ok(()) => return true,
            Err(SinkError::Forbidden { why, .. }) if !stubborn => {
                tracing::warn!(
                    service = core.settings.name,
                    "may not {why}: nothing is withheld without the finalizer"
                );
                core.posture.send_modify(|posture| posture.unsecured = Some(why));
                return false;
            }
            Err(error) => tracing::warn!(service = core.settings.name, "{error}; tried again"),
        }
        sleep(waits.next().unwrap_or_default().min(LONGEST_WAIT)).await;
    }
    true
}

/// Goes on trying beside everything else; never returns.
async fn secure_later(core: &Core, secured: bool) {
    if !secured && secure(core, true).await {
        core.posture.send_modify(|posture| posture.unsecured = None);
        core.changes.send_modify(|count| *count += 1);
    }
    std::future::pending().await
}

/// The breakers' view of the fleet.
struct Host(Arc<Core>);

impl BreakerHost for Host {
    fn clock(&self) -> Clock {
        self.0.deps.process.clock
    }

    fn asker(&self) -> &Arc<Asker> {
        &self.0.asker
    }

    fn observations(&self) -> Vec<Observation> {
        let Core { deps, settings, policy, attendance, .. } = &*self.0;
        let policy = policy.borrow().clone();
        let now = deps.process.clock.wall();
        let pods = fleet_of(&deps.cluster, settings, &policy);
        let listed: Vec<ListedPod> = pods
            .iter()
            .map(|pod| ListedPod {
                uid: pod.uid.clone(),
                name: pod.name.to_string(),
                address: pod.ip,
                shares_address: pod.host_network,
                age: pod.created.map_or(std::time::Duration::MAX, |created| now.since(created)),
                withheld: matches!(pod.traffic(), Traffic::No | Traffic::Pause),
            })
            .collect();
        let Some(members) = deps.live.as_ref().and_then(LiveEnsemble::members) else {
            return members::unheard(&listed);
        };
        let mut attendance = attendance.lock().unwrap_or_else(PoisonError::into_inner);
        members.join(&settings.namespace, &listed, deps.process.clock.now(), &mut attendance).observations
    }

    fn hears_keepalives(&self) -> bool {
        // While another master leads, or none, it is not our place to call anybody silent.
        self.0.deps.live.as_ref().is_some_and(|live| live.members().is_some())
    }

    fn scope(&self) -> Scope {
        Scope { namespace: self.0.settings.namespace.clone(), by_uid: true }
    }

    fn said(&self, source: Source) {
        self.0.warden.breaker_said(source);
    }

    fn forget_breakers(&self, left: &BTreeSet<&str>) {
        self.0.warden.forget_breakers(|name| left.contains(name));
    }

    fn troubles(&self, troubles: &BTreeMap<String, String>) {
        self.0.standing().troubles.clone_from(troubles);
    }

    /// Windows are short: a successor fills its own.
    async fn keep(&self, _memory: Bytes) -> Result<(), Succeeded> {
        Ok(())
    }
}
