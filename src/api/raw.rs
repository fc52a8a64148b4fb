//! The manifest as a user writes it: the original's fields in their original spelling, and this project's additions.
//! All fields are optional and unchecked here, so that the checks can report every mistake at once.
//!
//! `null` means unset, as `""` does, which the reader takes out: clients of 2018 send them for fields that are left out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The whole resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawResource {
    /// `kubervisor.k8s.io/v1alpha1`.
    pub api_version: Option<String>,
    /// `KubervisorService`.
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
    pub service: Option<String>,
    /// Servers that breakers refer to by name.
    pub sources: Option<Vec<RawSource>>,
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
    /// Keep the last serving pod of a node.
    pub keep_one_per_node: Option<bool>,
    /// Tell pods about decisions.
    pub notify: Option<RawNotify>,
}

/// One detector and its rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawBreaker {
    /// Its name.
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
    pub custom_service: Option<String>,
    /// Keepalives: silence, or a payload value out of bounds.
    pub keepalive: Option<RawKeepalive>,
    /// A number far from that of the peers.
    pub outlier: Option<RawOutlier>,
    /// JSON pointer of the detector that only tests have.
    #[cfg(test)]
    pub payload_flag: Option<String>,
    /// How its pods come back.
    pub activator: Option<RawActivator>,
    /// `hold` or `restore`.
    pub on_no_data: Option<String>,
    /// Percent of the fleet that needs a verdict.
    pub min_coverage_percent: Option<u32>,
    /// Seconds.
    pub max_sample_age: Option<f64>,
    /// Seconds.
    pub timeout: Option<f64>,
    /// Of the deviation detector: `high`, `low` or `both`.
    pub direction: Option<String>,
    /// For Prometheus.
    pub auth: Option<RawAuth>,
    /// One of the sources.
    pub source: Option<String>,
    /// The label that holds the pod's namespace.
    pub namespace_key: Option<String>,
    /// Seconds.
    pub min_pod_age: Option<f64>,
    /// Report what it would do, do nothing.
    pub dry_run: Option<bool>,
    /// Tell its pods about decisions.
    pub notify: Option<RawNotify>,
}

/// `discreteValueOutOfList`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawDiscrete {
    /// host:port.
    pub prometheus_service: Option<String>,
    /// The query.
    #[serde(rename = "promQL")]
    pub prom_ql: Option<String>,
    /// The label that holds the value.
    pub key: Option<String>,
    /// The label that holds the pod's name; the original's spelling.
    #[serde(rename = "podNamekey")]
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
    pub prometheus_service: Option<String>,
    /// The query: each pod's value over the fleet's mean.
    #[serde(rename = "promQL")]
    pub prom_ql: Option<String>,
    /// The label that holds the pod's name.
    #[serde(rename = "podNamekey")]
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
    pub prometheus_service: Option<String>,
    /// The query.
    #[serde(rename = "promQL")]
    pub prom_ql: Option<String>,
    /// The label that holds the pod's name.
    #[serde(rename = "podNamekey")]
    pub pod_name_key: Option<String>,
    /// A service that gives numbers.
    pub custom_service: Option<String>,
    /// In MADs.
    pub threshold: Option<f64>,
    /// Fewer values than this: no verdict.
    pub min_peers: Option<u32>,
    /// In units of the value.
    pub min_deviation: Option<f64>,
    /// As a share of the median.
    pub min_relative_deviation: Option<f64>,
    /// `high`, `low` or `both`.
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

/// One of `sources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawSource {
    /// Its name.
    pub name: Option<String>,
    /// Its address.
    pub url: Option<String>,
    /// Sent with each request.
    pub headers: Option<Vec<RawHeader>>,
    /// Trust and identity.
    pub tls: Option<RawTls>,
    /// Credentials.
    pub auth: Option<RawSourceAuth>,
}

/// One of `sources[].headers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawHeader {
    /// Its name.
    pub name: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// The place of its value.
    pub from: Option<RawCredential>,
}

/// `sources[].tls`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawTls {
    /// PEM of the authorities.
    pub ca: Option<RawCredential>,
    /// PEM of the client's certificate.
    pub certificate: Option<RawCredential>,
    /// PEM of its key.
    pub key: Option<RawCredential>,
    /// In place of the URL's host.
    pub server_name: Option<String>,
}

/// `sources[].auth`: one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawSourceAuth {
    /// A token.
    pub bearer: Option<RawCredential>,
    /// User and password.
    pub basic: Option<RawCredential>,
    /// Client credentials.
    pub oauth2: Option<RawOAuth2>,
    /// AWS.
    pub sig_v4: Option<RawSigV4>,
}

/// `sources[].auth.oauth2`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawOAuth2 {
    /// Where tokens are issued.
    pub token_url: Option<String>,
    /// The client.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<RawCredential>,
    /// Requested.
    pub scopes: Option<Vec<String>>,
}

/// `sources[].auth.sigV4`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawSigV4 {
    /// The region.
    pub region: Option<String>,
    /// The service's signing name.
    pub service: Option<String>,
    /// The key's id.
    pub access_key_id: Option<RawCredential>,
    /// The key.
    pub secret_access_key: Option<RawCredential>,
}

/// Where a secret text is. `file` and `variable` are for the operator's own list of sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawCredential {
    /// A Secret.
    pub secret: Option<String>,
    /// A ConfigMap.
    pub config_map: Option<String>,
    /// The key in it.
    pub key: Option<String>,
    /// A file.
    pub file: Option<String>,
    /// An environment variable.
    pub variable: Option<String>,
}

/// Where a pod is told about decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawNotify {
    /// A number, or the name of a container's port.
    pub port: Option<Value>,
    /// With the slash in front.
    pub path: Option<String>,
    /// The key of the signature.
    pub hmac_secret: Option<RawSecretKey>,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RawSecretKey {
    /// The Secret.
    pub name: Option<String>,
    /// Its key.
    pub key: Option<String>,
}
