//! The validated policy of one service: what the gate and the detectors are allowed to rely on.
//!
//! Nothing here can hold nonsense: `api` turns a manifest into these types once, with every default
//! and every inheritance already resolved, so that the gate never asks "and if it is not set?".

use std::time::Duration;

use serde::Serialize;

/// Everything that is settled about one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// The resource's name.
    pub name: String,
    /// The service that it gates.
    pub service: String,
    /// A floor beside those of the breakers: what holds when there is no breaker at all.
    pub floor: FloorRule,
    /// What looks for bad pods.
    pub breakers: Vec<Breaker>,
    /// For pods that were withheld by a breaker that is not (or no longer) in this policy.
    pub default_activator: ActivatorStrategy,
    /// Percent of bad pods above which nothing is withheld; `None`: only the floor rules.
    pub panic_threshold: Option<u8>,
    /// Freeze: no withhold, admit or kill; restores below the floor go on.
    pub paused: bool,
    /// Give back what is withheld, then decide and report only.
    pub dry_run: bool,
    /// A cut that did not lower the share of bad pods among the serving ones within this time is taken back.
    pub revert_if_no_better: Option<Duration>,
}

/// The smallest number of pods that must serve, as the user wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FloorRule {
    /// `minPodsAvailableCount`.
    pub min_available_count: u32,
    /// `minPodsAvailableRatio`, percent of the desired size.
    pub min_available_ratio: Option<u8>,
}

impl FloorRule {
    /// The manifest's default: one pod, no ratio.
    pub const DEFAULT: Self = Self { min_available_count: 1, min_available_ratio: None };
}

/// One detector and the rules for what it finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breaker {
    /// Unique in the policy.
    pub name: String,
    /// How often the detector looks.
    pub evaluation_period: Duration,
    /// This breaker's floor; the largest of all holds.
    pub floor: FloorRule,
    /// How its pods come back.
    pub activator: ActivatorStrategy,
    /// What happens to its pods when it sees nothing.
    pub on_no_data: OnNoData,
    /// Percent of the serving pods that need a verdict before any of its verdicts counts.
    pub min_coverage: u8,
    /// Report what it would do, do nothing.
    pub dry_run: bool,
}

/// What a breaker without data does to the pods that it withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OnNoData {
    /// Nothing: the activator's time goes on as ever.
    Hold,
    /// They come back at once.
    Restore,
}

/// How withheld pods come back, or do not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ActivatorStrategy {
    /// What happens at the end of the retries.
    pub mode: ActivatorMode,
    /// The wait; with the retry modes, per retry.
    pub period: Duration,
    /// The most often that a pod is admitted again by a retry mode.
    pub max_retry: u32,
    /// The most pods that are paused at a time; the next one is killed.
    pub max_pause: u32,
    /// The cap of the growing wait.
    pub max_period: Duration,
    /// 0..1: by what share a wait may be longer, spread over the pods.
    pub jitter: f64,
    /// How many come back at once (within one evaluation); `None`: all.
    pub batch: Option<u32>,
    /// `None`: no limit of its own, the fleet's budget holds.
    pub max_kills_per_hour: Option<u32>,
}

/// The end of an activator's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ActivatorMode {
    /// Always back after one period.
    Periodic,
    /// Back after retry x period; after the last retry it is killed.
    RetryAndKill,
    /// Back after retry x period; after the last retry it is paused.
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
    /// For verdicts without any policy: half of the fleet stays, pods come back after ten seconds.
    #[must_use]
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
        }
    }

    /// The breaker of that name.
    #[must_use]
    pub fn breaker(&self, name: &str) -> Option<&Breaker> {
        self.breakers.iter().find(|breaker| breaker.name == name)
    }

    /// The activator for pods that `breaker` withheld.
    #[must_use]
    pub fn activator(&self, breaker: &str) -> &ActivatorStrategy {
        self.breaker(breaker).map_or(&self.default_activator, |breaker| &breaker.activator)
    }

    /// How long a returned batch is on trial before the next one: until the detector has looked again.
    #[must_use]
    pub fn trial(&self, breaker: &str) -> Duration {
        self.breaker(breaker).map_or(Duration::from_secs(5), |breaker| breaker.evaluation_period)
    }
}
