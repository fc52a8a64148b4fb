//! The numbers of a policy, from what was recorded of its replay.

use std::collections::BTreeMap;

use super::{
    model::{DecisionKind, FleetSpan, PolicyReport, ReplayEpisode, ReplaySummary, WorstPod, minutes},
    recorder::ReplayRecorder,
    variants::PolicyVariant,
};
use crate::decide::time::Timestamp;

/// Pods that are named as the worst.
const WORST: usize = 10;
/// A withdrawal so soon after the same pod's return is a flap.
const FLAP_SECONDS: u64 = 3600;

impl PolicyReport {
    /// The report about a policy whose replay ended at `end`.
    pub(super) fn new(
        variant: PolicyVariant,
        namespace: &str,
        mut recorder: ReplayRecorder,
        end: Timestamp,
    ) -> Self {
        let spans = recorder.finish(end);
        let score = recorder.score();
        let ReplayRecorder { ended: episodes, dropped, breakers, picture, floor, .. } = recorder;
        let length = |spans: &[FleetSpan]| {
            Some(spans.iter().map(|span| minutes(span.from, span.to)).fold(0.0, |all, one| all + one))
        };
        let summary = ReplaySummary {
            evaluations: Some(breakers.iter().map(|breaker| breaker.evaluations).sum()),
            episodes: episodes.len() + dropped,
            most_withheld_at_once: floor.most_withheld,
            highest_share_percent: Some(floor.highest_share),
            least_above_floor: floor.least_above,
            near_floor_minutes: Some(floor.near_seconds / 60.0),
            floor_reached_minutes: length(&spans.floor_reached),
            panics: Some(spans.panics.len()),
            panic_minutes: length(&spans.panics),
            no_data_minutes: length(&spans.no_data),
            kills: Some(episodes.iter().filter(|episode| episode.killed_at.is_some()).count()),
            pauses: Some(episodes.iter().filter(|episode| episode.paused_at.is_some()).count()),
            ..of_episodes(&episodes)
        };
        let PolicyVariant { file, changes, manifest, text } = variant;
        Self {
            kind: DecisionKind::Replay,
            name: format!("{namespace}/{}", manifest.policy.name),
            file,
            changes,
            summary,
            score,
            left_out: super::queries::left_out(&manifest),
            worst: worst(&episodes),
            breakers,
            panics: spans.panics,
            no_data: spans.no_data,
            floor_reached: spans.floor_reached,
            below_floor: spans.below_floor,
            manifest: text,
            picture,
            episodes,
        }
    }
}

/// The numbers that episodes tell by themselves.
pub(super) fn of_episodes(episodes: &[ReplayEpisode]) -> ReplaySummary {
    let by_pod = by_pod(episodes);
    ReplaySummary {
        episodes: episodes.len(),
        pods_withheld: by_pod.len(),
        pod_minutes_withheld: episodes.iter().map(ReplayEpisode::minutes).fold(0.0, |all, one| all + one),
        longest_minutes: episodes.iter().map(ReplayEpisode::minutes).fold(0.0, f64::max),
        most_withheld_at_once: at_once(episodes),
        flaps: by_pod.values().map(|episodes| flaps(episodes)).sum(),
        ..ReplaySummary::default()
    }
}

/// The most episodes at the same time; one that ends when another begins is not at the same time.
fn at_once(episodes: &[ReplayEpisode]) -> u32 {
    let edges = episodes.iter().flat_map(|episode| [(episode.from, 1), (episode.to, -1)]);
    let mut edges: Vec<(Timestamp, i64)> = edges.collect();
    edges.sort_unstable();
    let counts = edges.iter().scan(0, |now, (_, change)| {
        *now += change;
        Some(*now)
    });
    u32::try_from(counts.max().unwrap_or(0)).unwrap_or(0)
}

fn by_pod(episodes: &[ReplayEpisode]) -> BTreeMap<&str, Vec<&ReplayEpisode>> {
    let mut by_pod: BTreeMap<&str, Vec<&ReplayEpisode>> = BTreeMap::new();
    for episode in episodes {
        by_pod.entry(&episode.uid).or_default().push(episode);
    }
    by_pod
}

/// Of one pod's episodes, in order of time.
fn flaps(episodes: &[&ReplayEpisode]) -> usize {
    let pairs = episodes.iter().zip(episodes.iter().skip(1));
    pairs.filter(|(before, after)| after.from.since(before.to).as_secs() < FLAP_SECONDS).count()
}

/// The pods that were withheld longest.
pub(super) fn worst(episodes: &[ReplayEpisode]) -> Vec<WorstPod> {
    let mut all: Vec<WorstPod> = by_pod(episodes)
        .into_values()
        .filter_map(|episodes| {
            let longest = episodes.iter().max_by(|a, b| a.minutes().total_cmp(&b.minutes()))?;
            Some(WorstPod {
                pod: longest.pod.clone(),
                episodes: episodes.len(),
                minutes: episodes.iter().map(|episode| episode.minutes()).fold(0.0, |all, one| all + one),
                reason: longest.reason.clone(),
                evidence: longest.evidence,
            })
        })
        .collect();
    all.sort_by(|a, b| b.minutes.total_cmp(&a.minutes).then_with(|| a.pod.cmp(&b.pod)));
    all.truncate(WORST);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::report::model::{EpisodeEnd, EpisodeEvidence};

    #[test]
    fn episodes_tell_how_many_pods_were_withheld_at_once_and_which_came_back_too_soon() {
        let at = |second: i64| Timestamp::from_unix_millis(second * 1000);
        let episode = |pod: &str, from: i64, to: i64| ReplayEpisode {
            pod: pod.to_owned(),
            uid: pod.to_owned(),
            breaker: "errors".to_owned(),
            from: at(from),
            to: at(to),
            ended: EpisodeEnd::Over,
            reason: String::new(),
            evidence: EpisodeEvidence::default(),
            retry: 1,
            paused_at: None,
            killed_at: None,
        };
        let episodes = [
            episode("a", 0, 600),
            episode("b", 300, 660),
            episode("c", 600, 900),
            episode("a", 1200, 1260),
            episode("b", 9000, 9060),
        ];
        let summary = of_episodes(&episodes);
        assert_eq!((summary.episodes, summary.pods_withheld, summary.most_withheld_at_once), (5, 3, 2));
        assert_eq!((summary.flaps, summary.longest_minutes, summary.pod_minutes_withheld), (1, 10.0, 23.0));
        assert_eq!(worst(&episodes)[0].pod, "a");
    }
}
