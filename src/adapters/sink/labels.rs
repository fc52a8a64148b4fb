//! The sink of fleets in a cluster: a withdrawal is a label of a pod, guarded by a fence.
//!
//! The ledger is in the resource's status. The pods come from watches, and from a quorum LIST where more could be
//! withheld with one. A reservation is stored before its pod is written, every write tests what it rests on, and its
//! effect is read from the pod at the next reconcile: after a crash at any point the next process has all it needs.
//!
//! | file | step |
//! |---|---|
//! | `status_ledger` | the ledger and the report in the resource's status |
//! | `allowance` | how often a report is written that comes without a ledger |
//! | `owner` | which replica writes that status, by a generation |
//! | `fleet` | cached pods → the fleet that the gate plans on |
//! | `listing` | where the EndpointSlices do not follow the labels, and the cause |
//! | `patch` | one action → one guarded JSON Patch |
//! | `evict` | a kill, through the eviction API |
//! | `request` | sending: one attempt with a timeout |
//! | `managers` | who else sets the label of pods in a fight |
//! | `limiter` | how many requests run at a time |
//! | `refused` | what follows from failures, missing rights and conflicts |
//! | `finalizer`, `release` | the resource's finalizer; marks off pods that are released |
//! | `cleanup` | marks off serving pods without an entry in the ledger |

mod allowance;
mod cleanup;
mod errors;
mod evict;
pub mod finalizer;
mod fleet;
mod limiter;
mod listing;
mod managers;
mod owner;
mod patch;
mod refused;
pub mod release;
mod request;
mod status_ledger;

pub use self::{
    fleet::{fleet_of, fleet_selector},
    limiter::WriteLimiter,
    owner::{BESIDE_THE_REPORT, OwnerClaim},
};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::try_join;
use kube::Client;
use serde_json::Value;
use tokio::sync::watch;

use self::{
    errors::WriteRefusal,
    limiter::run_all,
    listing::ListingTracker,
    managers::SwitchManagers,
    patch::PatchTarget,
    refused::{ForbiddenRight, PodRefusals, RetryBackoff},
    request::{in_time, send_patch},
    status_ledger::StatusLedger,
};
use super::{Hindrance, ListingFindings, Observed, Reservation, SinkError, TrafficSink};
use crate::{
    adapters::kubernetes::{
        cluster::{Cluster, OwnerKey},
        objects::{Kind, PodRecord, Selector},
    },
    api::requests::PersonRequests,
    clock::Awake,
    decide::{
        fleet::{Fence, Fleet, Traffic, Uid},
        gate::{
            LIST_AGE, Plan,
            action::{Action, Verb},
            ledger::{ActionOutcome, EntryState, Ledger},
        },
        policy::Policy,
        time::Timestamp,
    },
};

/// The spec that was read with the ledger is newer than the policy: that follows in milliseconds and ends the wait.
const SPEC_LAG: Duration = Duration::from_secs(1);

/// The resource whose fleet it is.
#[derive(Clone, Debug)]
pub struct LabelSettings {
    /// The namespace of the resource and of its pods.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
    /// The resource's UID: one of the same name that was created later is another.
    pub uid: String,
    /// The replica that works on the resource; `None`: it does not share the work with others.
    pub owner: Option<String>,
    /// An admission policy checks the names in people's requests.
    pub requests_checked: bool,
}

/// What the controller decides about the resource beside its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TeardownMode {
    /// All traffic is given back, because the resource is deleted or no longer claims the pods.
    pub leaving: bool,
    /// The missing right, such as `patch kubervisorservices`, without which no finalizer is set and nothing is withheld.
    pub unsecured: Option<String>,
}

