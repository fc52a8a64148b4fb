//! The sink of fleets in a cluster: a withdrawal is a label of a pod, guarded by a fence.
//!
//! The ledger is in the resource's status; the pods come from watches, and from a quorum LIST where more
//! could be withheld with one. A reservation is stored before its pod is touched, every write tests what
//! it rests on, and what a write came to is read from the pod itself at the next look: so a crash
//! anywhere leaves nothing that the next process would have to guess.
//!
//! | file | step |
//! |---|---|
//! | `ledger_store` | the ledger, and what stands beside it in the status |
//! | `fleet` | records of pods → the gate's view of them |
//! | `patch` | one action → one guarded JSON Patch |
//! | `evict` | the end of a pod's life, through the eviction API |
//! | `limiter` | how much is under way at a time |
//! | `farewell` | marks off, and the finalizer |
//! | `refused` | a right that is missing, pods that are not as we see them |
//! | `tidy` | marks off pods that serve, which only a person can cause |

mod cleanup;
mod errors;
mod evict;
pub mod finalizer;
mod fleet;
mod limiter;
mod patch;
mod refused;
pub mod release;
mod status_ledger;

pub use self::{fleet::LINGERS, limiter::WriteLimiter};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use kube::Client;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use self::{
    errors::WriteRefusal,
    fleet::{FleetInputs, FleetReading},
    patch::PatchTarget,
    refused::{ForbiddenRight, PodRefusals},
    status_ledger::{PATIENCE, StatusLedger},
};
use super::{Hindrance, Observed, Reservation, SinkError, TrafficSink};
use crate::{
    adapters::kubernetes::{
        cluster::{Cluster, ListError},
        objects::{Kind, PodRecord, Selector},
    },
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

/// So many writes of one plan stand in line at a time.
const AT_ONCE: usize = 32;
/// After writes that came to nothing we know: the first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Whose fleet it is.
#[derive(Clone, Debug)]
pub struct LabelSettings {
    /// The namespace of the resource and of its pods.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
    /// The resource's UID: a namesake made later is another one.
    pub uid: String,
}

/// What the controller says about the resource beside its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TeardownMode {
    /// Everything is given back, and the resource or its claim on the pods goes.
    pub leaving: bool,
    /// The right that is missing for the finalizer: without it nothing is withheld.
    pub unsecured: Option<String>,
}

/// One resource's fleet.
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
    refusals: PodRefusals,
    /// Since when an entry's pod was seen in some Service's endpoints although it is withheld.
    still_in_endpoints: BTreeMap<Uid, Timestamp>,
    /// Withdrawals that have landed, by the fence that they rest on, until the ledger says so too.
    landed: BTreeMap<Uid, Fence>,
}

/// A LIST, and what was true when it began.
struct Confirmation {
    begun: Awake,
    departures: u64,
    serving: BTreeSet<Uid>,
    withheld: BTreeSet<Uid>,
}

/// How long to leave the API server alone after it did not do what it was asked.
struct RetryBackoff {
    until: Option<Instant>,
    pause: Duration,
}

impl LabelSink {
    /// Nothing is asked or written yet.
    #[must_use]
    pub fn new(
        client: Client,
        limiter: Arc<WriteLimiter>,
        cluster: Cluster,
        settings: LabelSettings,
        mode: watch::Receiver<TeardownMode>,
    ) -> Self {
        let ledger_store = StatusLedger::new(client.clone(), cluster.clone(), settings.clone());
        let backoff = RetryBackoff { until: None, pause: PAUSE.0 };
        let (still_in_endpoints, landed) = (BTreeMap::new(), BTreeMap::new());
        let (forbidden_right, refusals) = (ForbiddenRight::default(), PodRefusals::default());
        Self {
            client,
            limiter,
            cluster,
            settings,
            mode,
            ledger_store,
            confirmation: None,
            backoff,
            forbidden_right,
            refusals,
            still_in_endpoints,
            landed,
        }
    }

