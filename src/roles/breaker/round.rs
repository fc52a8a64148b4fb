//! The loop that runs a policy's breakers in process: each looks at its own pace, and what it says goes to the gate.
//!
//! Keepalives are at hand and judged at once. Others are asked beside the loop, each question on its own
//! and at most one per breaker, so that a service that hangs delays nobody's look but its own.
//!
//! A master with a policy runs it once, a controller once for each of its services. What the two do not
//! share (where pods are seen, who is told, what outlives the process) is the [`BreakerHost`]'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{AskError, Asker, InProcessBreakers};
use crate::{
    api::Manifest,
    clock::Clock,
    decide::{
        detect::{
            Observation, Rule,
            asked::{Answer, Judged},
            listed::Scope,
        },
        time::{Moment, Timestamp},
        verdict::Source,
    },
};

/// Whoever runs a policy's breakers.
pub trait BreakerHost: Send + Sync + 'static {
    /// The clocks.
    fn clock(&self) -> Clock;

    /// Who asks the detectors' questions.
    fn asker(&self) -> &Arc<Asker>;

    /// Every pod of the fleet as it is now.
    fn observations(&self) -> Vec<Observation>;

    /// Whether keepalives arrive here. Where they do not, a breaker that sees nothing else is silent:
    /// whoever does hear them speaks for it.
    fn hears_keepalives(&self) -> bool {
        true
    }

    /// Whose pods a custom service may name.
    fn scope(&self) -> Scope;

    /// What a breaker says now, for the gate.
    fn said(&self, source: Source);

    /// The policy has changed: only breakers of these names are left.
    fn forget_breakers(&self, left: &BTreeSet<&str>);

    /// Who gets no usable answer, and why, for a person; after each change, and empty when all is well.
    fn troubles(&self, troubles: &BTreeMap<String, String>);

    /// Keeps what a successor must know. It is called only with news.
    fn keep(&self, memory: Bytes) -> impl Future<Output = Result<(), Succeeded>> + Send;
}

/// Nothing can be kept any more: somebody else runs these breakers from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("somebody else runs these breakers")]
pub struct Succeeded;

/// Runs the breakers of the newest of `manifests`, until `stop` or until the host is succeeded. A manifest
/// that is taken away leaves the last one in force; until there is a first, nothing is evaluated.
///
/// `memory` is what a predecessor had kept.
pub async fn run_breakers<H: BreakerHost>(
    host: Arc<H>,
    mut manifests: watch::Receiver<Option<Arc<Manifest>>>,
    memory: Option<Bytes>,
    stop: &CancellationToken,
) {
    let first = tokio::select! {
        () = stop.cancelled() => return,
        first = manifests.wait_for(Option::is_some) => first.ok().and_then(|first| first.clone()),
    };
    let Some(manifest) = first else { return stop.cancelled().await };
    let mut breakers = InProcessBreakers::new(manifest);
    if let Some(Err(error)) = memory.as_ref().map(|memory| breakers.restore(memory)) {
        tracing::warn!("{error}");
    }
    let round = Round {
        host: Arc::clone(&host),
        breakers,
        questions: JoinSet::new(),
        troubles: BTreeMap::new(),
        kept: memory.unwrap_or_default(),
    };
    round.run(&mut manifests, stop).await;
    host.troubles(&BTreeMap::new());
}

/// A question that has come to its end.
struct Told {
    rule: Rule,
    answer: Result<Answer, AskError>,
}

struct Round<H> {
    host: Arc<H>,
    breakers: InProcessBreakers,
    questions: JoinSet<Told>,
    /// What is wrong with whose answers.
    troubles: BTreeMap<String, String>,
    kept: Bytes,
}

