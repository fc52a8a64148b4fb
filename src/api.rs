//! The `KubervisorService` manifest: its raw form, its checks, and the validated policy.
//!
//! A manifest is written by hand, so all its mistakes are reported at once, each with file, line, field and what to
//! write instead. In the validated policy every default and every inheritance is resolved.

pub mod crd;
pub mod fields;
pub mod keys;
mod labels;
pub mod located;
pub mod notify;
pub mod raw;
mod read;
mod report;
pub mod requests;
mod validate;

pub(crate) use read::bytes;

pub use self::labels::traffic_key_in;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::decide::{
    detect::{MetricSource, Rule},
    policy::Policy,
};

/// The API group.
pub const GROUP: &str = "kubervisor.k8s.io";
/// The API group and version.
pub const API_VERSION: &str = "kubervisor.k8s.io/v1alpha1";
/// The kind.
pub const KIND: &str = "KubervisorService";
/// The largest file that is read, in bytes.
pub const FILE_LIMIT: usize = 1 << 20;

/// A valid manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `metadata.namespace`, if it has one.
    pub namespace: Option<String>,
    /// The gate's input.
    pub policy: Policy,
    /// The detectors' input: one rule for each breaker, in the same order.
    pub rules: Vec<Rule>,
    /// Where pods are told about decisions.
    pub notify: notify::NotifyRules,
    /// Where it starts in its file.
    pub line: u64,
}

/// Abilities of the process that loads a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The detectors that it supports.
    pub detectors: Detectors,
    /// The ensemble's times, where there is one.
    pub timing: Option<Timing>,
    /// The operator's sources.
    pub sources: OperatorSources,
}

/// Sources by name, read once at the start of the process.
pub type OperatorSources = &'static [(String, Arc<MetricSource>)];

/// The detectors that a process supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detectors {
    /// All; for offline checks.
    All,
    /// All, without access to Secrets: `auth` is refused.
    WithoutSecrets,
    /// Those that read keepalives only; others are refused by name.
    Keepalives,
}

/// How often pods report: a limit on silence must lie between two pings and the TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// `KONTROL_TTL`.
    pub ttl: Duration,
    /// `KONTROL_PING`.
    pub ping_every: Duration,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its line, from 1.
    pub line: u64,
    /// The field's path, such as `spec.breakers[0].keepalive.min`; empty for the file as a whole.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub write: String,
}

/// All mistakes of a file, in the order of their lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The file's name as it was given.
    pub file: String,
    /// The mistakes.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, field, what, write }) in self.list.iter().enumerate() {
            let (newline, colon) =
                (if index > 0 { "\n" } else { "" }, if field.is_empty() { "" } else { ": " });
            write!(f, "{newline}{}:{line}: {field}{colon}{what}; {write}", self.file)?;
        }
        Ok(())
    }
}

/// Reads every `KubervisorService` of the text; in documents of other kinds only labels that are no texts are reported.
///
/// # Errors
/// All mistakes; also when there is no `KubervisorService`.
pub fn parse(file: &str, text: &str, context: Context) -> Result<Vec<Manifest>, Problems> {
    read::manifests(text, context).map_err(|mut list| {
        list.sort_by_key(|problem| problem.line);
        Problems { file: file.to_owned(), list }
    })
}

/// Reads one `KubervisorService` from a JSON value, such as a stored object; its mistakes have line 1.
///
/// # Errors
/// As [`parse`].
pub fn from_value(name: &str, value: Value, context: Context) -> Result<Manifest, Problems> {
    let refuse = |list| Problems { file: name.to_owned(), list };
    let mut manifests = read::documents(&[value.into()], context).map_err(refuse)?;
    manifests.pop().ok_or_else(|| refuse(Vec::new()))
}

/// Reads the file and every `KubervisorService` in it.
///
/// # Errors
/// As [`parse`], and when the file cannot be read.
pub fn load_all(path: &Path, context: Context) -> Result<Vec<Manifest>, Problems> {
    parse(&path.display().to_string(), &text_of(path)?, context)
}

/// Reads an operator's list of sources, `sources: [...]`, for [`Context::sources`].
///
/// # Errors
/// All mistakes of the file, and when it cannot be read.
pub fn load_sources(path: &Path) -> Result<Vec<(String, Arc<MetricSource>)>, Problems> {
    let file = path.display().to_string();
    let found = read::sources(&text_of(path)?).map_err(|list| Problems { file, list })?;
    Ok(found.into_iter().collect())
}

/// The `KubervisorService` documents of a text that [`parse`] accepts, as they are written.
///
/// # Errors
/// When the text is not YAML.
pub fn resources(file: &str, text: &str) -> Result<Vec<Value>, Problems> {
    read::resources(text).map_err(|list| Problems { file: file.to_owned(), list })
}

/// The file's text, if it is short enough.
///
/// # Errors
/// When it cannot be read, is too large, or is no text.
pub fn text_of(path: &Path) -> Result<String, Problems> {
    let refuse = |what: String, write: &str| Problems {
        file: path.display().to_string(),
        list: read::whole(1, what, write),
    };
    let bytes = read::bytes(path)
        .map_err(|error| refuse(format!("cannot be read: {error}"), "name a file that this user can read"))?;
    if bytes.len() > FILE_LIMIT {
        return Err(refuse(
            "is larger than 1 MiB".to_owned(),
            "write one KubervisorService in a file of its own",
        ));
    }
    String::from_utf8(bytes)
        .map_err(|error| refuse(format!("is not UTF-8: {error}"), "write the file in UTF-8"))
}

/// Reads a policy file: exactly one `KubervisorService`, and other documents if need be.
///
/// # Errors
/// As [`load_all`], and when there are several.
pub fn load(path: &Path, context: Context) -> Result<Manifest, Problems> {
    let mut manifests = load_all(path, context)?;
    match (manifests.pop(), manifests.first()) {
        (Some(manifest), None) => Ok(manifest),
        (last, _) => Err(Problems {
            file: path.display().to_string(),
            list: read::whole(
                last.map_or(1, |manifest| manifest.line),
                "a second KubervisorService".to_owned(),
                "write one in each policy file, and name the one that holds here",
            ),
        }),
    }
}
