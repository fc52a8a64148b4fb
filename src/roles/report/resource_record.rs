//! A report of what a controller did with a resource's pods, and of what its dry run would have done: two policies in one
//! report, from the episodes in the resource's status.

use serde_json::{Value, json};

use super::{
    model::{
        DecisionKind, EpisodeEnd, EpisodeEvidence, FleetOrigin, PolicyPicture, PolicyReport, ReplayEpisode,
        ReportModel, VERSION,
    },
    picture::{FleetPicture, PodPhase},
    summary, time_range,
};
use crate::{
    decide::{fleet::Uid, time::Timestamp},
    roles::{gate::episodes::STORED, output::list},
};

/// Conditions that a reader has to know, and the status that is worth a note.
const NOTED: [(&str, &str); 4] =
    [("Panic", "True"), ("FloorReached", "True"), ("DataAvailable", "False"), ("Ready", "False")];

/// The report about a resource as the API server has it.
pub(super) fn read(resource: &Value, now: Timestamp) -> ReportModel {
    let of = |kind: DecisionKind| episodes(resource, kind, now);
    let (real, would) = (of(DecisionKind::Real), of(DecisionKind::DryRun));
    let started = moment(resource.pointer("/status/startTime"), now);
    let from = real.iter().chain(&would).map(|episode| episode.from).chain(started).min();
    let from = from.filter(|from| *from < now).unwrap_or(now - std::time::Duration::from_secs(60));
    let mut picture = FleetPicture::default();
    for ReplayEpisode { uid, pod, from, .. } in real.iter().chain(&would) {
        picture.phase(&Uid::from(uid.as_str()), pod, *from, PodPhase::Ready);
    }
    let rehearses = rehearses(resource) || !would.is_empty();
    let mut policies = vec![policy(resource, DecisionKind::Real, real)];
    if rehearses {
        policies.push(policy(resource, DecisionKind::DryRun, would));
    }
    let managed = resource.pointer("/status/podCount/nbPodsManaged").and_then(Value::as_u64).unwrap_or(0);
    ReportModel {
        version: VERSION,
        kubervisor: env!("CARGO_PKG_VERSION"),
        from,
        to: now,
        replayed_to: now,
        partial: None,
        fleet: FleetOrigin {
            source: "status",
            text: "the resource's status: its ready pods now".to_owned(),
            pods: usize::try_from(managed).unwrap_or(usize::MAX),
        },
        notes: notes(resource, rehearses),
        policies,
        picture,
    }
}

/// The policy or one of its breakers is a dry run.
fn rehearses(resource: &Value) -> bool {
    let is_dry_run = |value: &Value| value["dryRun"] == true;
    is_dry_run(&resource["spec"]) || list(resource, "/spec/breakers").iter().any(is_dry_run)
}

fn notes(resource: &Value, rehearses: bool) -> Vec<String> {
    let mut notes = vec![format!(
        "The status keeps the newest {STORED} episodes, with times in whole seconds; it tells nothing about the fleet between \
         them."
    )];
    if resource.get("status").is_none() {
        notes.push("The resource has no status yet: no controller has seen it.".to_owned());
    }
    if rehearses {
        notes.push(
            "A dry run goes on as if its withdrawals had been carried out. Its own ledger is not stored: after a restart of \
             the controller its episodes begin anew."
                .to_owned(),
        );
    }
    for condition in list(resource, "/status/conditions") {
        let [kind, status, message] =
            ["type", "status", "message"].map(|member| condition[member].as_str().unwrap_or_default());
        if NOTED.contains(&(kind, status)) {
            notes.push(format!("{kind} is {status} now: {message}"));
        }
    }
    notes
}

fn policy(resource: &Value, kind: DecisionKind, episodes: Vec<ReplayEpisode>) -> PolicyReport {
    let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let manifest = json!({
        "apiVersion": resource["apiVersion"], "kind": resource["kind"],
        "metadata": {"name": name, "namespace": namespace}, "spec": resource["spec"],
    });
    PolicyReport {
        kind,
        name: format!("{namespace}/{name}"),
        file: format!("kubervisorservice/{name}"),
        changes: Vec::new(),
        summary: summary::of_episodes(&episodes),
        score: None,
        breakers: Vec::new(),
        left_out: Vec::new(),
        worst: summary::worst(&episodes),
        episodes,
        panics: Vec::new(),
        no_data: Vec::new(),
        floor_reached: Vec::new(),
        below_floor: Vec::new(),
        manifest: serde_saphyr::to_string(&manifest).unwrap_or_default(),
        picture: PolicyPicture::default(),
    }
}

