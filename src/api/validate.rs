//! From the raw manifest to a policy: every check beyond a field's type, every default, every inheritance. A failed
//! check takes the default and goes on, so that all mistakes are reported at once; the policy is returned only without
//! any mistake.

mod activator;
mod detectors;
mod forms;
mod notify;
mod queries;
mod sources;
mod take;
mod window;

use std::collections::HashMap;

use serde_json::{Map, Value};

pub(super) use self::sources::SourcesByName;
use self::take::Take;
use super::{
    API_VERSION, Context, KIND, Manifest, fields,
    raw::{RawBreaker, RawResource, RawSource, RawSpec},
    report::{Report, describe},
};
use crate::decide::{
    detect::{Detector, Rule},
    policy::{Breaker, FloorRule, OnNoData, Policy},
};

/// The manifest, unless the report has a mistake.
pub(super) fn resource(raw: &RawResource, context: Context, report: &mut Report<'_>) -> Option<Manifest> {
    identify(raw, report);
    let (name, namespace) = metadata(raw.metadata.as_ref(), report);
    let Some(spec) = &raw.spec else {
        report.missing("spec");
        return None;
    };
    let (policy, rules) = policy(spec, name, context, report);
    let notify = notify::rules(spec, report);
    report.is_empty().then(|| Manifest { namespace, policy, rules, notify, line: report.line_of("") })
}

fn identify(raw: &RawResource, report: &mut Report<'_>) {
    for (path, found, expected) in [("apiVersion", &raw.api_version, API_VERSION), ("kind", &raw.kind, KIND)]
    {
        match found {
            None => report.missing(path),
            Some(found) if found != expected => report.misfit(path, format!("is {found:?}")),
            Some(_) => {}
        }
    }
}

fn metadata(metadata: Option<&Map<String, Value>>, report: &mut Report<'_>) -> (String, Option<String>) {
    let mut text = |field: &str| {
        let path = format!("metadata.{field}");
        match metadata.and_then(|map| map.get(field)).filter(|value| !value.is_null() && *value != "") {
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                report.misfit(&path, format!("is {}", describe(other)));
                None
            }
            None => None,
        }
    };
    let (name, namespace) = (text("name"), text("namespace"));
    match &name {
        None => report.missing("metadata.name"),
        Some(name) if !forms::is_resource_name(name) => {
            report.misfit("metadata.name", format!("is {name:?}, {} characters", name.chars().count()));
        }
        Some(_) => {}
    }
    if let Some(namespace) = namespace.as_ref().filter(|name| !forms::is_resource_name(name)) {
        report.misfit("metadata.namespace", format!("is {namespace:?}"));
    }
    (name.unwrap_or_default(), namespace)
}

fn policy(spec: &RawSpec, name: String, context: Context, report: &mut Report<'_>) -> (Policy, Vec<Rule>) {
    let mut take = Take { report, path: "spec" };
    let service = take.label("service", spec.service.as_deref());
    let panic_threshold = take.percent_if_set("panicThreshold", spec.panic_threshold);
    let revert_if_no_better = take.seconds_if_set("revertIfNoBetter", spec.revert_if_no_better);
    let default_activator = activator::default(spec, report);
    let sources = sources::of_manifest(spec.sources.as_deref(), context, report);
    let (breakers, rules) = breakers(spec, context, &sources, report);
    let sees_keepalives = rules.iter().any(|rule| is_new(&rule.detector));
    let policy = Policy {
        name,
        service,
        floor: FloorRule { min_available_count: 0, min_available_ratio: None },
        breakers,
        default_activator,
        panic_threshold: panic_threshold
            .or_else(|| sees_keepalives.then(|| fields::usual("spec.panicThreshold"))),
        paused: spec.paused.unwrap_or(false),
        dry_run: spec.dry_run.unwrap_or(false),
        revert_if_no_better,
        generation: None,
        keep_one_per_node: spec.keep_one_per_node,
    };
    (policy, rules)
}

fn breakers(
    spec: &RawSpec,
    context: Context,
    sources: &SourcesByName,
    report: &mut Report<'_>,
) -> (Vec<Breaker>, Vec<Rule>) {
    let raw = spec.breakers.as_deref().unwrap_or_default();
    let most = fields::find("spec.breakers").map_or(0, |field| field.form.most());
    match raw.len() {
        0 if spec.breakers.is_none() => report.missing("spec.breakers"),
        0 => report.misfit("spec.breakers", "is empty"),
        many if many > most => report.misfit("spec.breakers", format!("has {many} items")),
        _ => {}
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    let (mut breakers, mut rules) = (Vec::new(), Vec::new());
    for (index, raw) in raw.iter().enumerate().take(most) {
        let path = format!("spec.breakers[{index}]");
        if let Some(name) = raw.name.as_deref()
            && let Some(first) = names.insert(name, index)
        {
            report.misfit(&format!("{path}.name"), format!("is {name:?}, as that of spec.breakers[{first}]"));
        }
        if let Some((breaker, rule)) = breaker(&path, raw, spec, context, sources, report) {
            breakers.push(breaker);
            rules.push(rule);
        }
    }
    (breakers, rules)
}

fn breaker(
    path: &str,
    raw: &RawBreaker,
    spec: &RawSpec,
    context: Context,
    sources: &SourcesByName,
    report: &mut Report<'_>,
) -> Option<(Breaker, Rule)> {
    let mut take = Take { report, path };
    let name = take.label("name", raw.name.as_deref());
    let every = take.seconds("evaluationPeriod", raw.evaluation_period);
    let floor = FloorRule {
        min_available_count: take.number("minPodsAvailableCount", raw.min_pods_available_count),
        min_available_ratio: take.percent_if_set("minPodsAvailableRatio", raw.min_pods_available_ratio),
    };
    let min_coverage = take
        .percent_if_set("minCoveragePercent", raw.min_coverage_percent)
        .unwrap_or_else(|| fields::usual("spec.breakers[].minCoveragePercent"));
    let on_no_data = take.word("onNoData", raw.on_no_data.as_deref(), [OnNoData::Hold, OnNoData::Restore]);
    let detector = detectors::resolve(path, raw, context, sources, report);
    let is_new = detector.as_ref().is_some_and(is_new);
    let activator = activator::of_breaker(path, raw.activator.as_ref(), spec, is_new, report);
    let breaker = Breaker {
        name: name.clone(),
        evaluation_period: every,
        floor,
        activator,
        on_no_data,
        min_coverage,
        dry_run: raw.dry_run.unwrap_or(false),
    };
    Some((breaker, Rule { breaker: name, every, detector: detector? }))
}

/// The sources of an operator's list.
pub(super) fn operator_sources(raw: &[RawSource], report: &mut Report<'_>) -> SourcesByName {
    sources::list(raw, sources::Author::Operator, report)
}

/// A detector that the original does not have; the original's keep its defaults.
fn is_new(detector: &Detector) -> bool {
    matches!(detector, Detector::Silence(_) | Detector::Payload(_) | Detector::Outlier(_))
}
