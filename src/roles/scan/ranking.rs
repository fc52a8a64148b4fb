//! How useful a proposal is, as its replay shows.

use crate::roles::report::model::ReplaySummary;

/// More pods at once than this, in percent of the wanted ones, are not outliers any more.
const MANY_PERCENT: f64 = 30.0;

/// The most useful first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Usefulness {
    /// It would have withheld single pods.
    Finds,
    /// It would have withheld none.
    Quiet,
    /// It would have withheld too many, or too often.
    Excessive,
    /// Too few pods had a verdict for much of the time.
    Blind,
    /// It could not be replayed.
    Unknown,
}

impl Usefulness {
    /// What a replay of so many minutes and pods says about its policy.
    pub(super) fn of(summary: &ReplaySummary, pods: usize, minutes: f64) -> Self {
        let restless = summary.flaps * 2 > summary.episodes;
        let many = summary.highest_share_percent.is_some_and(|share| share > MANY_PERCENT);
        if pods == 0 || summary.no_data_minutes.is_some_and(|blind| blind * 2.0 > minutes) {
            Self::Blind
        } else if summary.panics.is_some_and(|panics| panics > 0) || many || restless {
            Self::Excessive
        } else if summary.episodes > 0 {
            Self::Finds
        } else {
            Self::Quiet
        }
    }

    /// What follows from it.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Finds => "It finds single pods: look at them, then apply the dry run.",
            Self::Quiet => "It objects to no pod: it costs nothing until one deviates.",
            Self::Excessive => {
                "It would have acted too often: raise minDeviation or minRelativeDeviation, and compare with `kubervisor \
                 report --set`."
            }
            Self::Blind => {
                "For more than half of the time too few pods had a verdict: too few requests, or series that come and go."
            }
            Self::Unknown => "It could not be replayed.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usefulness(pods: usize, summary: &ReplaySummary) -> Usefulness {
        Usefulness::of(summary, pods, 60.0)
    }

    #[test]
    fn single_outliers_come_before_quiet_then_excessive_then_blind_proposals() {
        let some =
            ReplaySummary { episodes: 2, highest_share_percent: Some(8.0), ..ReplaySummary::default() };
        let order = [
            usefulness(12, &some),
            usefulness(12, &ReplaySummary::default()),
            usefulness(12, &ReplaySummary { panics: Some(1), ..some.clone() }),
            usefulness(12, &ReplaySummary { no_data_minutes: Some(31.0), ..some.clone() }),
        ];
        assert_eq!(order, [Usefulness::Finds, Usefulness::Quiet, Usefulness::Excessive, Usefulness::Blind]);
        assert!(order.is_sorted());
        assert_eq!(usefulness(12, &ReplaySummary { flaps: 2, ..some.clone() }), Usefulness::Excessive);
        assert_eq!(
            usefulness(12, &ReplaySummary { highest_share_percent: Some(31.0), ..some.clone() }),
            Usefulness::Excessive
        );
        assert_eq!(usefulness(0, &some), Usefulness::Blind);
    }
}
