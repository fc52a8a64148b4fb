//! Looks up an agent's id by its address in the snapshot of the callback that this process runs in.

use std::{env, ffi::OsString, fs, io, net::Ipv4Addr};

use serde::Deserialize;

#[derive(Deserialize)]
struct CallbackPod {
    id: String,
    ip: Ipv4Addr,
}

pub(super) struct CallbackSnapshot(Vec<CallbackPod>);

/// Why an id could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallbackSnapshotError {
    #[error(
        "there is no snapshot to look up the agent's id in (PODS_FILE and PODS are not set: this is no callback)"
    )]
    NoSnapshot,
    #[error("cannot read the snapshot {file:?}: {source}")]
    ReadFile { file: OsString, source: io::Error },
    #[error("the snapshot is not a JSON list of pods: {0}")]
    ReadJson(#[from] serde_json::Error),
    #[error("no pod of the snapshot has the address {0}")]
    NotFound(Ipv4Addr),
    #[error("several pods of the snapshot have the address {0}")]
    Several(Ipv4Addr),
}

impl CallbackSnapshot {
    /// Reads `$PODS_FILE`, which is always complete, or else `$PODS`.
    pub(super) fn of_callback() -> Result<Self, CallbackSnapshotError> {
        let text = match (env::var_os("PODS_FILE"), env::var("PODS")) {
            (Some(file), _) if !file.is_empty() => fs::read_to_string(&file)
                .map_err(|source| CallbackSnapshotError::ReadFile { file, source })?,
            (_, Ok(pods)) => pods,
            _ => return Err(CallbackSnapshotError::NoSnapshot),
        };
        Self::read(&text)
    }

    fn read(text: &str) -> Result<Self, CallbackSnapshotError> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// The id of the one pod at `ip`.
    pub(super) fn id_at(&self, ip: Ipv4Addr) -> Result<String, CallbackSnapshotError> {
        let mut found = self.0.iter().filter(|pod| pod.ip == ip);
        match (found.next(), found.next()) {
            (Some(pod), None) => Ok(pod.id.clone()),
            (None, _) => Err(CallbackSnapshotError::NotFound(ip)),
            (Some(_), Some(_)) => Err(CallbackSnapshotError::Several(ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_one_id() {
        let pods =
            r#"[{"id":"a","ip":"10.0.0.1","seq":0},{"id":"b","ip":"10.0.0.2"},{"id":"c","ip":"10.0.0.2"}]"#;
        let pods = CallbackSnapshot::read(pods).unwrap();
        let ip = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(pods.id_at(ip(1)).unwrap(), "a");
        assert!(matches!(pods.id_at(ip(2)), Err(CallbackSnapshotError::Several(_))));
        assert!(matches!(pods.id_at(ip(3)), Err(CallbackSnapshotError::NotFound(_))));
        assert!(matches!(CallbackSnapshot::read("{"), Err(CallbackSnapshotError::ReadJson(_))));
    }
}
