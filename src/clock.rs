//! The only place that reads clocks.
//!
//! The wall clock is read once, at the start; then it advances with the monotonic one, so that a jump of the
//! system's wall clock has no effect, and under tokio's paused time both clocks are virtual.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use crate::decide::time::{Moment, Timestamp};

/// The process's clocks: made once at the start, then copied.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_at_origin: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: Instant::now(),
            wall_at_origin: Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(0)),
        }
    }

    /// Now, on the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::after_origin(self.origin.elapsed())
    }

    /// Now, on the wall clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.wall_at_origin + self.origin.elapsed()
    }

    /// The instant to hand to `tokio::time::sleep_until` for `moment`.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.origin + moment.since_origin()
    }

    /// Sleeps until `moment`, for ever without one. Returns at once when it is due, because the timer's
    /// resolution is 1 ms.
    pub async fn sleep_until(&self, moment: Option<Moment>) {
        match moment {
            Some(moment) if moment <= self.now() => {}
            Some(moment) => tokio::time::sleep_until(self.instant(moment)).await,
            None => std::future::pending().await,
        }
    }
}

/// A point on the clock that advances while the machine is suspended (`CLOCK_BOOTTIME`): for actions that depend on
/// recent data.
#[derive(Clone, Copy, Debug)]
pub struct Awake(Duration);

impl Awake {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let whole = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(whole, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// The time since then, asleep or awake.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_already_waits_for_no_timer() {
        let (clock, before) = (Clock::start(), Instant::now());
        clock.sleep_until(Some(clock.now())).await;
        assert_eq!(Instant::now(), before);
    }
}
