//! Rules over several fields, in CEL; each message names what to write. The API server refuses rules whose estimated
//! cost is too high: `exists_one` over a list of `has()` is accepted, `filter().size()` and `matches()` are not.

use serde_json::{Value, json};

use crate::api::fields::{self, DETECTORS, Form};

const BREAKER: &str = "spec.breakers[]";
const KEEPALIVE: &str = "spec.breakers[].keepalive";
const OUTLIER: &str = "spec.breakers[].outlier";

/// The rules at `path` as the schema has them: (rule, message).
pub(super) fn at(path: &str) -> Vec<(String, String)> {
    let fixed = RULES
        .iter()
        .filter(|(at, ..)| *at == path)
        .map(|(_, holds, message)| ((*holds).into(), (*message).into()));
    (path == BREAKER).then(one_detector).into_iter().chain(fixed).collect()
}

fn one_detector() -> (String, String) {
    let is_set = |field: &&str| match fields::find(&format!("{BREAKER}.{field}")).map(|field| field.form) {
        Some(Form::Map) => format!("has(self.{field})"),
        _ => format!("has(self.{field}) && self.{field} != \"\""),
    };
    let set: Vec<String> = DETECTORS.iter().map(is_set).collect();
    (
        format!("[{}].exists_one(x, x)", set.join(", ")),
        format!(
            "a breaker has exactly one detector: write one of {}, and any other in a breaker of its own",
            DETECTORS.join(", ")
        ),
    )
}

