//! The detector of a breaker: which one, whether this process supports it, and its fields.

use std::time::Duration;

use super::{
    super::{
        Context, Detectors, Timing,
        fields::{self, DETECTORS},
        raw::{RawBreaker, RawContinuous, RawDiscrete, RawKeepalive, RawOutlier},
        report::Report,
    },
    forms,
    queries::QuerySource,
    sources::SourcesByName,
    take::Take,
};
#[cfg(test)]
use crate::decide::detect::PayloadFlag;
use crate::decide::detect::{
    Consecutive, Detector, Deviation, Direction, Discrete, Good, Outlier, OutlierSource, PayloadRule,
    SilenceRule, Values,
};

/// In the order of their words in the table of fields.
const DIRECTIONS: [Direction; 3] = [Direction::High, Direction::Low, Direction::Both];

/// The detector of the breaker at `path`; `None` when it has none or several.
pub(super) fn resolve(
    path: &str,
    raw: &RawBreaker,
    context: Context,
    sources: &SourcesByName,
    report: &mut Report<'_>,
) -> Option<Detector> {
    exactly_one(path, raw, report)?;
    stray(path, raw, report);
    let source = QuerySource::new(path, raw, sources, report);
    let detector = match raw {
        RawBreaker { keepalive: Some(raw), .. } => {
            keepalive(&format!("{path}.keepalive"), raw, context.timing, report)
        }
        RawBreaker { outlier: Some(raw), .. } => outlier(&format!("{path}.outlier"), raw, source, report),
        RawBreaker { discrete_value_out_of_list: Some(raw), .. } => {
            Some(discrete(&format!("{path}.discreteValueOutOfList"), raw, source, report))
        }
        RawBreaker { continuous_value_deviation: Some(deviation), .. } => {
            let mut take = Take { report, path };
            let direction = take.word("direction", raw.direction.as_deref(), DIRECTIONS);
            Some(continuous(
                &format!("{path}.continuousValueDeviation"),
                deviation,
                direction,
                source,
                report,
            ))
        }
        RawBreaker { custom_service: Some(service), .. } => {
            Some(Detector::Custom(source.custom(&format!("{path}.customService"), service, report)))
        }
        #[cfg(test)]
        RawBreaker { payload_flag: Some(pointer), .. } => Some(flag(path, pointer, report)),
        _ => None,
    }?;
    if context.detectors == Detectors::Keepalives && !detector.uses_keepalives_only() {
        let field = detector.field();
        report.add(
            &format!("{path}.{field}"),
            format!("{field} needs a source beside keepalives, which this process does not have yet"),
            "instead write keepalive, or outlier with a pointer",
        );
    }
    if context.detectors == Detectors::WithoutSecrets && raw.auth.is_some() {
        report.add(
            &format!("{path}.auth"),
            "needs a Secret, which only Kubernetes keeps",
            "remove it, and let a proxy beside this process log in to Prometheus",
        );
    }
    Some(detector)
}

fn exactly_one(path: &str, raw: &RawBreaker, report: &mut Report<'_>) -> Option<()> {
    let fields = serde_json::to_value(raw).unwrap_or_default();
    let is_set = |field: &&str| !fields[*field].is_null();
    let set: Vec<&str> = DETECTORS.iter().copied().filter(is_set).collect();
    match set[..] {
        [_] => return Some(()),
        // The mistake is a misspelt or mistyped detector.
        [] if report.has_mistake_inside(path) => {}
        [] => report.add(path, "has no detector", format!("write one of {}", DETECTORS.join(", "))),
        [first, second, ..] => report.add(
            &format!("{path}.{second}"),
            format!("is a second detector beside {first}"),
            "instead write it in a breaker of its own",
        ),
    }
    None
}

/// Fields without effect beside this detector.
fn stray(path: &str, raw: &RawBreaker, report: &mut Report<'_>) {
    if raw.direction.is_some() && raw.continuous_value_deviation.is_none() {
        let write = if raw.outlier.is_some() { "instead write it inside outlier" } else { "remove it" };
        report.add(&format!("{path}.direction"), "belongs to continuousValueDeviation", write);
    }
    let by_query = raw.discrete_value_out_of_list.is_some()
        || raw.continuous_value_deviation.is_some()
        || raw.outlier.as_ref().is_some_and(|outlier| outlier.prom_ql.is_some());
    if raw.auth.is_some() && raw.source.is_some() {
        report.add(&format!("{path}.auth"), "stands beside source", "instead write it into the source");
    }
    if raw.auth.is_some() && !by_query {
        report.add(&format!("{path}.auth"), "belongs to a detector that asks Prometheus", "remove it");
    }
    let by_service = raw.custom_service.is_some()
        || raw.outlier.as_ref().is_some_and(|outlier| outlier.custom_service.is_some());
    if raw.source.is_some() && !by_query && !by_service {
        report.add(&format!("{path}.source"), "belongs to a detector that asks a service", "remove it");
    }
}