    fn look(&mut self, now: Timestamp, policy: &Policy, mut ledger: Ledger, proven: bool) -> Observed {
        self.mark_landed(&mut ledger);
        let mode = self.mode.borrow().clone();
        let hindrance = self.hindrance();
        let hold = hindrance.as_ref().filter(|_| !self.may_try()).map(ToString::to_string);
        let hold = hold.or_else(|| self.cluster.suspect());
        let inputs = FleetInputs {
            cluster: &self.cluster,
            settings: &self.settings,
            policy,
            leaving: mode.leaving,
            hold,
            status: self.ledger_store.status(),
        };
        let FleetReading { fleet, details, look_again } =
            fleet::look(&inputs, now, &ledger, proven, &mut self.still_in_endpoints);
        let trial = self.forbidden_right.until_trial().filter(|left| !left.is_zero()).map(|left| now + left);
        let look_again = look_again.into_iter().chain(trial).min();
        Observed { fleet, ledger, details, look_again, stand_aside: None, hindrance }
    }

    /// A pod that says yes although its withdrawal has landed had its traffic given back by a person; to the ledger, which
    /// may not know of the landing yet, it would look as if it had never been told.
    fn mark_landed(&mut self, ledger: &mut Ledger) {
        self.landed.retain(|uid, fence| {
            let entry = ledger.entries.get(uid);
            entry.is_some_and(|entry| entry.state == EntryState::Reserved && entry.fence == *fence)
        });
        let says_yes = |uid: &Uid| self.cluster.pod(uid).is_some_and(|pod| pod.traffic() == Traffic::Yes);
        self.landed.keys().filter(|uid| says_yes(uid)).for_each(|uid| ledger.landed(uid));
    }

    fn hindrance(&self) -> Option<Hindrance> {
        let unsecured = self.mode.borrow().unsecured.clone();
        let forbidden =
            unsecured.or_else(|| self.forbidden_right.right()).or_else(|| self.cluster.missing_right());
        let hindrance = forbidden.map(Hindrance::Forbidden);
        hindrance.or_else(|| self.ledger_store.pruned.then_some(Hindrance::LedgerNotStored))
    }

    /// Nobody says when a right is given back: what it is for is tried now and then, and nothing else stands in its way.
    fn may_try(&self) -> bool {
        self.mode.borrow().unsecured.is_none()
            && self.cluster.missing_right().is_none()
            && self.forbidden_right.until_trial().is_some_and(|left| left.is_zero())
    }

    /// Who is asked for in a LIST.
    fn selector(&self, policy: &Policy) -> Option<Selector> {
        if self.mode.borrow().leaving {
            return Some(Selector::named(&self.settings.name));
        }
        fleet::selector(&self.cluster, &self.settings, policy, self.ledger_store.status())
    }

    /// Nothing is to be decided for so long.
    fn aside(&self, now: Timestamp, left: Duration) -> Observed {
        let uid = self.settings.uid.clone();
        Observed {
            fleet: Fleet::new(0, Vec::new()),
            ledger: Ledger::begin(uid, crate::decide::fleet::Epoch(0)),
            details: BTreeMap::new(),
            look_again: None,
            stand_aside: Some(now + left),
            hindrance: None,
        }
    }

    async fn carry_out(&self, action: &Action) -> Result<(), WriteRefusal> {
        if matches!(action.verb, Verb::Release | Verb::Forget) {
            return Ok(());
        }
        let _place = self.limiter.write(action.verb).await;
        match action.verb {
            Verb::Withhold if !self.still_holds() => return Err(WriteRefusal::Late),
            _ => {}
        }
        let pod = self.cluster.pod(&action.uid).ok_or(WriteRefusal::Gone)?;
        if action.verb == Verb::Kill {
            return evict::evict(&self.client, &pod, action).await;
        }
        let target = PatchTarget { pod: &pod, resource: &self.settings.name };
        let Some(steps) = patch::patch(action, &target) else { return Ok(()) };
        let mark = self.cluster.mark(Kind::Pods);
        let changed = send_patch(&self.client, &pod, &steps).await?;
        if self.cluster.witness(Kind::Pods, changed.version, mark) {
            self.cluster.merge_pod(changed);
        }
        Ok(())
    }