/// All rules but the one that is made from the list of detectors.
const RULES: &[(&str, &str, &str)] = &[
    (
        "",
        "self.metadata.name.size() <= 63",
        "metadata.name becomes a label: write a name of at most 63 characters",
    ),
    (
        "spec",
        "self.breakers.all(b, !has(b.activator) || !has(b.activator.maxPeriod) || has(b.activator.period) || \
         !has(self.defaultActivator) || !has(self.defaultActivator.period) || \
         b.activator.maxPeriod >= self.defaultActivator.period)",
        "a breaker's activator.maxPeriod is less than the period of spec.defaultActivator: write a period beside it, or a longer maxPeriod",
    ),
    (
        BREAKER,
        "!has(self.direction) || self.direction == \"\" || has(self.continuousValueDeviation)",
        "direction belongs to continuousValueDeviation: remove it, or write it inside outlier",
    ),
    (
        BREAKER,
        "!has(self.auth) || !has(self.source) || self.source == \"\"",
        "auth stands beside source: write it into the source",
    ),
    (
        BREAKER,
        "!has(self.source) || self.source == \"\" || \
         !(has(self.discreteValueOutOfList) && has(self.discreteValueOutOfList.prometheusService) && \
           self.discreteValueOutOfList.prometheusService != \"\") && \
         !(has(self.continuousValueDeviation) && has(self.continuousValueDeviation.prometheusService) && \
           self.continuousValueDeviation.prometheusService != \"\") && \
         !(has(self.outlier) && has(self.outlier.prometheusService) && self.outlier.prometheusService != \"\")",
        "prometheusService stands beside source: write one of them",
    ),
    (
        BREAKER,
        "has(self.source) && self.source != \"\" || \
         (!has(self.discreteValueOutOfList) || has(self.discreteValueOutOfList.prometheusService) && \
           self.discreteValueOutOfList.prometheusService != \"\") && \
         (!has(self.continuousValueDeviation) || has(self.continuousValueDeviation.prometheusService) && \
           self.continuousValueDeviation.prometheusService != \"\") && \
         (!has(self.outlier) || !has(self.outlier.promQL) || self.outlier.promQL == \"\" || \
           has(self.outlier.prometheusService) && self.outlier.prometheusService != \"\")",
        "a query needs a server: write prometheusService beside promQL, or source",
    ),
    (
        BREAKER,
        "!has(self.auth) || has(self.discreteValueOutOfList) || has(self.continuousValueDeviation) || \
         (has(self.outlier) && has(self.outlier.promQL) && self.outlier.promQL != \"\")",
        "auth belongs to a detector that asks Prometheus: remove it, or write promQL",
    ),
    (
        "spec.breakers[].auth",
        "[has(self.bearerSecret), has(self.basicSecret)].exists_one(x, x)",
        "write exactly one of bearerSecret and basicSecret",
    ),
    (
        "spec.breakers[].discreteValueOutOfList",
        "[has(self.goodValues) && self.goodValues.size() > 0, has(self.badValues) && self.badValues.size() > 0]\
         .exists_one(x, x)",
        "write values into exactly one of goodValues and badValues",
    ),
    (
        KEEPALIVE,
        "[has(self.silentAfter), has(self.pointer)].exists_one(x, x)",
        "write exactly one of silentAfter, and pointer with min, max or oneOf; each in a breaker of its own",
    ),
    (
        KEEPALIVE,
        "!has(self.silentAfter) || !(has(self.min) || has(self.max))",
        "min and max are for the value at pointer: write them beside pointer, silentAfter in a breaker of its own",
    ),
    (
        KEEPALIVE,
        "!has(self.min) || !has(self.max) || self.min <= self.max",
        "min is above max: write a min up to max",
    ),
    (
        OUTLIER,
        "[has(self.pointer), has(self.promQL) && self.promQL != \"\" || \
         has(self.prometheusService) && self.prometheusService != \"\" || \
         has(self.podNamekey) && self.podNamekey != \"\", \
         has(self.customService) && self.customService != \"\"].exists_one(x, x)",
        "write exactly one of pointer, customService, and prometheusService with promQL and podNamekey",
    ),
    (
        OUTLIER,
        "has(self.pointer) || has(self.customService) && self.customService != \"\" || \
         (has(self.promQL) && self.promQL != \"\" && has(self.podNamekey) && self.podNamekey != \"\")",
        "a query needs all three: write prometheusService (or the breaker's source), promQL and podNamekey",
    ),
    (
        "spec.breakers[].outlier.consecutive",
        "!has(self.bad) || self.bad <= (has(self.of) ? self.of : 5)",
        "bad is more than of: write a bad up to of, which is 5 when left out",
    ),
    (
        "spec.sources[].headers[]",
        "[has(self.value) && self.value != \"\", has(self.from)].exists_one(x, x)",
        "write exactly one of value and from",
    ),
    (
        "spec.sources[].tls",
        "has(self.certificate) == has(self.key)",
        "a client's certificate needs its key: write both, or neither",
    ),
    (
        "spec.sources[].auth",
        "[has(self.bearer), has(self.basic), has(self.oauth2), has(self.sigV4)].exists_one(x, x)",
        "write exactly one of bearer, basic, oauth2 and sigV4",
    ),
    (
        "spec.sources[].tls.ca",
        "[has(self.secret) && self.secret != \"\", has(self.configMap) && self.configMap != \"\"].exists_one(x, x)",
        "write exactly one of secret and configMap, and key",
    ),
    (
        "spec.defaultActivator",
        "!has(self.maxPeriod) || !has(self.period) || self.maxPeriod >= self.period",
        "maxPeriod is less than period: write a longer maxPeriod",
    ),
];

/// `oneOf` holds any JSON value, which CEL cannot read: a pointer has a bound, and one kind of bound only, here as a
/// schema, which has no message.
pub(super) fn of_one_of() -> Value {
    json!([
        {"anyOf": [
            {"required": ["silentAfter"]}, {"required": ["min"]}, {"required": ["max"]}, {"required": ["oneOf"]},
        ]},
        {"not": {"required": ["silentAfter", "oneOf"]}},
        {"not": {"required": ["min", "oneOf"]}},
        {"not": {"required": ["max", "oneOf"]}},
    ])
}
