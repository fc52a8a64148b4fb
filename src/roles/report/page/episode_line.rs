//! A row of the table of episodes.

use serde::Serialize;

use super::{
    super::{
        model::{EpisodeEnd, PolicyReport, ReplayEpisode},
        text,
    },
    moment,
};
use crate::{decide::time::Timestamp, roles::view::chart::FleetChart};

/// An episode, as the template writes it.
#[derive(Serialize)]
pub(super) struct EpisodeLine {
    pod: String,
    /// Its row in the time line, if it has one.
    row: Option<usize>,
    from: String,
    to: String,
    minutes: String,
    breaker: String,
    /// The breaker's place among those with a chart.
    chart: Option<usize>,
    value: String,
    threshold: String,
    median: String,
    retry: u32,
    ended: &'static str,
    reason: String,
}

impl EpisodeLine {
    pub(super) fn new(episode: &ReplayEpisode, policy: &PolicyReport, chart: &FleetChart) -> Self {
        let evidence = &episode.evidence;
        Self {
            pod: episode.pod.clone(),
            row: chart.row(&episode.pod),
            from: moment(episode.from),
            to: end(episode.from, episode.to),
            minutes: format!("{:.1}", episode.minutes()),
            breaker: episode.breaker.clone(),
            chart: policy.breakers.iter().position(|breaker| breaker.name == episode.breaker),
            value: text::number(evidence.value),
            threshold: text::number(evidence.threshold),
            median: text::number(evidence.median),
            retry: episode.retry,
            ended: match (episode.killed_at, episode.paused_at, episode.ended) {
                (Some(_), ..) => "killed",
                (None, Some(_), EpisodeEnd::Lasting) => "paused",
                (_, _, EpisodeEnd::Admitted) => "admitted",
                (_, _, EpisodeEnd::Deleted) => "deleted",
                (_, _, EpisodeEnd::Lasting) => "lasting",
                (_, _, EpisodeEnd::Over) => "over",
            },
            // The numbers have columns of their own.
            reason: match episode.reason.split_once(", value ") {
                Some((what, _)) if episode.evidence.value.is_some() => what.to_owned(),
                _ => episode.reason.clone(),
            },
        }
    }
}

/// The day only where it is another one.
fn end(from: Timestamp, to: Timestamp) -> String {
    let (from, to) = (moment(from), moment(to));
    match (from.split_once(' '), to.split_once(' ')) {
        (Some((day, _)), Some((same, time))) if day == same => time.to_owned(),
        _ => to,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::at, *};

    #[test]
    fn an_end_has_its_day_only_where_it_is_another_one() {
        assert_eq!(end(at(0), at(60)), "22:14:20");
        assert_eq!(end(at(0), at(7200)), "2023-11-15 00:13:20");
    }
}
