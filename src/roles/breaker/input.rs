//! A callback's input: `$PODS`, `$PODS_FILE` or stdin; `$STATE` or `$STATE_FILE`; `$FLEET_FILE`.
//!
//! An invalid value of one pod (a number out of range, an `id` that is no text) affects this pod's row only.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{IsTerminal, Read},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    decide::{
        detect::{LifeStatus, Observation, Windows},
        fleet::{Traffic, Uid},
        fleet_report::FleetRow,
    },
    exit::Exit,
};

/// The input of one run.
#[derive(Debug, Default)]
pub(super) struct BreakerInput {
    pub(super) pods: Vec<InputPod>,
    pub(super) state: BreakerState,
}

/// One pod with its payload and its traffic.
#[derive(Debug)]
pub(super) struct InputPod {
    pub(super) observation: Observation,
    pub(super) key: String,
    pub(super) traffic: Traffic,
    /// The breaker that withheld it.
    pub(super) breaker: Option<String>,
}

/// State that the previous run printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BreakerState {
    #[serde(default)]
    pub(super) windows: Windows,
    /// In panic: the number of evaluations below the threshold so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) panic: Option<u32>,
}

/// A pod in `PODS`; members that a client writes may be of any type.
#[derive(Deserialize)]
struct InputRow<'a> {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    key: Value,
    #[serde(default)]
    nonce: Value,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    stale: Value,
}

impl BreakerInput {
    /// Reads the variables, the files that they name, and stdin when neither has the pods.
    pub(super) fn read() -> Result<Self, Exit> {
        let pods = variable("PODS")?.map_or_else(from_stdin, Ok)?;
        let fleet = file("FLEET_FILE")?.unwrap_or_else(|| "[]".to_owned());
        let state = variable("STATE")?.unwrap_or_default();
        Ok(Self::of(&pods, &fleet, &state)?)
    }

    fn of(pods: &str, fleet: &str, state: &str) -> Result<Self, anyhow::Error> {
        let rows: Vec<InputRow<'_>> = serde_json::from_str(pods).context("PODS is no JSON array of pods")?;
        let fleet: Vec<FleetRow<'_>> = serde_json::from_str(fleet).context("$FLEET_FILE cannot be read")?;
        let mut by_key: HashMap<String, FleetRow<'_>> =
            fleet.into_iter().map(|row| (row.key.to_string(), row)).collect();
        let mut all: Vec<InputPod> = rows
            .into_iter()
            .map(|row| {
                let key = plain(&row.key);
                let known = by_key.remove(&key);
                InputPod::new(&key, &plain(&row.id), row.nonce.as_str(), payload(&row), known)
            })
            .collect();
        // Pods that are only in the fleet file have expired, or went down.
        let mut rest: Vec<(String, FleetRow<'_>)> = by_key.into_iter().collect();
        rest.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.extend(rest.into_iter().map(|(key, row)| {
            InputPod::new(&key, &row.id.clone(), row.nonce.clone().as_deref(), Value::Null, Some(row))
        }));
        Ok(Self { pods: all, state: parse_state(state) })
    }
}

impl InputPod {
    fn new(key: &str, id: &str, nonce: Option<&str>, payload: Value, known: Option<FleetRow<'_>>) -> Self {
        let uid = Uid::from(format!("{key}/{id}/{}", nonce.unwrap_or_default()));
        let age = known.as_ref().and_then(|row| Duration::try_from_secs_f64(row.age).ok());
        let (status, traffic, breaker) = match known {
            Some(row) => (row.status, row.traffic, row.breaker.map(Cow::into_owned)),
            // Without $FLEET_FILE every pod in PODS is live.
            None => (LifeStatus::Live, Traffic::Yes, None),
        };
        let observation = Observation {
            uid,
            id: id.to_owned(),
            age: age.unwrap_or_default(),
            status,
            heard: true,
            withheld: matches!(traffic, Traffic::No | Traffic::Pause),
            name_age: None,
            payload: Arc::new(payload),
        };
        Self { observation, key: key.to_owned(), traffic, breaker }
    }
}

/// The payload; `"unreadable"` for one with a number out of range, so that a rule on it is an error and not "no data".
fn payload(row: &InputRow<'_>) -> Value {
    let raw = row.payload.filter(|_| row.stale != Value::Bool(true));
    raw.map_or(Value::Null, |raw| serde_json::from_str(raw.get()).unwrap_or_else(|_| "unreadable".into()))
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

/// The state that this command printed last; the default for anything else, such as another callback's state.
fn parse_state(state: &str) -> BreakerState {
    if state.trim().is_empty() {
        return BreakerState::default();
    }
    serde_json::from_str(state).unwrap_or_else(|error| {
        tracing::warn!(%error, "STATE is not what this command printed; the windows start empty");
        BreakerState::default()
    })
}

/// The variable's value, or the content of the file that `<name>_FILE` names.
fn variable(name: &str) -> Result<Option<String>, Exit> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Some(text)),
        Err(std::env::VarError::NotUnicode(_)) => Err(Exit::Failed(anyhow!("${name} is not UTF-8"))),
        _ => file(&format!("{name}_FILE")),
    }
}