impl<H: BreakerHost> Round<H> {
    async fn run(mut self, manifests: &mut watch::Receiver<Option<Arc<Manifest>>>, stop: &CancellationToken) {
        let clock = self.host.clock();
        loop {
            let wake_up = self.look();
            if self.keep().await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep_until(wake_up) => {}
                Some(told) = self.questions.join_next() => match told {
                    Ok(told) => self.hear(&told),
                    Err(error) => {
                        tracing::error!(%error, "a question ended badly; all are asked again");
                        self.start_over();
                    }
                },
                changed = manifests.changed() => {
                    if changed.is_err() { return stop.cancelled().await }
                    let Some(fresh) = manifests.borrow_and_update().clone() else { continue };
                    self.change_to(fresh);
                }
            }
        }
    }

    /// Judges what is at hand, asks what is due, and tells when to come again.
    fn look(&mut self) -> Option<Moment> {
        let clock = self.host.clock();
        let now = clock.wall();
        let hears = self.host.hears_keepalives();
        let observations =
            if hears && self.breakers.see_keepalives() { self.host.observations() } else { Vec::new() };
        let evaluation = self.breakers.evaluate(now, &observations);
        for source in evaluation.sources.into_iter().filter(|_| hears) {
            self.host.said(source);
        }
        let (questions, next_question) = self.breakers.questions(now);
        for rule in questions {
            let asker = Arc::clone(self.host.asker());
            self.questions.spawn(async move {
                let answer = asker.ask(&rule.detector).await;
                Told { rule, answer }
            });
        }
        let next = evaluation.next_wakeup.into_iter().chain(next_question).min();
        let after = |next: Timestamp| clock.now() + next.since(clock.wall());
        next.map(after)
    }

    /// Keeps what a successor must know, if it changed.
    async fn keep(&mut self) -> Result<(), Succeeded> {
        let dump = self.breakers.dump();
        if dump != self.kept {
            self.host.keep(dump.clone()).await?;
            self.kept = dump;
        }
        Ok(())
    }

    fn hear(&mut self, told: &Told) {
        let Told { rule, answer } = told;
        let observations = self.host.observations();
        let usable = answer.as_ref().unwrap_or(&Answer::Nothing);
        let (now, scope) = (self.host.clock().wall(), self.host.scope());
        let Some(judged) = self.breakers.answered(rule, usable, now, &observations, &scope) else { return };
        self.host.asker().met_strangers(judged.strangers);
        match trouble(answer, &judged, observations.len()) {
            Some(trouble) => {
                tracing::debug!(breaker = rule.breaker, "{trouble}");
                self.troubles.insert(rule.breaker.clone(), trouble);
            }
            None => {
                self.troubles.remove(&rule.breaker);
            }
        }
        self.host.said(judged.source);
        self.host.troubles(&self.troubles);
    }

    fn change_to(&mut self, fresh: Arc<Manifest>) {
        let left: BTreeSet<&str> = fresh.rules.iter().map(|rule| rule.breaker.as_str()).collect();
        self.host.forget_breakers(&left);
        self.troubles.retain(|name, _| left.contains(name.as_str()));
        self.host.troubles(&self.troubles);
        self.breakers.replace(fresh);
        self.start_over();
    }

    /// No question is waited for any more; those who asked one ask again.
    fn start_over(&mut self) {
        self.questions = JoinSet::new();
        self.breakers.forget_questions();
    }
}

