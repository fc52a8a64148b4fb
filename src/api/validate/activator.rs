//! How pods come back: a breaker's activator takes each field that it leaves out from the resource's
//! default, and that one from the original's defaults.

use super::{
    super::raw::{RawActivator, RawSpec},
    super::report::Report,
    take::Take,
};
use crate::decide::policy::{ActivatorMode, ActivatorStrategy};

const DEFAULT: &str = "spec.defaultActivator";
/// The longest wait, one year in seconds.
const LONGEST: f64 = 31_536_000.0;

/// The resource's default.
pub(super) fn default(spec: &RawSpec, report: &mut Report<'_>) -> ActivatorStrategy {
    settle(DEFAULT, &RawActivator::default(), spec, 0.0, report)
}

/// A breaker's strategy; `jitter` holds where neither it nor the default has one.
pub(super) fn of_breaker(
    breaker: &str,
    own: Option<&RawActivator>,
    spec: &RawSpec,
    jitter: f64,
    report: &mut Report<'_>,
) -> ActivatorStrategy {
    let own = own.cloned().unwrap_or_default();
    settle(&format!("{breaker}.activator"), &own, spec, jitter, report)
}

fn settle(
    path: &str,
    own: &RawActivator,
    spec: &RawSpec,
    jitter: f64,
    report: &mut Report<'_>,
) -> ActivatorStrategy {
    let inherited = spec.default_activator.clone().unwrap_or_default();
    let base = ActivatorStrategy::default();
    // Whoever wrote the field is blamed for it; the report blames the default's fields once for all.
    let writer = |is_own: bool| if is_own { path } else { DEFAULT };
    let mode = Take { report, path: writer(own.mode.is_some()) }.word(
        "mode",
        own.mode.as_deref().or(inherited.mode.as_deref()),
        &[
            ("periodic", ActivatorMode::Periodic),
            ("retryAndKill", ActivatorMode::RetryAndKill),
            ("retryAndPause", ActivatorMode::RetryAndPause),
        ],
        base.mode,
    );
    let period = Take { report, path: writer(own.period.is_some()) }.seconds(
        "period",
        own.period.or(inherited.period),
        base.period.as_secs_f64(),
        (0.0, LONGEST),
    );
    let cap = own.max_period.or(inherited.max_period);
    let mut max_period = Take { report, path: writer(own.max_period.is_some()) }.seconds(
        "maxPeriod",
        cap,
        base.max_period.as_secs_f64(),
        (0.0, LONGEST),
    );
    if max_period < period {
        // A cap of the default gives way to a breaker's own longer period.
        let contradicts =
            own.max_period.is_some() || (inherited.max_period.is_some() && own.period.is_none());
        if contradicts {
            let what =
                format!("is {}, less than the period of {}", max_period.as_secs_f64(), period.as_secs_f64());
            Take { report, path: writer(own.max_period.is_some()) }.misfit("maxPeriod", what);
        }
        max_period = period;
    }
    ActivatorStrategy {
        mode,
        period,
        max_retry: own.max_retry_count.or(inherited.max_retry_count).unwrap_or(base.max_retry),
        max_pause: own.max_pause_count.or(inherited.max_pause_count).unwrap_or(base.max_pause),
        max_period,
        jitter: Take { report, path: writer(own.jitter.is_some()) }.number(
            "jitter",
            own.jitter.or(inherited.jitter),
            jitter,
            0.0,
            1.0,
        ),
        batch: own.batch.or(inherited.batch).map(|batch| {
            Take { report, path: writer(own.batch.is_some()) }.number("batch", Some(batch), 1, 1, u32::MAX)
        }),
        max_kills_per_hour: own.max_kills_per_hour.or(inherited.max_kills_per_hour),
    }
}