/// Those of this kind, in order of time; one without a time is left out.
fn episodes(resource: &Value, kind: DecisionKind, now: Timestamp) -> Vec<ReplayEpisode> {
    let wanted = json!(kind);
    let read = |episode: &Value| {
        let text = |member: &str| episode[member].as_str().unwrap_or_default().to_owned();
        let ended = moment(episode.get("to"), now);
        let from = moment(episode.get("from"), now)?;
        Some(ReplayEpisode {
            pod: text("pod"),
            uid: text("uid"),
            breaker: text("breaker"),
            from,
            to: ended.unwrap_or(now).max(from),
            ended: if ended.is_some() { EpisodeEnd::Over } else { EpisodeEnd::Lasting },
            reason: text("reason"),
            evidence: EpisodeEvidence::default(),
            retry: episode["retryCount"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            paused_at: None,
            killed_at: None,
        })
    };
    let ours = list(resource, "/status/episodes").iter().filter(|episode| episode["kind"] == wanted);
    let mut episodes: Vec<ReplayEpisode> = ours.filter_map(read).collect();
    episodes.sort_by(|a, b| (a.from, &a.pod).cmp(&(b.from, &b.pod)));
    episodes
}

fn moment(value: Option<&Value>, now: Timestamp) -> Option<Timestamp> {
    time_range::moment(value?.as_str()?, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(spec: &Value, episodes: &Value) -> Value {
        json!({
            "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService",
            "metadata": {"name": "web", "namespace": "shop", "managedFields": []}, "spec": spec,
            "status": {
                "startTime": "2026-01-01T00:00:00Z", "podCount": {"nbPodsManaged": 7}, "episodes": episodes,
                "conditions": [{"type": "Panic", "status": "True", "message": "6 of 7 look bad"}],
            },
        })
    }

    fn now() -> Timestamp {
        time_range::moment("2026-01-02T12:00:00Z", Timestamp::from_unix_millis(0)).unwrap()
    }

    #[test]
    fn real_and_would_be_episodes_are_two_policies_and_what_lasts_lasts_until_now() {
        let episodes = json!([
            {"kind": "dryRun", "pod": "web-2", "uid": "2", "breaker": "slow", "reason": "r", "retryCount": 3, "from": "2026-01-02T11:30:00Z"},
            {"kind": "real", "pod": "web-1", "uid": "1", "breaker": "codes", "from": "2026-01-02T10:00:00Z", "to": "2026-01-02T10:10:00Z"},
            {"kind": "real", "pod": "web-1", "from": "at some time"}, 7,
        ]);
        let model = read(&resource(&json!({"service": "web"}), &episodes), now());
        let told: Vec<(DecisionKind, &str, f64, EpisodeEnd)> = model
            .policies
            .iter()
            .flat_map(|policy| {
                policy.episodes.iter().map(|one| (policy.kind, &*one.pod, one.minutes(), one.ended))
            })
            .collect();
        assert_eq!(
            told,
            [
                (DecisionKind::Real, "web-1", 10.0, EpisodeEnd::Over),
                (DecisionKind::DryRun, "web-2", 30.0, EpisodeEnd::Lasting)
            ]
        );
        assert_eq!((model.from.to_string().as_str(), model.fleet.pods), ("2026-01-01T00:00:00.000Z", 7));
        assert!(model.notes.iter().any(|note| note.contains("6 of 7 look bad")), "{:?}", model.notes);
        assert!(model.policies[0].manifest.contains("service: web"), "{}", model.policies[0].manifest);
        assert!(!model.policies[0].manifest.contains("managedFields"));
    }

    #[test]
    fn without_a_dry_run_there_is_no_second_policy_and_without_a_status_it_is_said() {
        let model = read(&resource(&json!({"breakers": [{"dryRun": false}]}), &json!([])), now());
        assert_eq!(model.policies.len(), 1);
        let model = read(&resource(&json!({"breakers": [{"dryRun": true}]}), &json!([])), now());
        assert_eq!(model.policies.len(), 2);
        let model = read(&json!({"metadata": {"name": "web"}}), now());
        assert!(model.notes.iter().any(|note| note.contains("no controller")) && model.from < model.to);
    }
}
