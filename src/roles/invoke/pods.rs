//! Who lives at an address, as the snapshot of the callback that we run in says.

use std::{env, ffi::OsString, fs, io, net::Ipv4Addr};

use serde::Deserialize;

#[derive(Deserialize)]
struct Pod {
    id: String,
    ip: Ipv4Addr,
}

/// The callback's snapshot.
pub(super) struct Pods(Vec<Pod>);

/// Why an id could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodsError {
    #[error(
        "there is no snapshot to look up the agent's id in (PODS_FILE and PODS are not set: this is no callback)"
    )]
    NoSnapshot,
    #[error("cannot read the snapshot {file:?}: {source}")]
    ReadFile { file: OsString, source: io::Error },
    #[error("the snapshot is not a JSON list of pods: {0}")]
    ReadJson(#[from] serde_json::Error),
    #[error("no pod of the snapshot has the address {0}")]
    Nobody(Ipv4Addr),
    #[error("several pods of the snapshot have the address {0}")]
    Several(Ipv4Addr),
}

impl Pods {
    /// Reads `$PODS_FILE`, which is always complete, or else `$PODS`.
    pub(super) fn of_callback() -> Result<Self, PodsError> {
        let text = match (env::var_os("PODS_FILE"), env::var("PODS")) {
            (Some(file), _) if !file.is_empty() => {
                fs::read_to_string(&file).map_err(|source| PodsError::ReadFile { file, source })?
            }
            (_, Ok(pods)) => pods,
            _ => return Err(PodsError::NoSnapshot),
        };
        Self::read(&text)
    }

    fn read(text: &str) -> Result<Self, PodsError> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// The id of the one pod at `ip`.
    pub(super) fn id_at(&self, ip: Ipv4Addr) -> Result<String, PodsError> {
        let mut there = self.0.iter().filter(|pod| pod.ip == ip);
        match (there.next(), there.next()) {
            (Some(pod), None) => Ok(pod.id.clone()),
            (None, _) => Err(PodsError::Nobody(ip)),
            (Some(_), Some(_)) => Err(PodsError::Several(ip)),
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
        let pods = Pods::read(pods).unwrap();
        let ip = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(pods.id_at(ip(1)).unwrap(), "a");
        assert!(matches!(pods.id_at(ip(2)), Err(PodsError::Several(_))));
        assert!(matches!(pods.id_at(ip(3)), Err(PodsError::Nobody(_))));
        assert!(matches!(Pods::read("{"), Err(PodsError::ReadJson(_))));
    }
}