fn keepalive(
    path: &str,
    raw: &RawKeepalive,
    timing: Option<Timing>,
    report: &mut Report<'_>,
) -> Option<Detector> {
    let bounded = raw.min.is_some() || raw.max.is_some() || raw.one_of.is_some();
    match (raw.silent_after, &raw.pointer) {
        (Some(seconds), None) if !bounded => {
            let mut take = Take { report, path };
            let after = take.seconds("silentAfter", Some(seconds));
            silence_fits(&mut take, after, timing);
            Some(Detector::Silence(SilenceRule { after }))
        }
        (Some(_), _) => report.refuse(
            path,
            "has both silentAfter and a rule for the payload",
            "instead write each in a breaker of its own",
        ),
        (None, Some(pointer)) => payload(path, raw, pointer, report),
        (None, None) if bounded => {
            report.missing(&format!("{path}.pointer"));
            None
        }
        (None, None) if report.has_mistake_inside(path) => None,
        (None, None) => {
            report.misfit(path, "has no rule");
            None
        }
    }
}

/// A limit on silence lies below the TTL, when the pod expires, and above two pings, because one may be late.
fn silence_fits(take: &mut Take<'_, '_>, after: Duration, timing: Option<Timing>) {
    let Some(Timing { ttl, ping_every }) = timing else { return };
    let shown = after.as_secs_f64();
    if after >= ttl {
        take.misfit("silentAfter", format!("is {shown}, not below KONTROL_TTL of {} s", ttl.as_secs_f64()));
    } else if after < ping_every * 2 {
        let pings = (ping_every * 2).as_secs_f64();
        take.misfit("silentAfter", format!("is {shown}, less than two pings of KONTROL_PING, {pings} s"));
    }
}

fn payload(path: &str, raw: &RawKeepalive, pointer: &str, report: &mut Report<'_>) -> Option<Detector> {
    let mut take = Take { report, path };
    let pointer = pointer_at(&mut take, pointer);
    let good = match (raw.min, raw.max, &raw.one_of) {
        (None, None, Some(values)) => Good::OneOf(take.list("oneOf", values)),
        (None, None, None) => {
            return take.report.refuse(
                path,
                "has a pointer and no bound",
                "write min, max or oneOf beside it",
            );
        }
        (_, _, Some(_)) => {
            let path = format!("{path}.oneOf");
            return take.report.refuse(&path, "stands beside min or max", "write one or the other");
        }
        (min, max, None) => {
            if let (Some(min), Some(max)) = (min, max)
                && min > max
            {
                take.add("min", format!("is {min}, above max of {max}"), "instead write a number up to max");
            }
            Good::Within { min, max }
        }
    };
    Some(Detector::Payload(PayloadRule { pointer, good }))
}

