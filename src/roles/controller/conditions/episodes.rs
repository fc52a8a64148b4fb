//! `status.episodes`: when pods were withheld and when a dry run would have withheld them, for longer than one process.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{line, rfc3339};
use crate::roles::gate::{
    episodes::{Episode, STORED},
    snapshot::GateSnapshot,
};

/// Longest reason, in characters: [`STORED`] of them share an object with the ledger.
const LONGEST_REASON: usize = 200;

/// Beginning, pod and kind, by which an episode is known again.
type EpisodeKey = (String, String, String);

/// The newest episodes first: those of the old status and those of this process. `None`: there is none.
///
/// One that has begun before this process, and that its ledgers do not hold, ended while nobody looked: it ends now. A dry
/// run's own ledger is not stored, so that after a restart of the controller its episodes begin anew.
pub(super) fn episodes(old: Option<&Value>, snapshot: &GateSnapshot) -> Option<Value> {
    let mut all: BTreeMap<EpisodeKey, Value> = BTreeMap::new();
    for episode in old.and_then(Value::as_array).into_iter().flatten() {
        let mut episode = episode.clone();
        let Some(members) = episode.as_object_mut() else { continue };
        members.entry("to").or_insert_with(|| json!(rfc3339(snapshot.at)));
        all.insert(key(&episode), episode);
    }
    for episode in snapshot.episodes.all() {
        let episode = written(&episode);
        all.insert(key(&episode), episode);
    }
    let newest: Vec<Value> = all.into_values().rev().take(STORED).collect();
    (!newest.is_empty()).then_some(Value::Array(newest))
}

fn key(episode: &Value) -> EpisodeKey {
    let [from, pod, kind] =
        ["from", "uid", "kind"].map(|member| episode[member].as_str().unwrap_or_default().to_owned());
    (from, pod, kind)
}

fn written(episode: &Episode) -> Value {
    let Episode { kind, pod, uid, breaker, reason, retry, from, to } = episode;
    let mut written = json!({
        "kind": kind, "pod": line(pod, 253), "uid": line(uid.as_str(), 63), "breaker": line(breaker, 63),
        "reason": line(reason, LONGEST_REASON), "retryCount": retry, "from": rfc3339(*from),
    });
    if let (Some(to), Some(members)) = (to, written.as_object_mut()) {
        members.insert("to".to_owned(), json!(rfc3339(*to)));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decide::{
            fleet::{Epoch, Uid},
            gate::ledger::Ledger,
            time::Timestamp,
        },
        roles::gate::episodes::EpisodeKind,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_789 + second * 1000)
    }

    /// A ledger with these pods, each withheld since then.
    fn ledger(pods: &[(&str, i64)]) -> Ledger {
        let fence = "00000000000000aa.1";
        let entry = |(pod, since): &(&str, i64)| {
            let entry = json!({
                "uid": format!("uid-{pod}"), "name": pod, "fence": fence, "next": fence, "state": "withheld",
                "breaker": "errors", "reason": "9 of 10 are bad", "breakAt": at(*since).unix_millis(), "retryCount": 2,
                "desired": 2,
            });
            (format!("uid-{pod}"), entry)
        };
        let mut ledger = serde_json::to_value(Ledger::begin("uid", Epoch(1))).unwrap();
        ledger["entries"] = pods.iter().map(entry).collect::<serde_json::Map<_, _>>().into();
        serde_json::from_value(ledger).unwrap()
    }

    /// When, which ledger, and its pods with their beginnings.
    type Look<'a> = (i64, EpisodeKind, &'a [(&'a str, i64)]);

    /// A process that looks at each of these ledgers.
    fn snapshot(looks: &[Look<'_>]) -> GateSnapshot {
        let mut snapshot = GateSnapshot::default();
        for (second, kind, pods) in looks {
            snapshot.at = at(*second);
            snapshot.episodes.observe(at(*second), *kind, Some(&ledger(pods)));
        }
        snapshot
    }

    fn spans(status: Option<&Value>) -> Vec<String> {
        let all = status.and_then(Value::as_array).into_iter().flatten();
        let second = |episode: &Value, member: &str| {
            let at: Option<jiff::Timestamp> = episode[member].as_str().map(|text| text.parse().unwrap());
            at.map_or_else(String::new, |at| (at.as_second() - 1_700_000_000).to_string())
        };
        all.map(|one| {
            format!(
                "{} {} {}..{}",
                one["kind"].as_str().unwrap(),
                one["pod"].as_str().unwrap(),
                second(one, "from"),
                second(one, "to")
            )
        })
        .collect()
    }

    #[test]
    fn real_and_would_be_episodes_stand_apart_newest_first() {
        let (real, would) = (EpisodeKind::Real, EpisodeKind::DryRun);
        let snapshot =
            snapshot(&[(10, real, &[("a", 5)]), (10, would, &[("a", 7), ("b", 9)]), (20, real, &[])]);
        let status = episodes(None, &snapshot);
        assert_eq!(spans(status.as_ref()), ["dryRun b 9..", "dryRun a 7..", "real a 5..20"]);
        let uid: Uid = "uid-a".into();
        let expected = json!({
            "kind": "real", "pod": "a", "uid": uid.as_str(), "breaker": "errors", "reason": "9 of 10 are bad",
            "retryCount": 2, "from": "2023-11-14T22:13:25Z", "to": "2023-11-14T22:13:40Z",
        });
        assert_eq!(status.unwrap()[2], expected);
    }

    #[test]
    fn after_a_restart_open_episodes_go_on_if_the_ledger_has_them_and_end_if_not() {
        let (real, would) = (EpisodeKind::Real, EpisodeKind::DryRun);
        let before = episodes(
            None,
            &snapshot(&[
                (10, real, &[("a", 5), ("b", 6)]),
                (11, would, &[("c", 8)]),
                (12, real, &[("b", 6)]),
            ]),
        );
        let after = snapshot(&[(90, real, &[("b", 6)]), (91, would, &[])]);
        let status = episodes(before.as_ref(), &after);
        assert_eq!(spans(status.as_ref()), ["dryRun c 8..91", "real b 6..", "real a 5..12"]);
        let later = GateSnapshot { at: at(300), ..after };
        assert_eq!(episodes(status.as_ref(), &later), status, "no later look changes what has ended");
    }

    #[test]
    fn the_newest_fifty_are_kept_and_none_is_no_member() {
        assert_eq!(episodes(None, &GateSnapshot::default()), None);
        let mut all = GateSnapshot::default();
        for round in 0..80 {
            all.episodes.observe(at(round), EpisodeKind::Real, Some(&ledger(&[("a", round)])));
        }
        let status = episodes(None, &all);
        let spans = spans(status.as_ref());
        assert_eq!(
            (spans.len(), spans[0].as_str(), spans[49].as_str()),
            (50, "real a 79..", "real a 30..31")
        );
    }
}
