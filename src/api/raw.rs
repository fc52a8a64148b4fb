//! The manifest as a user writes it: the original's field names, spelled as the original spelled
//! them, and this project's additions. Nothing is required and nothing is checked here, so that the
//! checks can report every mistake at once.
//!
//! Clients of 2018 send `null` and `""` for what they leave out: both mean unset.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The whole resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawResource {
    /// `kubervisor.k8s.io/v1alpha1`.
    #[serde(default, deserialize_with = "unset")]
    pub api_version: Option<String>,
    /// `KubervisorService`.
    #[serde(default, deserialize_with = "unset")]
    pub kind: Option<String>,
    /// Kubernetes' own: only name, namespace and labels matter here.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    /// What is asked for.
    #[serde(default)]
    pub spec: Option<RawSpec>,
    /// What was found: never read from a manifest.
    #[serde(default, skip_serializing)]
    pub status: Option<Value>,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawSpec {
    /// The Service.
    #[serde(default, deserialize_with = "unset")]
    pub service: Option<String>,
    /// The breakers.
    #[serde(default)]
    pub breakers: Option<Vec<RawBreaker>>,
    /// The activator of breakers without their own, field by field.
    #[serde(default)]
    pub default_activator: Option<RawActivator>,
    /// Decide everything, change nothing.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// Freeze.
    #[serde(default)]
    pub paused: Option<bool>,
    /// Percent of bad pods above which nothing is withheld.
    #[serde(default)]
    pub panic_threshold: Option<u32>,
    /// Seconds after which a cut that did not help is taken back.
    #[serde(default)]
    pub revert_if_no_better: Option<f64>,
}

/// One detector and its rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawBreaker {
    /// Its name.
    #[serde(default, deserialize_with = "unset")]
    pub name: Option<String>,
    /// Seconds.
    #[serde(default)]
    pub evaluation_period: Option<f64>,
    /// Floor in pods.
    #[serde(default)]
    pub min_pods_available_count: Option<u32>,
    /// Floor in percent.
    #[serde(default)]
    pub min_pods_available_ratio: Option<u32>,
    /// Detector of the original.
    #[serde(default)]
    pub discrete_value_out_of_list: Option<RawDiscrete>,
    /// Detector of the original.
    #[serde(default)]
    pub continuous_value_deviation: Option<RawContinuous>,
    /// Detector of the original: host[:port][/path].
    #[serde(default, deserialize_with = "unset")]
    pub custom_service: Option<String>,
    /// Keepalives: silence, or a payload value out of bounds.
    #[serde(default)]
    pub keepalive: Option<RawKeepalive>,
    /// A number far from that of the peers.
    #[serde(default)]
    pub outlier: Option<RawOutlier>,
    /// How its pods come back.
    #[serde(default)]
    pub activator: Option<RawActivator>,
    /// `hold` or `restore`.
    #[serde(default, deserialize_with = "unset")]
    pub on_no_data: Option<String>,
    /// Percent of the fleet that needs a verdict.
    #[serde(default)]
    pub min_coverage_percent: Option<u32>,
    /// Seconds.
    #[serde(default)]
    pub max_sample_age: Option<f64>,
    /// Seconds.
    #[serde(default)]
    pub timeout: Option<f64>,
    /// Of the deviation detector: `high`, `low` or `both`.
    #[serde(default, deserialize_with = "unset")]
    pub direction: Option<String>,
    /// For Prometheus.
    #[serde(default)]
    pub auth: Option<RawAuth>,
    /// Report what it would do, do nothing.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// `discreteValueOutOfList`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawDiscrete {
    /// host:port.
    #[serde(default, deserialize_with = "unset")]
    pub prometheus_service: Option<String>,
    /// The query.
    #[serde(default, rename = "promQL", deserialize_with = "unset")]
    pub prom_ql: Option<String>,
    /// The label that holds the value.
    #[serde(default, deserialize_with = "unset")]
    pub key: Option<String>,
    /// The label that holds the pod's name; the original's spelling.
    #[serde(default, rename = "podNamekey", deserialize_with = "unset")]
    pub pod_name_key: Option<String>,
    /// All others are bad.
    #[serde(default)]
    pub good_values: Option<Vec<String>>,
    /// All others are good.
    #[serde(default)]
    pub bad_values: Option<Vec<String>>,
    /// Percent.
    #[serde(default)]
    pub tolerance: Option<u32>,
    /// Events.
    #[serde(default)]
    pub min_activity: Option<u32>,
}

