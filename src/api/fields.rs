//! Every field of the manifest once: what to write there and what holds when nothing is written. The
//! messages, the suggestions for misspelt fields, the reference in the docs and the schema that the API
//! server checks come from this table.

mod form;

pub use form::Form;
use form::{
    ANY_NUMBER, COUNT, DIRECTION, HOST_PATH, HOST_PORT, LABEL, PERCENT, POINTER_PATTERN, TEXT, above, list,
    number, text, whole,
};

/// One field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    /// Its path; `[]` stands for each item, and a breaker's `activator` has the fields of `defaultActivator`.
    pub path: &'static str,
    /// What the API server lets through there.
    pub form: Form,
    /// What belongs there, to follow "write".
    pub write: &'static str,
    /// What holds when it is left out; `-` where nothing does, `required` where it may not be.
    pub default: &'static str,
}

const fn field(path: &'static str, form: Form, write: &'static str, default: &'static str) -> Field {
    Field { path, form, write, default }
}

/// All fields, in the order of the reference.
pub const FIELDS: &[Field] = &[
    field("apiVersion", TEXT, "kubervisor.k8s.io/v1alpha1", "required"),
    field("kind", TEXT, "KubervisorService", "required"),
    field("metadata", Form::Map, "a map with at least a name", "required"),
    field(
        "metadata.name",
        TEXT,
        "a name of at most 63 characters of a-z, 0-9, - and ., such as web",
        "required",
    ),
    field("metadata.namespace", TEXT, "the name of a namespace, such as default", "-"),
    field("status", Form::Map, "nothing: the controller fills it", "-"),
    field("spec", Form::Map, "a map with at least service and breakers", "required"),
    field("spec.service", LABEL, SERVICE, "required"),
    field("spec.paused", Form::Flag, "true or false", "false"),
    field("spec.dryRun", Form::Flag, "true or false", "false"),
    field(
        "spec.panicThreshold",
        whole(1, 100),
        "a whole number of percent from 1 to 100, such as 50",
        "50 with keepalive or outlier",
    ),
    field(
        "spec.revertIfNoBetter",
        above(0.0, 86_400.0),
        "a number of seconds above 0 and at most 86400, such as 60",
        "-",
    ),
    field("spec.defaultActivator", Form::Map, "a map with fields such as mode and period", "{}"),
    field(
        "spec.defaultActivator.mode",
        Form::Words(&["periodic", "retryAndKill", "retryAndPause"]),
        "periodic, retryAndKill or retryAndPause",
        "periodic",
    ),
    field(
        "spec.defaultActivator.period",
        above(0.0, 31_536_000.0),
        "a number of seconds above 0 and at most 31536000, such as 10",
        "10",
    ),
    field(
        "spec.defaultActivator.maxRetryCount",
        COUNT,
        "a whole number of retries, 0 or more, such as 3",
        "3",
    ),
    field("spec.defaultActivator.maxPauseCount", COUNT, "a whole number of pods, 0 or more, such as 1", "1"),
    field(
        "spec.defaultActivator.maxPeriod",
        above(0.0, 31_536_000.0),
        "a number of seconds from period to 31536000, such as 300",
        "300, or period if that is longer",
    ),
    field(
        "spec.defaultActivator.jitter",
        number(0.0, 1.0),
        "a share of the wait from 0 to 1, such as 0.1",
        "0.1 with keepalive or outlier, else 0",
    ),
    field(
        "spec.defaultActivator.batch",
        whole(1, u32::MAX),
        "a whole number of pods, 1 or more, such as 2",
        "no limit",
    ),
    field(
        "spec.defaultActivator.maxKillsPerHour",
        COUNT,
        "a whole number of pods, 0 or more, such as 6",
        "no limit",
    ),
    field("spec.breakers", list(1, 32), "a list of 1 to 32 breakers", "required"),
    field("spec.breakers[]", Form::Map, "a map with at least a name and one detector", "-"),
    field(
        "spec.breakers[].name",
        LABEL,
        "a name no other breaker has, such as errors: a-z, 0-9 and -, a letter first",
        "required",
    ),
    field(
        "spec.breakers[].evaluationPeriod",
        above(0.01, 86_400.0),
        "a number of seconds above 0.01 and at most 86400, such as 5",
        "5",
    ),
    field(
        "spec.breakers[].minPodsAvailableCount",
        COUNT,
        "a whole number of pods, 0 or more, such as 1",
        "1",
    ),
    field(
        "spec.breakers[].minPodsAvailableRatio",
        PERCENT,
        "a whole number of percent from 0 to 100, such as 50",
        "-",
    ),
    field(
        "spec.breakers[].activator",
        Form::Map,
        "a map with fields such as mode and period",
        "spec.defaultActivator",
    ),
    field("spec.breakers[].onNoData", Form::Words(&["hold", "restore"]), "hold or restore", "hold"),
    field(
        "spec.breakers[].minCoveragePercent",
        PERCENT,
        "a whole number of percent from 0 to 100, such as 50",
        "50",
    ),
    field(
        "spec.breakers[].maxSampleAge",
        above(0.0, 86_400.0),
        "a number of seconds above 0 and at most 86400, such as 60",
        "60",
    ),
    field(
        "spec.breakers[].timeout",
        above(0.0, 300.0),
        "a number of seconds above 0 and at most 300, such as 5",
        "5",
    ),
    field("spec.breakers[].dryRun", Form::Flag, "true or false", "false"),
    field(
        "spec.breakers[].direction",
        DIRECTION,
        "high, low or both, beside continuousValueDeviation",
        "both",
    ),
    field("spec.breakers[].auth", Form::Map, "a map with bearerSecret or basicSecret", "-"),
    field("spec.breakers[].auth.bearerSecret", Form::Map, "a map with the name and the key of a Secret", "-"),
    field(
        "spec.breakers[].auth.bearerSecret.name",
        TEXT,
        "the name of a Secret in the same namespace",
        "required",
    ),
    field("spec.breakers[].auth.bearerSecret.key", TEXT, "the key that holds the token", "required"),
    field("spec.breakers[].auth.basicSecret", Form::Map, "a map with the name and the key of a Secret", "-"),
    field(
        "spec.breakers[].auth.basicSecret.name",
        TEXT,
        "the name of a Secret in the same namespace",
        "required",
    ),
    field("spec.breakers[].auth.basicSecret.key", TEXT, "the key that holds user:password", "required"),
    field(
        "spec.breakers[].keepalive",
        Form::Map,
        "a map with silentAfter, or with pointer and min, max or oneOf",
        "-",
    ),
    field(
        "spec.breakers[].keepalive.silentAfter",
        above(0.0, 86_400.0),
        "a number of seconds, at least two pings and below the TTL",
        "-",
    ),
    field("spec.breakers[].keepalive.pointer", text(POINTER_PATTERN), POINTER, "-"),
    field("spec.breakers[].keepalive.min", ANY_NUMBER, "a number, the smallest good value", "-"),
    field("spec.breakers[].keepalive.max", ANY_NUMBER, "a number, the largest good value", "-"),
    field("spec.breakers[].keepalive.oneOf", list(1, 64), "a list of 1 to 64 good values", "-"),
    field("spec.breakers[].keepalive.oneOf[]", Form::Any, "a good value, texts in quotes", "-"),
    field(
        "spec.breakers[].outlier",
        Form::Map,
        "a map with pointer, or with prometheusService, promQL and podNamekey",
        "-",
    ),
    field("spec.breakers[].outlier.pointer", text(POINTER_PATTERN), POINTER, "-"),
    field("spec.breakers[].outlier.prometheusService", text(HOST_PORT), PROMETHEUS, "-"),
    field("spec.breakers[].outlier.promQL", TEXT, "an instant query that gives each pod's number", "-"),
    field("spec.breakers[].outlier.podNamekey", TEXT, POD_NAME_KEY, "-"),
    field(
        "spec.breakers[].outlier.threshold",
        above(0.0, 1000.0),
        "a number of MADs above 0 and at most 1000, such as 3.5",
        "3.5",
    ),
    field(
        "spec.breakers[].outlier.minPeers",
        whole(3, u32::MAX),
        "a whole number of pods, 3 or more, such as 5",
        "5",
    ),
    field(
        "spec.breakers[].outlier.minDeviation",
        number(0.0, f64::INFINITY),
        "a number, 0 or more, in units of the value",
        "0",
    ),
    field(
        "spec.breakers[].outlier.minRelativeDeviation",
        number(0.0, f64::INFINITY),
        "a number, 0 or more, a share of the median, such as 0.5",
        "1 with direction high, else 0",
    ),
    field("spec.breakers[].outlier.direction", DIRECTION, "high, low or both", "high"),
    field(
        "spec.breakers[].outlier.consecutive",
        Form::Map,
        "a map with of and bad, such as {of: 5, bad: 3}",
        "{of: 5, bad: 3}",
    ),
    field(
        "spec.breakers[].outlier.consecutive.of",
        whole(1, 64),
        "a whole number of looks from 1 to 64, such as 5",
        "5",
    ),
    field(
        "spec.breakers[].outlier.consecutive.bad",
        whole(1, 64),
        "a whole number of looks from 1 to of, such as 3",
        "3, or of if that is less",
    ),
    field(
        "spec.breakers[].discreteValueOutOfList",
        Form::Map,
        "a map with prometheusService, promQL, key, podNamekey and goodValues or badValues",
        "-",
    ),
    field(
        "spec.breakers[].discreteValueOutOfList.prometheusService",
        text(HOST_PORT),
        PROMETHEUS,
        "required",
    ),
    field(
        "spec.breakers[].discreteValueOutOfList.promQL",
        TEXT,
        "an instant query that counts events",
        "required",
    ),
    field(
        "spec.breakers[].discreteValueOutOfList.key",
        TEXT,
        "the label that holds the value, such as code",
        "required",
    ),
    field("spec.breakers[].discreteValueOutOfList.podNamekey", TEXT, POD_NAME_KEY, "required"),
    field("spec.breakers[].discreteValueOutOfList.goodValues", list(0, 64), VALUES, "-"),
    field(
        "spec.breakers[].discreteValueOutOfList.goodValues[]",
        TEXT,
        "a text in quotes, such as \"200\"",
        "-",
    ),
    field("spec.breakers[].discreteValueOutOfList.badValues", list(0, 64), VALUES, "-"),
    field(
        "spec.breakers[].discreteValueOutOfList.badValues[]",
        TEXT,
        "a text in quotes, such as \"500\"",
        "-",
    ),
    field(
        "spec.breakers[].discreteValueOutOfList.tolerance",
        COUNT,
        "a whole number of percent, 0 or more, such as 50",
        "50",
    ),
    field(
        "spec.breakers[].discreteValueOutOfList.minActivity",
        COUNT,
        "a whole number of events, 0 or more, such as 2",
        "2",
    ),
    field(
        "spec.breakers[].continuousValueDeviation",
        Form::Map,
        "a map with prometheusService, promQL and podNamekey",
        "-",
    ),
    field(
        "spec.breakers[].continuousValueDeviation.prometheusService",
        text(HOST_PORT),
        PROMETHEUS,
        "required",
    ),
    field(
        "spec.breakers[].continuousValueDeviation.promQL",
        TEXT,
        "an instant query that gives each pod's value over the fleet's mean",
        "required",
    ),
    field("spec.breakers[].continuousValueDeviation.podNamekey", TEXT, POD_NAME_KEY, "required"),
    field(
        "spec.breakers[].continuousValueDeviation.maxDeviationPercent",
        above(0.0, f64::INFINITY),
        "a number of percent above 0, such as 75",
        "75",
    ),
    field(
        "spec.breakers[].customService",
        text(HOST_PATH),
        "host[:port][/path], such as detector:8080/pods",
        "-",
    ),
];

