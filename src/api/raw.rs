//! The manifest as a user writes it: the original's fields in their original spelling, and this project's additions.
//! All fields are optional and unchecked here, so that the checks can report every mistake at once.
//!
//! `null` and `""` mean unset: clients of 2018 send them for fields that are left out.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The whole resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawResource {
    /// `kubervisor.k8s.io/v1alpha1`.
    #[serde(deserialize_with = "unset")]
    pub api_version: Option<String>,
    /// `KubervisorService`.
    #[serde(deserialize_with = "unset")]
    pub kind: Option<String>,
    /// Kubernetes' own: only name, namespace and labels matter here.
    pub metadata: Option<Map<String, Value>>,
    /// The desired state.
    pub spec: Option<RawSpec>,
    /// The observed state: ignored in a manifest.
    #[serde(skip_serializing)]
    pub status: Option<Value>,
}

/// The desired state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawSpec {
    /// The Service.
    #[serde(deserialize_with = "unset")]
    pub service: Option<String>,
    /// The breakers.
    pub breakers: Option<Vec<RawBreaker>>,
    /// The activator of breakers without their own, field by field.
    pub default_activator: Option<RawActivator>,
    /// Decide everything, change nothing.
    pub dry_run: Option<bool>,
    /// Freeze.
    pub paused: Option<bool>,
    /// Percent of bad pods above which nothing is withheld.
    pub panic_threshold: Option<u32>,
    /// Seconds after which a cut that did not help is taken back.
    pub revert_if_no_better: Option<f64>,
}

/// One detector and its rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawBreaker {
    /// Its name.
    #[serde(deserialize_with = "unset")]
    pub name: Option<String>,
    /// Seconds.
    pub evaluation_period: Option<f64>,
    /// Floor in pods.
    pub min_pods_available_count: Option<u32>,
    /// Floor in percent.
    pub min_pods_available_ratio: Option<u32>,
    /// Detector of the original.
    pub discrete_value_out_of_list: Option<RawDiscrete>,
    /// Detector of the original.
    pub continuous_value_deviation: Option<RawContinuous>,
    /// Detector of the original: `host[:port][/path]`.
    #[serde(deserialize_with = "unset")]
    pub custom_service: Option<String>,
    /// Keepalives: silence, or a payload value out of bounds.
    pub keepalive: Option<RawKeepalive>,
    /// A number far from that of the peers.
    pub outlier: Option<RawOutlier>,
    /// How its pods come back.
    pub activator: Option<RawActivator>,
    /// `hold` or `restore`.
    #[serde(deserialize_with = "unset")]
    pub on_no_data: Option<String>,
    /// Percent of the fleet that needs a verdict.
    pub min_coverage_percent: Option<u32>,
    /// Seconds.
    pub max_sample_age: Option<f64>,
    /// Seconds.
    pub timeout: Option<f64>,
    /// Of the deviation detector: `high`, `low` or `both`.
    #[serde(deserialize_with = "unset")]
    pub direction: Option<String>,
    /// For Prometheus.
    pub auth: Option<RawAuth>,
    /// Report what it would do, do nothing.
    pub dry_run: Option<bool>,
}

/// `discreteValueOutOfList`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawDiscrete {
    /// host:port.
    #[serde(deserialize_with = "unset")]
    pub prometheus_service: Option<String>,
    /// The query.
    #[serde(rename = "promQL", deserialize_with = "unset")]
    pub prom_ql: Option<String>,
    /// The label that holds the value.
    #[serde(deserialize_with = "unset")]
    pub key: Option<String>,
    /// The label that holds the pod's name; the original's spelling.
    #[serde(rename = "podNamekey", deserialize_with = "unset")]
    pub pod_name_key: Option<String>,
    /// All others are bad.
    pub good_values: Option<Vec<String>>,
    /// All others are good.
    pub bad_values: Option<Vec<String>>,
    /// Percent.
    pub tolerance: Option<u32>,
    /// Events.
    pub min_activity: Option<u32>,
}

/// `continuousValueDeviation`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawContinuous {
    /// host:port.
    #[serde(deserialize_with = "unset")]
    pub prometheus_service: Option<String>,
    /// The query: each pod's value over the fleet's mean.
    #[serde(rename = "promQL", deserialize_with = "unset")]
    pub prom_ql: Option<String>,
    /// The label that holds the pod's name.
    #[serde(rename = "podNamekey", deserialize_with = "unset")]
    pub pod_name_key: Option<String>,
    /// Percent.
    pub max_deviation_percent: Option<f64>,
}

/// `keepalive`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawKeepalive {
    /// Seconds.
    pub silent_after: Option<f64>,
    /// RFC 6901; "" is the whole payload, so it is not unset.
    pub pointer: Option<String>,
    /// The smallest good value.
    pub min: Option<f64>,
    /// The largest good value.
    pub max: Option<f64>,
    /// The good values.
    pub one_of: Option<Vec<Value>>,
}

/// `outlier`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawOutlier {
    /// RFC 6901; "" is the whole payload, so it is not unset.
    pub pointer: Option<String>,
    /// host:port.
    #[serde(deserialize_with = "unset")]
    pub prometheus_service: Option<String>,
    /// The query.
    #[serde(rename = "promQL", deserialize_with = "unset")]
    pub prom_ql: Option<String>,
    /// The label that holds the pod's name.
    #[serde(rename = "podNamekey", deserialize_with = "unset")]
    pub pod_name_key: Option<String>,
    /// In MADs.
    pub threshold: Option<f64>,
    /// Fewer values than this: no verdict.
    pub min_peers: Option<u32>,
    /// In units of the value.
    pub min_deviation: Option<f64>,
    /// As a share of the median.
    pub min_relative_deviation: Option<f64>,
    /// `high`, `low` or `both`.
    #[serde(deserialize_with = "unset")]
    pub direction: Option<String>,
    /// m of n windows.
    pub consecutive: Option<RawConsecutive>,
}

/// `outlier.consecutive`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawConsecutive {
    /// n.
    pub of: Option<u32>,
    /// m.
    pub bad: Option<u32>,
}

/// `activator` and `defaultActivator`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawActivator {
    /// `periodic`, `retryAndKill` or `retryAndPause`.
    #[serde(deserialize_with = "unset")]
    pub mode: Option<String>,
    /// Seconds.
    pub period: Option<f64>,
    /// Retries.
    pub max_retry_count: Option<u32>,
    /// Pods.
    pub max_pause_count: Option<u32>,
    /// Seconds.
    pub max_period: Option<f64>,
    /// Share of the wait.
    pub jitter: Option<f64>,
    /// Pods.
    pub batch: Option<u32>,
    /// Kills.
    pub max_kills_per_hour: Option<u32>,
}

/// `auth`: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawAuth {
    /// A bearer token.
    pub bearer_secret: Option<RawSecretKey>,
    /// `user:password`.
    pub basic_secret: Option<RawSecretKey>,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawSecretKey {
    /// The Secret.
    #[serde(deserialize_with = "unset")]
    pub name: Option<String>,
    /// Its key.
    #[serde(deserialize_with = "unset")]
    pub key: Option<String>,
}

/// A text of which `null` and `""` mean that it was left out.
fn unset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}
