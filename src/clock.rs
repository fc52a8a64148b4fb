//! The only place that reads clocks.
//!
//! The wall clock is read once, at the start; then it advances with the monotonic one, so that a jump of the
//! system's wall clock has no effect, and under tokio's paused time both clocks are virtual.
//!
//! Both also advance while the machine is suspended, unlike the timers' `CLOCK_MONOTONIC`: others' leases and ages
//! go on meanwhile.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::decide::time::{Moment, Timestamp};

/// The process's clocks: made once at the start, then copied.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_at_origin: Timestamp,
    suspended_at_origin: Duration,
    simulated: Option<&'static SimulatedClock>,
}

/// How the clock of a simulated machine differs from the timers' clock: several machines share one process.
#[derive(Debug)]
pub struct SimulatedClock {
    /// Its speed, in percent of the timers'.
    pub percent: u32,
    /// How long the machine was suspended so far, in ms: a jump of the clock.
    pub suspended: AtomicU64,
}

impl Clock {
    /// Reads both clocks.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: Instant::now(),
            suspended_at_origin: suspended(),
            wall_at_origin: Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(0)),
            simulated: None,
        }
    }

    /// The clock of a simulated machine, which shows `wall` now.
    pub fn simulated(wall: Timestamp, machine: &'static SimulatedClock) -> Self {
        Self {
            origin: Instant::now(),
            suspended_at_origin: Duration::ZERO,
            wall_at_origin: wall,
            simulated: Some(machine),
        }
    }

    /// Now, on the monotonic clock.
    pub fn now(&self) -> Moment {
        Moment::after_origin(self.elapsed())
    }

    /// Now, on the wall clock.
    pub fn wall(&self) -> Timestamp {
        self.wall_at_origin + self.elapsed()
    }

    /// The instant to hand to `tokio::time::sleep_until` for `moment`.
    pub fn instant(&self, moment: Moment) -> Instant {
        let awake = moment.since_origin().saturating_sub(self.suspended());
        self.origin + self.simulated.map_or(awake, |machine| awake * 100 / machine.percent)
    }

    fn elapsed(&self) -> Duration {
        let awake = self.origin.elapsed();
        self.simulated.map_or(awake, |machine| awake * machine.percent / 100) + self.suspended()
    }

    fn suspended(&self) -> Duration {
        let known = match self.simulated {
            Some(machine) => Duration::from_millis(machine.suspended.load(Ordering::Relaxed)),
            None => suspended(),
        };
        known.saturating_sub(self.suspended_at_origin)
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

/// How long the machine was suspended since it was booted; in whole ms, the same between two suspensions.
fn suspended() -> Duration {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    let settled = settle(known, read(ClockId::Monotonic), read(ClockId::Boottime), read(ClockId::Monotonic));
    if settled != known {
        KNOWN.store(settled, Ordering::Relaxed);
    }
    Duration::from_millis(settled)
}

/// The suspended time in ms, from two readings of the monotonic clock around one of the other. `known` stays for
/// differences within the accuracy of the readings, and when this thread was delayed between them.
fn settle(known: u64, before: Duration, boot: Duration, after: Duration) -> u64 {
    const ACCURACY: Duration = Duration::from_millis(20);
    let measured = u64::try_from(boot.saturating_sub(before).as_millis()).unwrap_or(u64::MAX);
    let delayed = after.saturating_sub(before) > ACCURACY;
    if delayed || u128::from(measured.abs_diff(known)) <= ACCURACY.as_millis() { known } else { measured }
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A point on the clock that advances while the machine is suspended (`CLOCK_BOOTTIME`): for actions that depend on
/// recent data.
#[derive(Clone, Copy, Debug)]
pub struct Awake(Duration);

impl Awake {
    /// Now.
    pub fn now() -> Self {
        Self(read(ClockId::Boottime))
    }

    /// The time since then, asleep or awake.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// Growing delays between attempts, with jitter; they never end.
pub fn backoff(first: Duration, longest: Duration) -> ExponentialBackoff {
    let growing = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest);
    growing.with_jitter().without_max_times().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_counts_once_and_a_delay_between_two_readings_does_not() {
        let ms = Duration::from_millis;
        assert_eq!(settle(0, ms(1000), ms(1000), ms(1000)), 0);
        assert_eq!(settle(0, ms(1000), ms(8000), ms(1000)), 7000);
        assert_eq!(settle(7000, ms(2000), ms(9003), ms(2003)), 7000, "3 ms between the readings");
        assert_eq!(settle(7000, ms(2000), ms(12_000), ms(5000)), 7000, "stopped between the readings");
        assert_eq!(settle(7000, ms(2000), ms(12_000), ms(2000)), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_from_before_a_suspension_is_due_earlier_on_the_timers_clock() {
        let clock = Clock::start();
        let slept = Clock {
            suspended_at_origin: clock.suspended_at_origin.saturating_sub(Duration::from_secs(3)),
            ..clock
        };
        // A machine that was never suspended cannot have been suspended for less.
        if slept.suspended_at_origin != clock.suspended_at_origin {
            assert_eq!(slept.now().since(clock.now()), Duration::from_secs(3));
        }
        assert_eq!(
            slept.instant(slept.now() + Duration::from_secs(5)),
            Instant::now() + Duration::from_secs(5)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_already_waits_for_no_timer() {
        let (clock, before) = (Clock::start(), Instant::now());
        clock.sleep_until(Some(clock.now())).await;
        assert_eq!(Instant::now(), before);
    }
}
