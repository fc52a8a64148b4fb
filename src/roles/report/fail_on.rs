//! `--fail-on`: what a run of CI fails on, with exit code 3.

use clap::ValueEnum;

use super::model::{DecisionKind, PolicyReport, ReportModel};
use crate::exit::Exit;

/// What a run of CI may fail on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FailOn {
    /// A pod would have been withheld.
    Withheld,
    /// Most of the fleet looked bad at once.
    Panic,
    /// The floor was reached, or fewer pods served.
    Floor,
    /// A breaker had too few verdicts.
    NoData,
}

impl FailOn {
    /// As it is written.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Panic => "panic",
            Self::Floor => "floor",
            Self::NoData => "no-data",
        }
    }

    /// Whether it occurred under the policy.
    pub(super) fn occurred(self, policy: &PolicyReport) -> bool {
        match self {
            Self::Withheld => policy.summary.episodes > 0,
            Self::Panic => !policy.panics.is_empty(),
            Self::Floor => !policy.floor_reached.is_empty() || !policy.below_floor.is_empty(),
            // Without a fleet there is no alarm about it.
            Self::NoData => {
                let no_fleet =
                    policy.kind == DecisionKind::Replay && policy.summary.least_above_floor.is_none();
                no_fleet || !policy.no_data.is_empty()
            }
        }
    }
}

/// The exit code of the reports.
///
/// # Errors
/// 3 if something occurred that is named, else 1 for a partial report.
pub(super) fn conclude(models: &[ReportModel], fail_on: &[FailOn]) -> Result<(), Exit> {
    let policies = || models.iter().flat_map(|model| &model.policies);
    let occurred = |what: &&FailOn| policies().any(|policy| what.occurred(policy));
    let found: Vec<&str> = fail_on.iter().filter(occurred).map(|what| what.word()).collect();
    if !found.is_empty() {
        return Err(Exit::Found(format!("--fail-on: {} occurred", found.join(", "))));
    }
    match models.iter().find_map(|model| model.partial.as_ref()) {
        Some(why) => Err(Exit::Failed(anyhow::anyhow!("the report is partial; {why}"))),
        None => Ok(()),
    }
}