/// The sink of one resource's fleet.
pub struct LabelSink {
    client: Client,
    limiter: Arc<WriteLimiter>,
    cluster: Cluster,
    settings: LabelSettings,
    mode: watch::Receiver<TeardownMode>,
    ledger_store: StatusLedger,
    confirmation: Option<Confirmation>,
    backoff: RetryBackoff,
    forbidden_right: ForbiddenRight,
    /// Of evictions: nothing else waits for it.
    forbidden_kill: ForbiddenRight,
    refusals: PodRefusals,
    managers: SwitchManagers,
    listing: ListingTracker,
    /// What the Service selects, if it is there.
    fleet_selector: Option<Selector>,
    /// The owners of the pods, as last seen.
    owners: Vec<OwnerKey>,
    /// Withdrawals that have landed, with their fence, until the ledger has them as landed.
    landed: BTreeMap<Uid, Fence>,
}

/// The state that a quorum LIST has confirmed.
struct Confirmation {
    begun: Awake,
    departures: u64,
    serving: BTreeSet<Uid>,
    withheld: BTreeSet<Uid>,
}

impl LabelSink {
    /// Sends no request yet.
    pub fn new(
        client: Client,
        limiter: Arc<WriteLimiter>,
        cluster: Cluster,
        settings: LabelSettings,
        mode: watch::Receiver<TeardownMode>,
    ) -> Self {
        let ledger_store = StatusLedger::new(client.clone(), cluster.clone(), settings.clone());
        Self {
            client,
            limiter,
            cluster,
            settings,
            mode,
            ledger_store,
            confirmation: None,
            backoff: RetryBackoff::default(),
            forbidden_right: ForbiddenRight::default(),
            forbidden_kill: ForbiddenRight::default(),
            refusals: PodRefusals::default(),
            managers: SwitchManagers::default(),
            listing: ListingTracker::default(),
            fleet_selector: None,
            owners: Vec::new(),
            landed: BTreeMap::new(),
        }
    }

    /// Marks entries as landed whose pod is at `yes` again after its withdrawal landed: a person gave it its traffic back.
    /// With the entry still reserved, the withdrawal would be repeated. The same if a policy took our mark off the pod.
    fn mark_landed(&mut self, ledger: &mut Ledger) {
        self.landed.retain(|uid, fence| {
            let entry = ledger.entries.get(uid);
            entry.is_some_and(|entry| entry.state == EntryState::Reserved && entry.fence == *fence)
        });
        // Without our mark a pod at `no` would be taken for another client's.
        let misread = |pod: &PodRecord| match pod.traffic() {
            Traffic::Yes => true,
            Traffic::No => pod.break_at.is_none(),
            Traffic::Pause | Traffic::Unlabelled | Traffic::Other => false,
        };
        let misread = |uid: &Uid| self.cluster.pod(uid).is_some_and(|pod| misread(&pod));
        self.landed.keys().filter(|uid| misread(uid)).for_each(|uid| ledger.landed(uid));
    }

    /// What keeps the sink from withholding.
    fn hindrance(&self) -> Option<Hindrance> {
        let unsecured = self.mode.borrow().unsecured.clone();
        let forbidden = unsecured
            .or_else(|| self.forbidden_right.right())
            .or_else(|| self.cluster.missing_right(&self.settings.namespace));
        let hindrance = forbidden.map(Hindrance::Forbidden);
        hindrance.or_else(|| self.ledger_store.pruned.then_some(Hindrance::LedgerNotStored))
    }

    /// Whether to retry what was forbidden: a granted right is only noticed by trying, and no other right is missing.
    fn trial_due(&self) -> bool {
        self.mode.borrow().unsecured.is_none()
            && self.cluster.missing_right(&self.settings.namespace).is_none()
            && self.forbidden_right.until_trial().is_some_and(|left| left.is_zero())
    }

    /// The pods to list.
    fn selector(&self, policy: &Policy) -> Option<Selector> {
        if self.mode.borrow().leaving {
            return Some(Selector::named(&self.settings.name));
        }
        self.service_selector(policy)
    }

    /// An empty observation: nothing is decided before `left` has passed.
    fn postpone(&self, now: Timestamp, left: Duration) -> Observed {
        let uid = self.settings.uid.clone();
        Observed {
            fleet: Fleet::new(0, Vec::new()),
            ledger: Ledger::begin(uid, crate::decide::fleet::Epoch(0)),
            details: BTreeMap::new(),
            look_again: None,
            stand_aside: Some(now + left),
            hindrance: None,
            listing: ListingFindings::default(),
            requests: PersonRequests::default(),
        }
    }