/// Why an answer is of no use, for a person.
fn trouble(answer: &Result<Answer, AskError>, judged: &Judged, pods: usize) -> Option<String> {
    match answer {
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            Some(text)
        }
        Ok(Answer::Vector(vector))
            if pods > 0 && !vector.series.is_empty() && judged.strangers == vector.series.len() =>
        {
            Some("none of the series names a pod of this fleet: check podNamekey".to_owned())
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        adapters::secrets::NoSecrets,
        api::{self, Context, Detectors},
        decide::detect::Status,
        roles::breaker::AskerMetrics,
    };

    /// Pods `a` and `b`; everything that the loop tells is written down.
    struct Notebook {
        clock: Clock,
        asker: Arc<Asker>,
        hears: bool,
        succeeded: bool,
        notes: Mutex<Vec<String>>,
    }

    impl Notebook {
        fn new() -> Self {
            let clock = Clock::start();
            let metrics = AskerMetrics::register(&mut Registry::default());
            let asker = Arc::new(Asker::new(Arc::new(NoSecrets), clock, metrics).unwrap());
            Self { clock, asker, hears: true, succeeded: false, notes: Mutex::default() }
        }

        fn note(&self, text: String) {
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }

        fn taken(&self) -> Vec<String> {
            std::mem::take(&mut *self.notes.lock().unwrap())
        }
    }

    impl BreakerHost for Notebook {
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
                status: Status::Live,
                heard: true,
                withheld: false,
                payload: Arc::new(number.into()),
            };
            vec![pod("a", 1), pod("b", 9)]
        }

        fn hears_keepalives(&self) -> bool {
            self.hears
        }

        fn scope(&self) -> Scope {
            Scope { namespace: "shop".into(), by_uid: true }
        }

        fn said(&self, source: Source) {
            let bad = source.opinions().iter().filter(|(_, opinion)| opinion.objects());
            let bad: Vec<_> = bad.map(|(uid, _)| uid.as_str()).collect();
            self.note(format!("{}: {}", source.name, bad.join(" ")));
        }

        fn forget_breakers(&self, left: &BTreeSet<&str>) {
            self.note(format!("left: {left:?}"));
        }

        fn troubles(&self, troubles: &BTreeMap<String, String>) {
            self.note(format!("troubles: {:?}", troubles.keys()));
        }

        async fn keep(&self, memory: Bytes) -> Result<(), Succeeded> {
            self.note(format!("kept: {}", String::from_utf8_lossy(&memory)));
            if self.succeeded { Err(Succeeded) } else { Ok(()) }
        }
    }

    /// One breaker that looks each second at payloads, or asks a service where nobody is.
    fn manifest(name: &str, detector: &str) -> Option<Arc<Manifest>> {
        let text = format!(
            "{{apiVersion: kubervisor.k8s.io/v1alpha1, kind: KubervisorService, metadata: {{name: shop}}, spec: \
             {{service: shop, breakers: [{{name: {name}, evaluationPeriod: 1, {detector}}}]}}}}"
        );
        let context = Context { detectors: Detectors::All, timing: None };
        let mut manifests = api::parse("policy", &text, context).unwrap();
        Some(Arc::new(manifests.remove(0)))
    }

    const BY_PAYLOAD: &str = "keepalive: {pointer: \"\", max: 5}";

    /// The loop over `host`, beside what the test does for `seconds`.
    async fn run(host: &Arc<Notebook>, policies: &watch::Sender<Option<Arc<Manifest>>>, seconds: f64) {
        let stop = CancellationToken::new();
        let running = run_breakers(Arc::clone(host), policies.subscribe(), None, &stop);
        let _over = tokio::time::timeout(Duration::from_secs_f64(seconds), running).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_breaker_speaks_at_its_pace_and_what_it_remembers_is_kept_once() {
        let host = Arc::new(Notebook::new());
        run(&host, &watch::Sender::new(manifest("load", BY_PAYLOAD)), 2.5).await;
        assert_eq!(host.taken(), ["load: b", "kept: {}", "load: b", "load: b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_keepalives_arrive_a_breaker_that_needs_them_is_silent() {
        let host = Arc::new(Notebook { hears: false, ..Notebook::new() });
        run(&host, &watch::Sender::new(manifest("load", BY_PAYLOAD)), 2.5).await;
        assert_eq!(host.taken(), ["kept: {}"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_succeeded_ends_with_all_its_troubles() {
        let host = Arc::new(Notebook { succeeded: true, ..Notebook::new() });
        run(&host, &watch::Sender::new(manifest("load", BY_PAYLOAD)), 60.0).await;
        assert_eq!(host.taken(), ["load: b", "kept: {}", "troubles: []"]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_with_the_first_policy_follows_the_next_and_keeps_the_last() {
        let host = Arc::new(Notebook::new());
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
        let told = [
            "load: b",
            "kept: {}",
            "load: b",
            "left: {\"weight\"}",
            "troubles: []",
            "weight: b",
            "weight: b",
        ];
        assert_eq!(host.taken(), told);
    }

    #[tokio::test]
    async fn whose_question_fails_has_no_verdict_and_is_told_of() {
        let host = Arc::new(Notebook::new());
        run(&host, &watch::Sender::new(manifest("custom", "customService: \"127.0.0.1:1\"")), 0.5).await;
        assert_eq!(host.taken(), ["kept: {}", "custom: ", "troubles: [\"custom\"]"]);
    }
}
