//! The numbers of a policy, from what was recorded of its replay.

use std::collections::BTreeMap;

use super::{
    model::{PolicyReport, ReplayEpisode, ReplaySummary, WorstPod, minutes},
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
        let by_pod = by_pod(&episodes);
        let length = |spans: &[super::model::FleetSpan]| {
            spans.iter().map(|span| minutes(span.from, span.to)).fold(0.0, |all, one| all + one)
        };
        let summary = ReplaySummary {
            evaluations: breakers.iter().map(|breaker| breaker.evaluations).sum(),
            episodes: episodes.len() + dropped,
            pods_withheld: by_pod.len(),
            pod_minutes_withheld: episodes.iter().map(ReplayEpisode::minutes).fold(0.0, |all, one| all + one),
            longest_minutes: episodes.iter().map(ReplayEpisode::minutes).fold(0.0, f64::max),
            most_withheld_at_once: floor.most_withheld,
            highest_share_percent: floor.highest_share,
            least_above_floor: floor.least_above,
            near_floor_minutes: floor.near_seconds / 60.0,
            floor_reached_minutes: length(&spans.floor_reached),
            panics: spans.panics.len(),
            panic_minutes: length(&spans.panics),
            no_data_minutes: length(&spans.no_data),
            kills: episodes.iter().filter(|episode| episode.killed_at.is_some()).count(),
            pauses: episodes.iter().filter(|episode| episode.paused_at.is_some()).count(),
            flaps: by_pod.values().map(|episodes| flaps(episodes)).sum(),
        };
        let PolicyVariant { file, changes, manifest, text } = variant;
        Self {
            name: format!("{namespace}/{}", manifest.policy.name),
            file,
            changes,
            summary,
            score,
            left_out: super::queries::left_out(&manifest),
            worst: worst(by_pod),
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

fn worst(by_pod: BTreeMap<&str, Vec<&ReplayEpisode>>) -> Vec<WorstPod> {
    let mut all: Vec<WorstPod> = by_pod
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