    async fn execute(&self, action: &Action) -> Result<(), WriteRefusal> {
        if matches!(action.verb, Verb::Release | Verb::Forget) {
            return Ok(());
        }
        let _permit = self.limiter.write(action.verb).await;
        if action.verb == Verb::Withhold && !self.still_holds() {
            return Err(WriteRefusal::Late);
        }
        let pod = self.cluster.pod(&action.uid).ok_or(WriteRefusal::Gone)?;
        if action.verb == Verb::Kill {
            return evict::evict(&self.client, &pod, action).await;
        }
        let target = PatchTarget { pod: &pod, resource: &self.settings.name };
        let Some(steps) = patch::patch(action, &target) else { return Ok(()) };
        let mark = self.cluster.mark(Kind::Pods);
        let changed = send_patch(&self.client, &pod, &steps).await?;
        let altered = patch::altered(action, &changed, &self.settings.name);
        if self.cluster.check_version(Kind::Pods, pod.version, changed.version, mark) {
            self.cluster.merge_pod(changed);
        }
        altered.map_or(Ok(()), |how| Err(WriteRefusal::Altered(how)))
    }

    /// Records the rights that these writes lacked.
    fn learn_rights(&mut self, actions: &[Action], answers: &[Result<(), WriteRefusal>]) {
        for (kills, right) in [(false, &mut self.forbidden_right), (true, &mut self.forbidden_kill)] {
            let of_kind = |action: &Action| (action.verb == Verb::Kill) == kills;
            let mut answers = actions.iter().zip(answers).filter(|(action, _)| of_kind(action)).peekable();
            if answers.peek().is_some() {
                right.learn(answers.fold(None, |last, (_, answer)| match answer {
                    Err(WriteRefusal::Forbidden(what)) => Some(what.clone()),
                    _ => last,
                }));
            }
        }
    }

    /// Whether the plan's LIST is younger than [`LIST_AGE`] and no pod of it has left service since without the gate.
    fn still_holds(&self) -> bool {
        let Some(confirmation) = &self.confirmation else { return false };
        if confirmation.begun.elapsed() > LIST_AGE {
            return false;
        }
        if self.cluster.departures(&self.settings.namespace) == confirmation.departures {
            return true;
        }
        // A pod of the namespace has left service: check those of this fleet.
        let ours = confirmation.serving.iter().filter(|uid| !confirmation.withheld.contains(*uid));
        ours.map(|uid| self.cluster.pod(uid)).all(|pod| pod.is_some_and(|pod| pod.serving()))
    }
}

#[async_trait]
impl TrafficSink for LabelSink {
    async fn observe(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        if let Some(left) = self.backoff.left() {
            return Ok(self.postpone(now, left));
        }
        if let Some(failure) = self.cluster.never_listed(&self.settings.namespace) {
            return Err(match self.cluster.missing_right(&self.settings.namespace) {
                Some(why) => SinkError::Forbidden { what: "see the cluster", why },
                None => SinkError::Ask { what: "see the cluster", source: failure.into() },
            });
        }
        self.forbidden_right.forget();
        self.forbidden_kill.forget();
        let ledger = self.ledger_store.read().await?;
        if let Some(left) = self.ledger_store.postponed() {
            return Ok(self.postpone(now, left));
        }
        if self.ledger_store.is_ahead_of(policy) {
            return Ok(self.postpone(now, SPEC_LAG));
        }
        self.managers.learn(&self.client, &self.cluster, &ledger).await;
        let observed = self.read_fleet(now, policy, ledger, None);
        match self.cluster.refresh_scales(&self.owners).await {
            Ok(false) => Ok(observed),
            Ok(true) => Ok(self.read_fleet(now, policy, observed.ledger, None)),
            Err(error) => {
                tracing::warn!("what the pods' owners want is not known: {error}; tried again");
                Ok(observed)
            }
        }
    }

