//! The loop that evaluates a policy's breakers in process, each at its own period, and hands their verdicts to the gate.
//!
//! Keepalives are judged at once. Other detectors query Prometheus or a service in a task of their own, at most one query
//! per breaker, so that a service that hangs delays no other breaker.
//!
//! A master with a policy runs one loop, a controller one for each service; [`BreakerHost`] is what differs.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::asker::{AskError, Asker};
use crate::{
    api::Manifest,
    clock::Clock,
    decide::{
        detect::{
            self, BreakerSelection, Observation, Rule, Windows,
            listed::FleetScope,
            queried::{JudgedAnswer, QueryAnswer, QueryVariables},
        },
        time::{Moment, Timestamp},
        verdict::Source,
    },
    exit,
};

/// The process that runs a policy's breakers.
pub trait BreakerHost: Send + Sync + 'static {
    /// The process's clock.
    fn clock(&self) -> Clock;

    /// Sends the detectors' queries.
    fn asker(&self) -> &Arc<Asker>;

    /// Every pod of the fleet.
    fn observations(&self) -> Vec<Observation>;

    /// Whether this process receives keepalives. Without them, a breaker that judges nothing else has no verdicts here.
    fn receives_keepalives(&self) -> bool {
        true
    }

    /// The pods that a custom service may name.
    fn scope(&self) -> FleetScope;

    /// Hands a breaker's newest verdicts to the gate.
    fn publish(&self, source: Source);

    /// Drops the verdicts of all other breakers: they are no longer in the policy, or have another detector.
    fn retain_breakers(&self, left: &BTreeSet<&str>);

    /// Why a query has no usable answer, by breaker. Called after each change.
    fn publish_failures(&self, failures: &BTreeMap<String, String>);

    /// Stores the windows for the next process. Called only after a change.
    fn persist(&self, windows: Bytes) -> impl Future<Output = Result<(), Superseded>> + Send;
}

/// Nothing can be stored: another process runs these breakers from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another process runs these breakers")]
pub struct Superseded;

/// Runs the breakers of the newest of `manifests`, until `stop` or until the host is superseded. Nothing is evaluated
/// before the first manifest; a `None` after it leaves the last one in force.
///
/// `windows` is what a previous process stored with [`BreakerHost::persist`].
pub async fn run_breakers<H: BreakerHost>(
    host: Arc<H>,
    mut manifests: watch::Receiver<Option<Arc<Manifest>>>,
    windows: Option<Bytes>,
    stop: &CancellationToken,
) {
    let Some(first) = stop.run_until_cancelled(manifests.wait_for(Option::is_some)).await else { return };
    let first = first.ok().and_then(|first| first.clone());
    let Some(manifest) = first else { return stop.cancelled().await };
    let runner = Runner {
        host: Arc::clone(&host),
        manifest,
        windows: windows.as_deref().map(restore).unwrap_or_default(),
        queried: BTreeSet::new(),
        queries: JoinSet::new(),
        failures: BTreeMap::new(),
        stored: windows.unwrap_or_default(),
    };
    runner.run(&mut manifests, stop).await;
    host.publish_failures(&BTreeMap::new());
}

fn restore(bytes: &[u8]) -> Windows {
    serde_json::from_slice(bytes).unwrap_or_else(|error| {
        tracing::warn!("the breakers' stored windows cannot be read ({error}); they start empty");
        Windows::default()
    })
}

/// A query that has ended.
struct QueryResult {
    rule: Rule,
    answer: Result<QueryAnswer, AskError>,
}

struct Runner<H> {
    host: Arc<H>,
    manifest: Arc<Manifest>,
    windows: Windows,
    /// Breakers with a query under way.
    queried: BTreeSet<String>,
    queries: JoinSet<QueryResult>,
    failures: BTreeMap<String, String>,
    stored: Bytes,
}

