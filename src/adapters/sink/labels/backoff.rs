//! Backoff of one resource's writes: 100 ms after a failed write, doubling up to 2 s, or as long as a 429 asks for.

use std::time::Duration;

use tokio::time::Instant;

use super::errors::WriteRefusal;

const MIN: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(2);

pub(super) struct RetryBackoff {
    until: Option<Instant>,
    pause: Duration,
}

impl Default for RetryBackoff {
    fn default() -> Self {
        Self { until: None, pause: MIN }
    }
}

impl RetryBackoff {
    /// How long no request may be sent; `None`: one may be sent now.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn wait(&mut self, after: Duration) {
        self.until = self.until.max(Some(Instant::now() + after));
    }

    /// Whether the refusal is a failure of the API server.
    pub(super) fn learn(&mut self, refusal: &WriteRefusal) -> bool {
        match refusal {
            WriteRefusal::Busy(after) => self.wait(*after),
            WriteRefusal::Silence | WriteRefusal::Other(_) | WriteRefusal::Forbidden(_) => {}
            WriteRefusal::Conflict | WriteRefusal::Late | WriteRefusal::Gone => return false,
        }
        true
    }

    /// Ends a plan's writes: waits longer each time some `failed`, and starts anew once none did.
    pub(super) fn after(&mut self, failed: bool) {
        if failed {
            self.wait(self.pause);
            self.pause = (self.pause * 2).min(MAX);
        } else {
            self.pause = MIN;
        }
    }
}
