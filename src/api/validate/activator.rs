//! How withheld pods come back: a breaker's activator inherits each field that it leaves out from
//! `spec.defaultActivator`, and that one takes the default of the table of fields.

use super::{
    super::{
        fields,
        raw::{RawActivator, RawSpec},
        report::Report,
    },
    take::Take,
};
use crate::decide::policy::{ActivatorMode, ActivatorStrategy};

const DEFAULT: &str = "spec.defaultActivator";

/// `spec.defaultActivator`.
pub(super) fn default(spec: &RawSpec, report: &mut Report<'_>) -> ActivatorStrategy {
    settle(DEFAULT, &RawActivator::default(), spec, false, report)
}

/// A breaker's strategy; a new detector has another default of `jitter`.
pub(super) fn of_breaker(
    breaker: &str,
    own: Option<&RawActivator>,
    spec: &RawSpec,
    is_new: bool,
    report: &mut Report<'_>,
) -> ActivatorStrategy {
    let own = own.cloned().unwrap_or_default();
    settle(&format!("{breaker}.activator"), &own, spec, is_new, report)
}

fn settle(
    path: &str,
    own: &RawActivator,
    spec: &RawSpec,
    is_new: bool,
    report: &mut Report<'_>,
) -> ActivatorStrategy {
    let inherited = spec.default_activator.clone().unwrap_or_default();
    // A mistake is reported where the value was written; the report takes one mistake for each path.
    let at = |is_own: bool| if is_own { path } else { DEFAULT };
    let mode = Take { report, path: at(own.mode.is_some()) }.word(
        "mode",
        own.mode.as_deref().or(inherited.mode.as_deref()),
        [ActivatorMode::Periodic, ActivatorMode::RetryAndKill, ActivatorMode::RetryAndPause],
    );
    let period =
        Take { report, path: at(own.period.is_some()) }.seconds("period", own.period.or(inherited.period));
    let cap = own.max_period.or(inherited.max_period);
    let mut max_period = Take { report, path: at(own.max_period.is_some()) }.seconds("maxPeriod", cap);
    if max_period < period {
        // A cap of the default gives way to a breaker's own longer period.
        let contradicts =
            own.max_period.is_some() || (inherited.max_period.is_some() && own.period.is_none());
        if contradicts {
            let what =
                format!("is {}, less than the period of {}", max_period.as_secs_f64(), period.as_secs_f64());
            Take { report, path: at(own.max_period.is_some()) }.misfit("maxPeriod", what);
        }
        max_period = period;
    }
    let jitter = Take { report, path: at(own.jitter.is_some()) }
        .number_if_set("jitter", own.jitter.or(inherited.jitter));
    let usual_jitter = if is_new { fields::usual } else { fields::otherwise };
    ActivatorStrategy {
        mode,
        period,
        max_retry: Take { report, path: at(false) }
            .number("maxRetryCount", own.max_retry_count.or(inherited.max_retry_count)),
        max_pause: Take { report, path: at(false) }
            .number("maxPauseCount", own.max_pause_count.or(inherited.max_pause_count)),
        max_period,
        jitter: jitter.unwrap_or_else(|| usual_jitter("spec.defaultActivator.jitter")),
        batch: Take { report, path: at(own.batch.is_some()) }
            .number_if_set("batch", own.batch.or(inherited.batch)),
        max_kills_per_hour: own.max_kills_per_hour.or(inherited.max_kills_per_hour),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::located;

    #[test]
    fn without_any_field_it_is_the_strategy_of_verdicts_without_a_policy() {
        let documents = located::read("{}").unwrap();
        let mut report = Report::new(&documents[0]);
        assert_eq!(default(&RawSpec::default(), &mut report), ActivatorStrategy::default());
        assert!(report.is_empty());
    }
}