/// `continuousValueDeviation`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawContinuous {
    /// host:port.
    #[serde(default, deserialize_with = "unset")]
    pub prometheus_service: Option<String>,
    /// The query: each pod's value over the fleet's mean.
    #[serde(default, rename = "promQL", deserialize_with = "unset")]
    pub prom_ql: Option<String>,
    /// The label that holds the pod's name.
    #[serde(default, rename = "podNamekey", deserialize_with = "unset")]
    pub pod_name_key: Option<String>,
    /// Percent.
    #[serde(default)]
    pub max_deviation_percent: Option<f64>,
}

/// `keepalive`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawKeepalive {
    /// Seconds.
    #[serde(default)]
    pub silent_after: Option<f64>,
    /// RFC 6901; "" is the whole payload, so it is not unset.
    #[serde(default)]
    pub pointer: Option<String>,
    /// The smallest good value.
    #[serde(default)]
    pub min: Option<f64>,
    /// The largest good value.
    #[serde(default)]
    pub max: Option<f64>,
    /// The good values.
    #[serde(default)]
    pub one_of: Option<Vec<Value>>,
}

/// `outlier`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawOutlier {
    /// RFC 6901; "" is the whole payload, so it is not unset.
    #[serde(default)]
    pub pointer: Option<String>,
    /// host:port.
    #[serde(default, deserialize_with = "unset")]
    pub prometheus_service: Option<String>,
    /// The query.
    #[serde(default, rename = "promQL", deserialize_with = "unset")]
    pub prom_ql: Option<String>,
    /// The label that holds the pod's name.
    #[serde(default, rename = "podNamekey", deserialize_with = "unset")]
    pub pod_name_key: Option<String>,
    /// In MADs.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// Fewer values than this: no verdict.
    #[serde(default)]
    pub min_peers: Option<u32>,
    /// In units of the value.
    #[serde(default)]
    pub min_deviation: Option<f64>,
    /// As a share of the median.
    #[serde(default)]
    pub min_relative_deviation: Option<f64>,
    /// `high`, `low` or `both`.
    #[serde(default, deserialize_with = "unset")]
    pub direction: Option<String>,
    /// m of n windows.
    #[serde(default)]
    pub consecutive: Option<RawConsecutive>,
}

/// `outlier.consecutive`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawConsecutive {
    /// n.
    #[serde(default)]
    pub of: Option<u32>,
    /// m.
    #[serde(default)]
    pub bad: Option<u32>,
}

/// `activator` and `defaultActivator`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawActivator {
    /// `periodic`, `retryAndKill` or `retryAndPause`.
    #[serde(default, deserialize_with = "unset")]
    pub mode: Option<String>,
    /// Seconds.
    #[serde(default)]
    pub period: Option<f64>,
    /// Retries.
    #[serde(default)]
    pub max_retry_count: Option<u32>,
    /// Pods.
    #[serde(default)]
    pub max_pause_count: Option<u32>,
    /// Seconds.
    #[serde(default)]
    pub max_period: Option<f64>,
    /// Share of the wait.
    #[serde(default)]
    pub jitter: Option<f64>,
    /// Pods.
    #[serde(default)]
    pub batch: Option<u32>,
    /// Kills.
    #[serde(default)]
    pub max_kills_per_hour: Option<u32>,
}

/// `auth`: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawAuth {
    /// A bearer token.
    #[serde(default)]
    pub bearer_secret: Option<RawSecretKey>,
    /// `user:password`.
    #[serde(default)]
    pub basic_secret: Option<RawSecretKey>,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawSecretKey {
    /// The Secret.
    #[serde(default, deserialize_with = "unset")]
    pub name: Option<String>,
    /// Its key.
    #[serde(default, deserialize_with = "unset")]
    pub key: Option<String>,
}

/// A text of which `null` and `""` mean that it was left out.
fn unset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}