    /// The LIST that the plan rests on is young enough, and nobody has left service since.
    fn still_holds(&self) -> bool {
        let Some(confirmation) = &self.confirmation else { return false };
        if confirmation.begun.elapsed() > LIST_AGE {
            return false;
        }
        if self.cluster.departures(&self.settings.namespace) == confirmation.departures {
            return true;
        }
        // Somebody has left somewhere in the namespace: one of ours?
        let ours = confirmation.serving.iter().filter(|uid| !confirmation.withheld.contains(*uid));
        ours.map(|uid| self.cluster.pod(uid)).all(|pod| pod.is_some_and(|pod| pod.serving()))
    }
}

#[async_trait]
impl TrafficSink for LabelSink {
    async fn observe(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        if let Some(left) = self.backoff.left() {
            return Ok(self.aside(now, left));
        }
        if let Some(trouble) = self.cluster.unlisted() {
            return Err(match self.cluster.missing_right() {
                Some(why) => SinkError::Forbidden { what: "see the cluster", why },
                None => SinkError::Ask { what: "see the cluster", source: trouble.into() },
            });
        }
        self.forbidden_right.forget();
        let ledger = self.ledger_store.read().await?;
        if let Some(left) = self.ledger_store.aside() {
            return Ok(self.aside(now, left));
        }
        Ok(self.look(now, policy, ledger, false))
    }

    async fn confirm(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        let ledger = self.ledger_store.read().await?;
        let Some(selector) = self.selector(policy) else { return Ok(self.look(now, policy, ledger, false)) };
        let namespace = self.settings.namespace.clone();
        let limiter = Arc::clone(&self.limiter);
        let _place = limiter.confirmation().await;
        let (begun, departures) = (Awake::now(), self.cluster.departures(&namespace));
        let listed = in_time("list the pods", self.cluster.list_pods(&namespace, &selector)).await?;
        // After the list: how many there should be is then no older than who is there.
        let owners = self.cluster.desired(&namespace, &listed.pods).owners;
        in_time("get the pods' owners", self.cluster.refresh_owners(&owners)).await?;
        let observed = self.look(now, policy, ledger, true);
        let serving = listed.pods.iter().filter(|pod| pod.serving()).map(|pod| pod.uid.clone()).collect();
        self.confirmation = Some(Confirmation { begun, departures, serving, withheld: BTreeSet::new() });
        Ok(observed)
    }

    async fn reserve(&mut self, plan: Option<&Plan>, report: &Value) -> Result<Reservation, SinkError> {
        let next = plan.and_then(|plan| plan.next.as_ref());
        let settles_only = plan.is_some_and(|plan| plan.actions.is_empty())
            && next.zip(self.ledger_store.current()).is_some_and(|(next, now)| settles(now, next));
        let reserved = self.ledger_store.write(next, settles_only, report).await;
        if let Err(SinkError::Busy { after }) = &reserved {
            self.backoff.wait(*after);
        }
        reserved
    }

    async fn publish_report(&mut self, report: &Value) {
        self.ledger_store.tell(report).await;
    }

    async fn send(&mut self, actions: &[Action]) -> Vec<ActionOutcome> {
        let withheld = actions.iter().filter(|action| action.verb == Verb::Withhold);
        let withheld = withheld.map(|action| action.uid.clone()).collect();
        if let Some(confirmation) = &mut self.confirmation {
            confirmation.withheld = withheld;
        }
        let this = &*self;
        let writes: Vec<_> = actions.iter().map(|action| this.carry_out(action)).collect();
        let answers: Vec<Result<(), WriteRefusal>> = stream::iter(writes).buffered(AT_ONCE).collect().await;
        self.confirmation = None;
        let sent = actions.iter().zip(&answers);
        let landed = sent.clone().filter(|(action, answer)| action.verb == Verb::Withhold && answer.is_ok());
        self.landed.extend(landed.filter_map(|(action, _)| Some((action.uid.clone(), action.guard.fence?))));
        self.refusals.learn(&self.cluster, &self.settings.name, sent).await;
        let (mut failed, mut forbidden) = (false, None);
        let mut outcomes = Vec::with_capacity(actions.len());
        for (action, answer) in actions.iter().zip(answers) {
            outcomes.push(match answer {
                Ok(()) => ActionOutcome::Landed,
                Err(refusal) => {
                    failed |= self.backoff.learn(&refusal);
                    if let WriteRefusal::Forbidden(what) = &refusal {
                        forbidden = Some(what.clone());
                    }
                    tracing::debug!(pod = action.name, verb = ?action.verb, ?refusal, "not carried out");
                    refusal.outcome()
                }
            });
        }
        if !actions.is_empty() {
            self.forbidden_right.learn(forbidden);
            self.ledger_store.defer_reports();
        }
        self.backoff.after(failed);
        self.tidy().await;
        outcomes
    }
}