fn outlier(path: &str, raw: &RawOutlier, source: QuerySource, report: &mut Report<'_>) -> Option<Detector> {
    let mut take = Take { report, path };
    let queried = raw.prom_ql.is_some() || raw.prometheus_service.is_some() || raw.pod_name_key.is_some();
    let source = match &raw.pointer {
        Some(_) if queried || raw.custom_service.is_some() => {
            let other = if queried { "a query to Prometheus" } else { "customService" };
            let (path, what) = (format!("{path}.pointer"), format!("stands beside {other}"));
            return take.report.refuse(&path, &what, "write one or the other");
        }
        Some(pointer) => OutlierSource::Pointer(pointer_at(&mut take, pointer)),
        None if queried && raw.custom_service.is_some() => {
            let path = format!("{path}.customService");
            return take.report.refuse(
                &path,
                "stands beside a query to Prometheus",
                "write one or the other",
            );
        }
        None if raw.custom_service.is_some() => {
            let service = raw.custom_service.as_deref().unwrap_or_default();
            OutlierSource::Custom(source.custom(&format!("{path}.customService"), service, take.report))
        }
        None if queried => {
            let query = [&raw.prometheus_service, &raw.prom_ql, &raw.pod_name_key];
            OutlierSource::Query(source.query(&mut take, query))
        }
        None if take.report.has_mistake_inside(path) => return None,
        None => {
            take.report.misfit(path, "has no source of numbers");
            return None;
        }
    };
    let consecutive = consecutive(path, raw, take.report);
    let mut take = Take { report, path };
    let direction = take.word("direction", raw.direction.as_deref(), DIRECTIONS);
    Some(Detector::Outlier(Outlier {
        source,
        threshold: take.number("threshold", raw.threshold),
        min_peers: take.number("minPeers", raw.min_peers),
        min_deviation: take.number("minDeviation", raw.min_deviation),
        min_relative_deviation: take
            .number_if_set("minRelativeDeviation", raw.min_relative_deviation)
            .unwrap_or_else(|| min_relative_deviation(direction)),
        direction,
        consecutive,
    }))
}

/// A value below twice the median is no anomaly where high is bad, however small the spread. Where low is bad the
/// spread alone decides: a success ratio that falls from 0.99 to 0.8 has lost a fifth only.
fn min_relative_deviation(direction: Direction) -> f64 {
    const FIELD: &str = "spec.breakers[].outlier.minRelativeDeviation";
    match direction {
        Direction::High => fields::usual(FIELD),
        Direction::Low | Direction::Both => fields::otherwise(FIELD),
    }
}

fn consecutive(outlier: &str, raw: &RawOutlier, report: &mut Report<'_>) -> Consecutive {
    let raw = raw.consecutive.clone().unwrap_or_default();
    let path = format!("{outlier}.consecutive");
    let mut take = Take { report, path: &path };
    let of = take.number("of", raw.of);
    let bad = take.number("bad", raw.bad);
    if raw.bad.is_some_and(|bad| bad > of) {
        take.misfit("bad", format!("is {bad}"));
    }
    Consecutive { of, bad: bad.min(of) }
}

fn discrete(path: &str, raw: &RawDiscrete, source: QuerySource, report: &mut Report<'_>) -> Detector {
    let mut take = Take { report, path };
    let query = source.query(&mut take, [&raw.prometheus_service, &raw.prom_ql, &raw.pod_name_key]);
    let key = take.required("key", raw.key.as_deref());
    let good = raw.good_values.as_deref().filter(|values| !values.is_empty());
    let bad = raw.bad_values.as_deref().filter(|values| !values.is_empty());
    let values = match (good, bad) {
        (Some(good), None) => Values::Good(take.list("goodValues", good)),
        (None, Some(bad)) => Values::Bad(take.list("badValues", bad)),
        (Some(_), Some(_)) => {
            take.add("badValues", "stands beside goodValues", "write one of the two lists");
            Values::Good(Vec::new())
        }
        (None, None) => {
            if !take.report.has_mistake_inside(path) {
                take.report.add(path, "has neither goodValues nor badValues", "write one of the two lists");
            }
            Values::Good(Vec::new())
        }
    };
    let tolerance = take.number("tolerance", raw.tolerance);
    let min_activity = take.number("minActivity", raw.min_activity);
    Detector::Discrete(Discrete { query, key, values, tolerance, min_activity })
}

fn continuous(
    path: &str,
    raw: &RawContinuous,
    direction: Direction,
    source: QuerySource,
    report: &mut Report<'_>,
) -> Detector {
    let mut take = Take { report, path };
    let query = source.query(&mut take, [&raw.prometheus_service, &raw.prom_ql, &raw.pod_name_key]);
    let max_percent = take.number("maxDeviationPercent", raw.max_deviation_percent);
    Detector::Deviation(Deviation { query, max_percent, direction })
}

#[cfg(test)]
fn flag(path: &str, pointer: &str, report: &mut Report<'_>) -> Detector {
    let pointer = Take { report, path }.text("payloadFlag", pointer);
    Detector::Flag(PayloadFlag { pointer })
}

fn pointer_at(take: &mut Take<'_, '_>, pointer: &str) -> String {
    if !forms::is_pointer(pointer) {
        take.misfit("pointer", format!("is {pointer:?}, which is no JSON pointer"));
    }
    take.text("pointer", pointer)
}