const SERVICE: &str =
    "the name of a Service in the same namespace, such as web: a-z, 0-9 and -, a letter first";
const POINTER: &str =
    "a JSON pointer into the payload, such as /http/errors: empty, or with a / before each step";
const PROMETHEUS: &str = "host:port, such as prometheus:9090, or a URL without a path";
const POD_NAME_KEY: &str = "the label that holds the pod's name, such as kubernetes_pod_name";
const VALUES: &str = "a list of 1 to 64 texts";

/// The field at `path`, whatever the indices in it.
#[must_use]
pub fn find(path: &str) -> Option<&'static Field> {
    let pattern = pattern(path);
    FIELDS.iter().find(|field| field.path == pattern)
}

/// What to write at `path`: a clause for a message.
#[must_use]
pub fn instead(path: &str) -> String {
    find(path).map_or_else(|| "remove it".to_owned(), |field| format!("instead write {}", field.write))
}

/// What to write for the field at `path`, whose last step is unknown: the nearest name there, and all of them.
#[must_use]
pub fn instead_of_unknown(path: &str) -> String {
    let path = pattern(path);
    let (parent, wrong) = path.rsplit_once('.').unwrap_or(("", &path));
    let siblings: Vec<&str> = FIELDS
        .iter()
        .filter_map(|field| {
            let (its_parent, name) = field.path.rsplit_once('.').unwrap_or(("", field.path));
            (its_parent == parent && !name.ends_with("[]")).then_some(name)
        })
        .collect();
    let likeness = |name: &&str| strsim::jaro_winkler(&name.to_lowercase(), &wrong.to_lowercase());
    let nearest = siblings
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|name| likeness(name) > 0.8);
    match nearest {
        Some(name) => format!("instead write {name}"),
        None => format!("instead write one of {}, or remove it", siblings.join(", ")),
    }
}

