//! The policy's own breakers, in process: each looks at its own pace, and what it says goes to the gate.
//!
//! Keepalives are at hand and judged at once. Others are asked beside the loop, each question on its own
//! and at most one per breaker, so that a service that hangs delays nobody's look but its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Shared, gate, reign};
use crate::{
    adapters::store::{Batch, RecordKey, StoreError, Term},
    api::Manifest,
    decide::{
        detect::{
            Rule,
            asked::{Answer, Judged},
            listed::Scope,
        },
        time::{Moment, Timestamp},
    },
    roles::{
        breaker::{AskError, Asker, InProcessBreakers},
        gatekeeper::Gatekeeper,
    },
};

/// The alarm of a detector that gets no usable answer.
const FAILING: &str = "detector_failing";

/// Evaluates until `stop`, or until it is deposed.
pub(crate) async fn run_breakers(
    shared: Arc<Shared>,
    term: Term,
    windows: Option<Bytes>,
    stop: CancellationToken,
) {
    let gatekeeping = &shared.gatekeeping;
    let (Some(gatekeeper), Some(asker)) = (gatekeeping.gatekeeper().cloned(), gatekeeping.asker().cloned())
    else {
        return stop.cancelled().await;
    };
    let mut manifests = gatekeeping.manifest();
    let Some(manifest) = manifests.borrow_and_update().clone() else { return stop.cancelled().await };
    let mut breakers = InProcessBreakers::new(manifest);
    if let Some(Err(error)) = windows.as_ref().map(|windows| breakers.restore(windows)) {
        tracing::warn!("{error}");
    }
    let round = Round {
        gatekeeper,
        asker,
        breakers,
        questions: JoinSet::new(),
        troubles: BTreeMap::new(),
        stored: windows.unwrap_or_default(),
        shared: Arc::clone(&shared),
    };
    round.run(term, &mut manifests, &stop).await;
    shared.alarms.clear(FAILING);
}

/// A question that has come to its end.
struct Told {
    rule: Rule,
    answer: Result<Answer, AskError>,
}

struct Round {
    shared: Arc<Shared>,
    gatekeeper: Arc<Gatekeeper>,
    asker: Arc<Asker>,
    breakers: InProcessBreakers,
    questions: JoinSet<Told>,
    /// What is wrong with whose answers.
    troubles: BTreeMap<String, String>,
    stored: Bytes,
}

impl Round {
    async fn run(
        mut self,
        term: Term,
        manifests: &mut watch::Receiver<Option<Arc<Manifest>>>,
        stop: &CancellationToken,
    ) {
        loop {
            let wake_up = self.look();
            if self.keep(term, stop).await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.clock.sleep_until(wake_up) => {}
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
        let now = self.shared.clock.wall();
        let observations =
            if self.breakers.see_keepalives() { gate::observations(&self.shared) } else { Vec::new() };
        let evaluation = self.breakers.evaluate(now, &observations);
        for source in evaluation.sources {
            self.gatekeeper.breaker_said(source);
        }
        let (questions, next_question) = self.breakers.questions(now);
        for rule in questions {
            let asker = Arc::clone(&self.asker);
            self.questions.spawn(async move {
                let answer = asker.ask(&rule.detector).await;
                Told { rule, answer }
            });
        }
        let next = evaluation.next_wakeup.into_iter().chain(next_question).min();
        let after = |next: Timestamp| self.shared.clock.now() + next.since(self.shared.clock.wall());
        next.map(after)
    }

    /// Stores what a successor must know, if it changed.
    async fn keep(&mut self, term: Term, stop: &CancellationToken) -> Result<(), StoreError> {
        let dump = self.breakers.dump();
        if dump != self.stored {
            let batch = Batch { put: vec![(RecordKey::Windows, dump.clone())], delete: Vec::new() };
            reign::commit(&self.shared, term, batch, stop).await?;
            self.stored = dump;
        }
        Ok(())
    }

    fn hear(&mut self, told: &Told) {
        let Told { rule, answer } = told;
        let observations = gate::observations(&self.shared);
        let scope = Scope { namespace: self.shared.gatekeeping.namespace().to_owned(), by_uid: false };
        let usable = answer.as_ref().unwrap_or(&Answer::Nothing);
        let now = self.shared.clock.wall();
        let Some(judged) = self.breakers.answered(rule, usable, now, &observations, &scope) else { return };
        self.asker.met_strangers(judged.strangers);
        match trouble(answer, &judged, observations.len()) {
            Some(trouble) => {
                tracing::debug!(breaker = rule.breaker, "{trouble}");
                self.troubles.insert(rule.breaker.clone(), trouble);
            }
            None => {
                self.troubles.remove(&rule.breaker);
            }
        }
        self.gatekeeper.breaker_said(judged.source);
        self.tell_troubles();
    }

    fn change_to(&mut self, fresh: Arc<Manifest>) {
        let names: BTreeSet<&str> = fresh.rules.iter().map(|rule| rule.breaker.as_str()).collect();
        self.gatekeeper.forget_breakers(|name| names.contains(name));
        self.troubles.retain(|name, _| names.contains(name.as_str()));
        self.tell_troubles();
        self.breakers.replace(fresh);
        self.start_over();
    }

    /// No question is waited for any more; those who asked one ask again.
    fn start_over(&mut self) {
        self.questions = JoinSet::new();
        self.breakers.forget_questions();
    }

    fn tell_troubles(&self) {
        self.shared.alarms.set(FAILING, !self.troubles.is_empty(), || {
            let one = |(name, trouble): (&String, &String)| format!("breaker {name}: {trouble}");
            let all: Vec<_> = self.troubles.iter().map(one).collect();
            format!("no verdicts from {}", all.join("; "))
        });
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