fn file(variable: &str) -> Result<Option<String>, Exit> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(None) };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}, which ${variable} names", path.to_string_lossy()))?;
    Ok(Some(text))
}

fn from_stdin() -> Result<String, Exit> {
    let stdin = std::io::stdin();
    let mut text = String::new();
    if !stdin.is_terminal() {
        stdin.lock().read_to_string(&mut text).context("cannot read the pods from stdin")?;
    }
    if text.trim().is_empty() {
        let what = "no pods: this command is a callback; name it in KONTROL_CALLBACK, or give it PODS, PODS_FILE or stdin";
        return Err(Exit::Usage(what.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_and_fleet_are_joined_by_key_and_the_expired_are_there_too() {
        let pods = json!([{"id": "a", "key": "1", "nonce": "00", "payload": {"x": 1}, "extra": 5}]);
        let fleet = json!([
            {"id": "a", "key": "1", "age": 2.5, "status": "live", "traffic": "no", "breaker": "b"},
            {"id": "z", "key": "2", "age": 99.0, "status": "expired", "traffic": "yes"},
        ]);
        let input = BreakerInput::of(&pods.to_string(), &fleet.to_string(), "").unwrap();
        let [a, z] = &input.pods[..] else { panic!("{input:?}") };
        assert_eq!((a.observation.uid.as_str(), a.observation.withheld), ("1/a/00", true));
        assert_eq!(a.observation.age, Duration::from_millis(2500));
        assert_eq!(*a.observation.payload, json!({"x": 1}));
        assert_eq!((z.observation.id.as_str(), z.observation.status), ("z", LifeStatus::Expired));
    }

    #[test]
    fn one_pods_invalid_values_affect_its_own_row_only() {
        let pods = r#"[{"id": 7, "key": null, "payload": 1e999}, {"id": "b", "key": "1", "nonce": {}, "payload": 2}]"#;
        let input = BreakerInput::of(pods, "[]", "").unwrap();
        assert_eq!(input.pods[0].observation.id, "7");
        assert_eq!(*input.pods[0].observation.payload, json!("unreadable"));
        assert_eq!(*input.pods[1].observation.payload, json!(2));
    }

    #[test]
    fn pods_that_are_no_list_are_refused_and_a_foreign_state_is_ignored() {
        assert!(BreakerInput::of("{}", "[]", "").is_err());
        assert!(BreakerInput::of("[]", "{}", "").is_err());
        for state in ["7", "[]x", r#"{"windows": 3}"#] {
            assert_eq!(BreakerInput::of("[]", "[]", state).unwrap().state, BreakerState::default());
        }
        let restored = BreakerInput::of(
            "[]",
            "[]",
            r#"{"windows":{"b":{"due":5,"bad":{"u":3}}},"panic":1,"traffic":[]}"#,
        );
        assert_ne!(restored.unwrap().state, BreakerState::default());
    }
}
