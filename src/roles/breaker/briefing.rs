//! What the master tells a callback, as the breaker reads it: `$PODS`, `$PODS_FILE` or stdin; `$STATE` or
//! `$STATE_FILE`; `$FLEET_FILE`.
//!
//! What one pod sent never hides the others: a payload that is no number a computer can hold, or an
//! `id` that is no text, spoils that pod's row only.

use std::{
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
        detect::{Observation, Status, Windows},
        fleet::{Traffic, Uid},
        fleet_report::FleetRow,
    },
    exit::Exit,
};

/// All that one run is told.
#[derive(Debug, Default)]
pub(super) struct Briefing {
    pub(super) pods: Vec<Pod>,
    pub(super) memory: Memory,
}

/// One pod: what it said, and what became of it.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) observation: Observation,
    pub(super) key: String,
    pub(super) traffic: Traffic,
    /// The breaker that withheld it.
    pub(super) breaker: Option<String>,
}

/// What an earlier run printed for this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    #[serde(default)]
    pub(super) windows: Windows,
    /// In panic, and for so many calm evaluations already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) panic: Option<u32>,
}

/// A pod in `PODS`; everything that a client may have written in its own way is read with care.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    key: Value,
    #[serde(default)]
    nonce: Value,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl Briefing {
    /// Reads the environment, the files that it names, and stdin if neither has the pods.
    pub(super) fn read() -> Result<Self, Exit> {
        let pods = given("PODS")?.map_or_else(from_stdin, Ok)?;
        let fleet = file("FLEET_FILE")?.unwrap_or_else(|| "[]".to_owned());
        let state = given("STATE")?.unwrap_or_default();
        Ok(Self::of(&pods, &fleet, &state)?)
    }

    fn of(pods: &str, fleet: &str, state: &str) -> Result<Self, anyhow::Error> {
        let rows: Vec<Row<'_>> = serde_json::from_str(pods).context("PODS is no JSON array of pods")?;
        let fleet: Vec<FleetRow> = serde_json::from_str(fleet).context("$FLEET_FILE cannot be read")?;
        let mut by_key: HashMap<String, FleetRow> =
            fleet.into_iter().map(|row| (row.key.to_string(), row)).collect();
        let mut all: Vec<Pod> = rows
            .into_iter()
            .map(|row| {
                let key = plain(&row.key);
                let known = by_key.remove(&key);
                Pod::new(&key, &plain(&row.id), row.nonce.as_str(), payload(row.payload), known)
            })
            .collect();
        // Who is not in PODS any more has expired, or said goodbye.
        let mut gone: Vec<(String, FleetRow)> = by_key.into_iter().collect();
        gone.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.extend(gone.into_iter().map(|(key, row)| {
            Pod::new(&key, &row.id.clone(), row.nonce.clone().as_deref(), Value::Null, Some(row))
        }));
        Ok(Self { pods: all, memory: memory(state) })
    }
}

impl Pod {
    fn new(key: &str, id: &str, nonce: Option<&str>, payload: Value, known: Option<FleetRow>) -> Self {
        let uid = Uid::from(format!("{key}/{id}/{}", nonce.unwrap_or_default()));
        let age = known.as_ref().and_then(|row| Duration::try_from_secs_f64(row.age).ok());
        let (status, traffic, breaker) = match known {
            Some(row) => (row.status, row.traffic, row.breaker),
            // A master that writes no $FLEET_FILE knows of no silence: whoever is in PODS is there.
            None => (Status::Live, Traffic::Yes, None),
        };
        let observation = Observation {
            uid,
            id: id.to_owned(),
            age: age.unwrap_or_default(),
            status,
            heard: true,
            withheld: matches!(traffic, Traffic::No | Traffic::Pause),
            payload: Arc::new(payload),
        };
        Self { observation, key: key.to_owned(), traffic, breaker }
    }
}

/// The payload; one that cannot be held (a number beyond all bounds) is a text, so that a rule about it ends in an
/// error and not in "no data".
fn payload(raw: Option<&RawValue>) -> Value {
    raw.map_or(Value::Null, |raw| serde_json::from_str(raw.get()).unwrap_or_else(|_| "unreadable".into()))
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

/// What this program printed last; anything else (another callback's state) is no memory.
fn memory(state: &str) -> Memory {
    if state.trim().is_empty() {
        return Memory::default();
    }
    serde_json::from_str(state).unwrap_or_else(|error| {
        tracing::warn!(%error, "STATE is not what this command printed; the windows start empty");
        Memory::default()
    })
}

/// The variable, or the file that its `_FILE` names.
fn given(name: &str) -> Result<Option<String>, Exit> {
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
        let briefing = Briefing::of(&pods.to_string(), &fleet.to_string(), "").unwrap();
        let [a, z] = &briefing.pods[..] else { panic!("{briefing:?}") };
        assert_eq!((a.observation.uid.as_str(), a.observation.withheld), ("1/a/00", true));
        assert_eq!(a.observation.age, Duration::from_millis(2500));
        assert_eq!(*a.observation.payload, json!({"x": 1}));
        assert_eq!((z.observation.id.as_str(), z.observation.status), ("z", Status::Expired));
    }

    #[test]
    fn one_pods_nonsense_spoils_its_own_row_only() {
        let pods = r#"[{"id": 7, "key": null, "payload": 1e999}, {"id": "b", "key": "1", "nonce": {}, "payload": 2}]"#;
        let briefing = Briefing::of(pods, "[]", "").unwrap();
        assert_eq!(briefing.pods[0].observation.id, "7");
        assert_eq!(*briefing.pods[0].observation.payload, json!("unreadable"));
        assert_eq!(*briefing.pods[1].observation.payload, json!(2));
    }

    #[test]
    fn what_is_no_list_of_pods_is_refused_and_a_strange_state_is_forgotten() {
        assert!(Briefing::of("{}", "[]", "").is_err());
        assert!(Briefing::of("[]", "{}", "").is_err());
        for state in ["7", "[]x", r#"{"windows": 3}"#] {
            assert_eq!(Briefing::of("[]", "[]", state).unwrap().memory, Memory::default());
        }
        let kept =
            Briefing::of("[]", "[]", r#"{"windows":{"b":{"due":5,"bad":{"u":3}}},"panic":1,"traffic":[]}"#);
        assert_ne!(kept.unwrap().memory, Memory::default());
    }
}