/// The path with `[]` for each index, and one name for both activators.
fn pattern(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = match c {
            '[' => true,
            ']' => false,
            _ => inside,
        };
        if !inside || c == '[' {
            pattern.push(c);
        }
    }
    match pattern.strip_prefix("spec.breakers[].activator.") {
        Some(rest) => format!("spec.defaultActivator.{rest}"),
        None => pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_both_activators_find_their_field() {
        assert_eq!(find("spec.breakers[12].keepalive.min").unwrap().default, "-");
        assert_eq!(find("spec.breakers[0].activator.mode").unwrap().default, "periodic");
        assert_eq!(find("spec.breakers[3]").unwrap().path, "spec.breakers[]");
        assert_eq!(find("spec.breakers[0].goodValues"), None);
    }

    #[test]
    fn a_misspelt_field_is_answered_with_the_nearest_name() {
        assert_eq!(instead_of_unknown("spec.breakers[0].keepAlive"), "instead write keepalive");
        assert_eq!(
            instead_of_unknown("spec.breakers[0].activator.maxretrycount"),
            "instead write maxRetryCount"
        );
        assert_eq!(
            instead_of_unknown("spec.breakers[1].discreteValueOutOfList.podNameKey"),
            "instead write podNamekey"
        );
        assert_eq!(
            instead_of_unknown("spec.breakers[0].outlier.consecutive.frobnicate"),
            "instead write one of of, bad, or remove it"
        );
    }
}