    async fn confirm(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        let ledger = self.ledger_store.read().await?;
        if self.ledger_store.is_ahead_of(policy) {
            return Ok(self.postpone(now, SPEC_LAG));
        }
        let Some(selector) = self.selector(policy) else {
            return Ok(self.read_fleet(now, policy, ledger, None));
        };
        let namespace = self.settings.namespace.clone();
        let limiter = Arc::clone(&self.limiter);
        let _permit = limiter.confirmation().await;
        let (begun, departures) = (Awake::now(), self.cluster.departures(&namespace));
        let pods = in_time("list the pods", self.cluster.list_pods(&namespace, &selector));
        let endpoints = self.cluster.list_endpoints(&namespace, &policy.service);
        let (listed, endpoints) = try_join(pods, in_time("list the endpoint slices", endpoints)).await?;
        // After the LIST, so that the desired number is no older than the pods.
        let owners = self.cluster.desired(&namespace, &listed.pods, Some(&selector)).owners;
        in_time("get the pods' owners", self.cluster.refresh_owners(&owners)).await?;
        let observed = self.read_fleet(now, policy, ledger, Some(endpoints));
        let serving = listed.pods.iter().filter(|pod| pod.serving()).map(|pod| pod.uid.clone()).collect();
        self.confirmation = Some(Confirmation { begun, departures, serving, withheld: BTreeSet::new() });
        Ok(observed)
    }

    async fn reserve(&mut self, plan: Option<&Plan>, report: &Value) -> Result<Reservation, SinkError> {
        let next = plan.and_then(|plan| plan.next.as_ref());
        let settles_only = plan.is_some_and(|plan| plan.actions.is_empty())
            && next.is_some_and(|next| self.ledger_store.settles(next));
        let reserved = self.ledger_store.write(next, settles_only, report).await;
        if let Err(SinkError::Busy(after)) = &reserved {
            self.backoff.wait(*after);
        }
        reserved
    }

    async fn publish_report(&mut self, report: &Value) {
        self.ledger_store.publish_report(report).await;
    }

    async fn send(&mut self, actions: &[Action]) -> Vec<ActionOutcome> {
        let withheld = actions.iter().filter(|action| action.verb == Verb::Withhold);
        let withheld = withheld.map(|action| action.uid.clone()).collect();
        if let Some(confirmation) = &mut self.confirmation {
            confirmation.withheld = withheld;
        }
        let this = &*self;
        let seen: Vec<_> = actions.iter().map(|action| this.cluster.pod(&action.uid)).collect();
        let answers = run_all(actions.iter().map(|action| this.execute(action))).await;
        self.confirmation = None;
        let sent = actions.iter().zip(&answers);
        let landed = sent.clone().filter(|(action, answer)| {
            action.verb == Verb::Withhold && matches!(answer, Ok(()) | Err(WriteRefusal::Altered(_)))
        });
        self.landed.extend(landed.filter_map(|(action, _)| Some((action.uid.clone(), action.guard.fence?))));
        let asked =
            actions.iter().zip(&seen).zip(&answers).map(|((action, pod), answer)| (action, pod, answer));
        self.refusals.learn(&self.cluster, &self.settings.name, asked).await;
        self.learn_rights(actions, &answers);
        let mut failed = false;
        let mut outcomes = Vec::with_capacity(actions.len());
        for (action, answer) in actions.iter().zip(answers) {
            outcomes.push(match answer {
                Ok(()) => ActionOutcome::Landed,
                Err(refusal) => {
                    // A refused eviction concerns its pod only.
                    failed |= self.backoff.learn(&refusal) && action.verb != Verb::Kill;
                    tracing::debug!(pod = action.name, verb = ?action.verb, ?refusal, "action was refused");
                    refusal.outcome()
                }
            });
        }
        if !actions.is_empty() {
            self.ledger_store.defer_reports();
        }
        self.backoff.after(failed);
        self.clean_up().await;
        outcomes
    }
}