/// One read, with its end in sight.
async fn in_time<T>(
    what: &'static str,
    read: impl Future<Output = Result<T, ListError>>,
) -> Result<T, SinkError> {
    match timeout(PATIENCE, read).await {
        Ok(answer) => answer.map_err(|error| match error.missing_right() {
            Some(why) => SinkError::Forbidden { what, why },
            None => SinkError::Ask { what, source: error.into() },
        }),
        Err(_) => Err(SinkError::Ask { what, source: "no answer in time".into() }),
    }
}

/// The only news is what became of reservations: whoever reads the ledger finds that out from the pods.
fn settles(now: &Ledger, next: &Ledger) -> bool {
    let same_pods = now.entries.len() == next.entries.len()
        && now.entries.iter().all(|(uid, entry)| {
            next.entries.get(uid).is_some_and(|later| {
                let settled = entry.state == EntryState::Reserved && later.state == EntryState::Withheld;
                (settled || entry.state == later.state) && entry.fence == later.fence
            })
        });
    same_pods
        && now.panic == next.panic
        && now.kills == next.kills
        && now.reverted_until == next.reverted_until
}

impl RetryBackoff {
    fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn wait(&mut self, after: Duration) {
        self.until = self.until.max(Some(Instant::now() + after));
    }

    /// Whether it is the API server that does not do its work.
    fn learn(&mut self, refusal: &WriteRefusal) -> bool {
        match refusal {
            WriteRefusal::Busy(after) => self.wait(*after),
            WriteRefusal::Silence | WriteRefusal::Other(_) | WriteRefusal::Forbidden(_) => {}
            WriteRefusal::Conflict | WriteRefusal::Late | WriteRefusal::Gone => return false,
        }
        true
    }

    fn after(&mut self, failed: bool) {
        if failed {
            self.wait(self.pause);
            self.pause = (self.pause * 2).min(PAUSE.1);
        } else {
            self.pause = PAUSE.0;
        }
    }
}

/// Sends one JSON Patch and reads the pod as it is then.
async fn send_patch(client: &Client, pod: &PodRecord, steps: &[Value]) -> Result<PodRecord, WriteRefusal> {
    let other = |source: Box<dyn std::error::Error + Send + Sync>| WriteRefusal::Other(source);
    let body = serde_json::to_vec(steps).map_err(|source| other(source.into()))?;
    let request =
        axum::http::Request::patch(format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name))
            .header(axum::http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(body)
            .map_err(|source| other(source.into()))?;
    ask(client, request).await
}

/// One request, with its end in sight.
async fn ask<T: serde::de::DeserializeOwned>(
    client: &Client,
    request: axum::http::Request<Vec<u8>>,
) -> Result<T, WriteRefusal> {
    match timeout(PATIENCE, client.request::<T>(request)).await {
        Ok(answer) => answer.map_err(WriteRefusal::from),
        Err(_) => Err(WriteRefusal::Silence),
    }
}

/// The living pods of the fleet, for those who look at them.
#[must_use]
pub fn fleet_of(cluster: &Cluster, settings: &LabelSettings, policy: &Policy) -> Vec<Arc<PodRecord>> {
    let pods = fleet_selector(cluster, settings, policy)
        .map(|selector| cluster.pods(&settings.namespace, &selector))
        .unwrap_or_default();
    pods.into_iter().filter(|pod| !pod.finished() && !pod.terminating).collect()
}

/// Whom the resource's Service selects, the traffic key apart; `None` while that is nobody, or too many.
#[must_use]
pub fn fleet_selector(cluster: &Cluster, settings: &LabelSettings, policy: &Policy) -> Option<Selector> {
    let resource = cluster.resource(&settings.namespace, &settings.name);
    let status = resource.as_ref().and_then(|resource| resource.object.get("status"));
    fleet::selector(cluster, settings, policy, status)
}

/// Shared by the files of this room.
type PodRecords = Vec<Arc<PodRecord>>;
