//! The same breakers inside a master that has a policy: no process, no callback needed.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    api::Manifest,
    decide::{
        detect::{self, Ask, Evaluation, Observation, Windows},
        time::Timestamp,
    },
};

/// The breakers of one policy and their memory.
#[derive(Clone, Debug)]
pub struct InProcessBreakers {
    manifest: Arc<Manifest>,
    windows: Windows,
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
        Self { manifest, windows: Windows::default() }
    }

    /// Another policy from now on; breakers that keep their name keep their memory.
    pub fn replace(&mut self, manifest: Arc<Manifest>) {
        self.manifest = manifest;
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
