//! The same breakers inside a process that has a policy: no process of their own, no callback needed.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    api::Manifest,
    decide::{
        detect::{
            self, Ask, Evaluation, Observation, Rule, Windows,
            asked::{Answer, Judged},
            listed::Scope,
        },
        time::Timestamp,
    },
};

/// The breakers of one policy and their memory.
#[derive(Clone, Debug)]
pub struct InProcessBreakers {
    manifest: Arc<Manifest>,
    windows: Windows,
    /// Breakers whose question is on its way.
    asked: BTreeSet<String>,
}

/// A memory that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the breakers' stored windows cannot be read ({source}); they start empty")]
pub struct RestoreError {
    source: serde_json::Error,
}

impl InProcessBreakers {
    /// Breakers that remember nothing yet.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>) -> Self {
        Self { manifest, windows: Windows::default(), asked: BTreeSet::new() }
    }

    /// Another policy from now on; breakers that keep their name keep their memory.
    pub fn replace(&mut self, manifest: Arc<Manifest>) {
        self.manifest = manifest;
    }

    /// Some rule looks at keepalives.
    #[must_use]
    pub fn see_keepalives(&self) -> bool {
        self.manifest.rules.iter().any(|rule| rule.detector.sees_keepalives_only())
    }

    /// The rules whose question must be asked now, and when the next one is due. Each is to be
    /// [`answered`](Self::answered), whatever came of it: until then its breaker asks no other.
    pub fn questions(&mut self, now: Timestamp) -> (Vec<Rule>, Option<Timestamp>) {
        let Self { manifest, windows, asked } = self;
        let (due, next_wakeup) =
            detect::asked::due(&manifest.rules, now, windows, |breaker| asked.contains(breaker));
        let due: Vec<Rule> = due.into_iter().cloned().collect();
        asked.extend(due.iter().map(|rule| rule.breaker.clone()));
        (due, next_wakeup)
    }

    /// What the answer to `rule`'s question says of the pods as they are now; `None` when the policy has
    /// another rule there by now.
    pub fn answered(
        &mut self,
        rule: &Rule,
        answer: &Answer,
        now: Timestamp,
        observations: &[Observation],
        scope: &Scope,
    ) -> Option<Judged> {
        self.asked.remove(&rule.breaker);
        let rule = self.manifest.rules.iter().find(|current| *current == rule)?;
        Some(detect::asked::judge(rule, now, observations, answer, scope, &mut self.windows))
    }

    /// No answer will come any more: who waits for one asks again.
    pub fn forget_questions(&mut self) {
        for breaker in std::mem::take(&mut self.asked) {
            self.windows.of(&breaker).ask_again();
        }
    }

    /// Asks the breakers that are due: each answer replaces that breaker's last one
    /// ([`Verdicts::replace`](crate::decide::verdict::Verdicts::replace)).
    pub fn evaluate(&mut self, now: Timestamp, observations: &[Observation]) -> Evaluation {
        detect::evaluate(&self.manifest.rules, now, observations, &mut self.windows, Ask::Due)
    }

    /// What must be kept so that a successor goes on where this one is: small, and a constant while all is well.
    ///
    /// Due times are left out: a successor has no last word of any breaker, so it asks all of them at once.
    #[must_use]
    pub fn dump(&self) -> Bytes {
        serde_json::to_vec(&self.windows.without_due_times()).unwrap_or_default().into()
    }

    /// Goes on from what a predecessor dumped.
    ///
    /// # Errors
    /// The bytes are no dump; the memory is as it was.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.windows = serde_json::from_slice(bytes).map_err(|source| RestoreError { source })?;
        Ok(())
    }
}
