//! The validated policy of one service.
//!
//! `api` makes these types from a manifest once, with all defaults and inherited values filled in, so
//! that the gate needs no case for a missing value.

use std::time::Duration;

use serde::Serialize;

/// The policy of one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// The resource's name.
    pub name: String,
    /// The Service whose pods it gates.
    pub service: String,
    /// A floor besides those of the breakers; the only one without breakers.
    pub floor: FloorRule,
    /// The breakers, in order of the manifest.
    pub breakers: Vec<Breaker>,
    /// The activator of pods withheld by a callback or by a breaker that is not in this policy.
    pub default_activator: ActivatorStrategy,
    /// Percent of bad pods above which nothing is withheld; `None`: no panic but for silence.
    pub panic_threshold: Option<u8>,
    /// No withhold, admit or kill; only restores up to the floor.
    pub paused: bool,
    /// Admit every pod, then only report what would be withheld.
    pub dry_run: bool,
    /// A withdrawal that does not lower the share of bad pods of the serving ones within this time is reverted.
    pub revert_if_no_better: Option<Duration>,
    /// `metadata.generation` of the spec that it was made from; `None` outside a cluster.
    #[serde(skip)]
    pub generation: Option<i64>,
    /// The last serving pod of a node is kept; `None`: where the Service's `internalTrafficPolicy` is `Local`.
    pub keep_one_per_node: Option<bool>,
}

/// A floor as in the manifest; the larger of the two holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FloorRule {
    /// `minPodsAvailableCount`, in pods.
    pub min_available_count: u32,
    /// `minPodsAvailableRatio`, in percent of desired.
    pub min_available_ratio: Option<u8>,
}

impl FloorRule {
    /// The manifest's default: one pod, no ratio.
    pub const DEFAULT: Self = Self { min_available_count: 1, min_available_ratio: None };
}

/// One detector, and the rules for the pods that it judges bad.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breaker {
    /// Unique in the policy.
    pub name: String,
    /// Time between two runs of the detector.
    pub evaluation_period: Duration,
    /// Its floor; the largest of all breakers holds.
    pub floor: FloorRule,
    /// How the pods that it withheld are admitted.
    pub activator: ActivatorStrategy,
    /// What happens to the pods that it withheld while it has no data.
    pub on_no_data: OnNoData,
    /// Percent of the serving pods that need a verdict, or none of its verdicts counts.
    pub min_coverage: u8,
    /// Its verdicts are only reported.
    pub dry_run: bool,
}

/// What happens to withheld pods while their breaker has no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OnNoData {
    /// The activator goes on.
    Hold,
    /// They are admitted at once.
    Restore,
}

/// When withheld pods are admitted, and what follows the last retry.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ActivatorStrategy {
    /// See [`ActivatorMode`].
    pub mode: ActivatorMode,
    /// The wait before an admit; in the retry modes per retry.
    pub period: Duration,
    /// Most admits of a pod in the retry modes.
    pub max_retry: u32,
    /// Most pods paused at a time; the next one is killed.
    pub max_pause: u32,
    /// Longest wait in the retry modes, without jitter.
    pub max_period: Duration,
    /// 0..1: the share of the wait that may be added, different for each pod.
    pub jitter: f64,
    /// Most pods admitted within one evaluation period; `None`: all.
    pub batch: Option<u32>,
    /// Most kills within one hour; `None`: no limit.
    pub max_kills_per_hour: Option<u32>,
}

/// What an activator does with a pod after its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ActivatorMode {
    /// Admits it after one period.
    Periodic,
    /// Admits it after retry x period; kills it after the last retry.
    RetryAndKill,
    /// Admits it after retry x period; pauses it after the last retry.
    RetryAndPause,
}

impl Default for ActivatorStrategy {
    fn default() -> Self {
        Self {
            mode: ActivatorMode::Periodic,
            period: Duration::from_secs(10),
            max_retry: 3,
            max_pause: 1,
            max_period: Duration::from_secs(300),
            jitter: 0.0,
            batch: None,
            max_kills_per_hour: None,
        }
    }
}

impl Policy {
    /// For callbacks without a manifest: a floor of 50 %, and admits after 10 s.
    pub fn without_manifest(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            service: name.to_owned(),
            floor: FloorRule { min_available_ratio: Some(50), ..FloorRule::DEFAULT },
            breakers: Vec::new(),
            default_activator: ActivatorStrategy::default(),
            panic_threshold: None,
            paused: false,
            dry_run: false,
            revert_if_no_better: None,
            generation: None,
            keep_one_per_node: None,
        }
    }

    /// The breaker of this name.
    pub fn breaker(&self, name: &str) -> Option<&Breaker> {
        self.breakers.iter().find(|breaker| breaker.name == name)
    }

    /// The activator for pods that `breaker` withheld.
    pub fn activator(&self, breaker: &str) -> &ActivatorStrategy {
        self.breaker(breaker).map_or(&self.default_activator, |breaker| &breaker.activator)
    }

    /// Time between two batches: one evaluation period of the breaker, 5 s for other sources.
    pub fn trial(&self, breaker: &str) -> Duration {
        self.breaker(breaker).map_or(Duration::from_secs(5), |breaker| breaker.evaluation_period)
    }
}