impl<H: BreakerHost> Runner<H> {
    async fn run(mut self, manifests: &mut watch::Receiver<Option<Arc<Manifest>>>, stop: &CancellationToken) {
        let clock = self.host.clock();
        loop {
            let next = self.evaluate();
            if self.persist().await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep_until(next) => {}
                Some(ended) = self.queries.join_next() => match ended {
                    Ok(result) => self.judge(&result),
                    Err(error) => {
                        tracing::error!(%error, "a query's task failed; all queries are sent again");
                        self.restart_queries();
                    }
                },
                changed = manifests.changed() => {
                    if changed.is_err() { return stop.cancelled().await }
                    let Some(fresh) = manifests.borrow_and_update().clone() else { continue };
                    self.replace_manifest(fresh);
                }
            }
        }
    }

    /// Judges keepalives, starts the queries that are due, and returns when the next evaluation is due.
    fn evaluate(&mut self) -> Option<Moment> {
        let clock = self.host.clock();
        let now = clock.wall();
        let receives = self.host.receives_keepalives();
        let rules = &self.manifest.rules;
        let observations = if receives && rules.iter().any(|rule| rule.detector.uses_keepalives_only()) {
            self.host.observations()
        } else {
            Vec::new()
        };
        let evaluation =
            detect::evaluate(rules, now, &observations, &mut self.windows, BreakerSelection::Due);
        for source in evaluation.sources.into_iter().filter(|_| receives) {
            self.host.publish(source);
        }
        let queried = |breaker: &str| self.queried.contains(breaker);
        let (due, next_query) = detect::queried::due(rules, now, &mut self.windows, queried);
        let due: Vec<Rule> = due.into_iter().cloned().collect();
        for rule in due {
            self.queried.insert(rule.breaker.clone());
            let asker = Arc::clone(self.host.asker());
            let variables = self.variables(&rule);
            self.queries.spawn(async move {
                let answer = asker.ask(&rule.detector, &variables).await;
                QueryResult { rule, answer }
            });
        }
        let next = evaluation.next_wakeup.into_iter().chain(next_query).min();
        let after = |next: Timestamp| clock.now() + next.since(clock.wall());
        next.map(after)
    }

    /// The names that the rule's query may refer to.
    fn variables(&self, rule: &Rule) -> QueryVariables {
        let named = rule.detector.query().is_some_and(|(query, _)| query.promql.contains("$pods"));
        let pods = if named { self.host.observations() } else { Vec::new() };
        QueryVariables {
            namespace: self.host.scope().namespace,
            service: self.manifest.policy.service.clone(),
            pods: pods.into_iter().map(|pod| pod.id).collect(),
        }
    }

    /// Stores the windows if they changed. Due times are left out: the next process evaluates all breakers at once.
    async fn persist(&mut self) -> Result<(), Superseded> {
        let windows = serde_json::to_vec(&self.windows.without_due_times()).unwrap_or_default();
        if windows != self.stored {
            self.stored = windows.into();
            self.host.persist(self.stored.clone()).await?;
        }
        Ok(())
    }

    fn judge(&mut self, result: &QueryResult) {
        let QueryResult { rule, answer } = result;
        let observations = self.host.observations();
        let usable = answer.as_ref().unwrap_or(&QueryAnswer::Nothing);
        let (now, scope) = (self.host.clock().wall(), self.host.scope());
        self.queried.remove(&rule.breaker);
        // A rule that the policy no longer has is not judged.
        let Some(current) = self.manifest.rules.iter().find(|current| *current == rule) else { return };
        let judged = detect::queried::judge(current, now, &observations, usable, &scope, &mut self.windows);
        self.host.asker().count_strangers(judged.strangers);
        match failure(answer, &judged, observations.len()) {
            Some(failure) => {
                tracing::debug!(breaker = rule.breaker, "{failure}");
                self.failures.insert(rule.breaker.clone(), failure);
            }
            None => {
                self.failures.remove(&rule.breaker);
            }
        }
        self.host.publish(judged.source);
        self.host.publish_failures(&self.failures);
    }

    /// Breakers that keep name and detector keep windows and verdicts. Those of another detector say nothing about the
    /// new one.
    fn replace_manifest(&mut self, fresh: Arc<Manifest>) {
        let old = &self.manifest.rules;
        let kept =
            |rule: &&Rule| old.iter().any(|old| old.breaker == rule.breaker && old.detector == rule.detector);
        let left: BTreeSet<&str> =
            fresh.rules.iter().filter(kept).map(|rule| rule.breaker.as_str()).collect();
        self.host.retain_breakers(&left);
        self.windows.retain_breakers(|breaker| left.contains(breaker));
        self.failures.retain(|name, _| left.contains(name.as_str()));
        self.host.publish_failures(&self.failures);
        self.manifest = fresh;
        self.restart_queries();
    }

    /// Drops the queries under way; their breakers query again.
    fn restart_queries(&mut self) {
        self.queries = JoinSet::new();
        for breaker in std::mem::take(&mut self.queried) {
            self.windows.of(&breaker).make_due();
        }
    }
}

/// Why an answer is not usable.
fn failure(answer: &Result<QueryAnswer, AskError>, judged: &JudgedAnswer, pods: usize) -> Option<String> {
    match answer {
        Err(error) => Some(exit::chain(error)),
        Ok(QueryAnswer::Vector(vector))
            if pods > 0 && !vector.elements.is_empty() && judged.strangers == vector.elements.len() =>
        {
            let named = vector.elements.first().and_then(|element| element.pod.as_deref());
            let example = named.map(|pod| format!(" (one is of {pod:?})")).unwrap_or_default();
            Some(format!(
                "none of the {} series names a pod of this fleet{example}: check podNamekey and namespaceKey",
                judged.strangers
            ))
        }
        Ok(_) => None,
    }
}
