//! The input of a callback: files in a private directory, and variables up to the kernel's limits.
//!
//! One variable takes at most [`VARIABLE_LIMIT`] bytes; all together, with the arguments, a quarter of the stack's
//! limit. A variable that does not fit is replaced by `..._TRUNCATED=1`; the files and stdin have its value.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::OsStringExt,
        fs::{OpenOptionsExt, PermissionsExt, chown, fchown},
    },
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use tempfile::TempDir;
use tokio::task;

use super::{CallbackError, CallbackInput};
use crate::adapters::process::{Account, VARIABLE_LIMIT};

/// Variables of this run, which are never inherited.
const NAMES: [&str; 9] = [
    "PODS",
    "PODS_FILE",
    "PODS_TRUNCATED",
    "HASH",
    "MD5",
    "STATE",
    "STATE_FILE",
    "STATE_TRUNCATED",
    "FLEET_FILE",
];

/// Used when the temporary directory cannot be written (a read-only root file system).
const FALLBACK_DIRECTORY: &str = "/dev/shm";

/// Bytes left free below the kernel's limit: pointers, the program's path, the auxiliary vector.
const MARGIN: usize = 32 << 10;

/// The kernel's bounds on that limit, in bytes.
const TOTAL_LIMITS: (usize, usize) = (128 << 10, 6 << 20);

/// The files and variables of a run.
pub(super) struct CallbackFiles {
    directory: TempDir,
    input: CallbackInput,
    environment: Vec<(OsString, OsString)>,
}

impl CallbackFiles {
    /// Writes the files, owned by `account` if given.
    pub(super) async fn write(
        input: CallbackInput,
        account: Option<Account>,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Self, CallbackError> {
        let written = task::spawn_blocking(move || {
            let directory = write_with_fallback(&input, account.as_ref())?;
            Ok(Self { directory, input, environment })
        });
        written
            .await
            .unwrap_or_else(|lost| Err(CallbackError::WriteFiles(String::new(), io::Error::other(lost))))
    }

    /// Removes the files, as dropping does, too.
    pub(super) async fn remove(self) {
        let directory = self.directory;
        if let Ok(Err(error)) = task::spawn_blocking(move || directory.close()).await {
            tracing::warn!(%error, "cannot remove the callback's files");
        }
    }

    /// The variables that a callback must not inherit.
    pub(super) fn names() -> Vec<OsString> {
        NAMES.iter().map(OsString::from).collect()
    }

    /// The variables, later ones win; without `large`, `PODS` and `STATE` are left out.
    pub(super) fn variables(&self, large: bool) -> Vec<(OsString, OsString)> {
        let file = |name: &str, file: &str| (OsString::from(name), self.directory.path().join(file).into());
        let mut variables = self.environment.clone();
        variables.push(("HASH".into(), self.input.digest.clone().into()));
        variables.push(("MD5".into(), self.input.digest.clone().into()));
        variables.push(file("PODS_FILE", "pods.json"));
        variables.push(file("FLEET_FILE", "fleet.json"));
        let mut space = if large { space_left(&variables) } else { 0 };
        let mut add = |name: &str, value: &Bytes, truncated: &str| {
            if fits(name, value) && value.len() + name.len() + 2 <= space {
                space -= value.len() + name.len() + 2;
                variables.push((name.into(), OsString::from_vec(value.to_vec())));
            } else {
                variables.push((truncated.into(), "1".into()));
            }
        };
        add("PODS", &self.input.pods, "PODS_TRUNCATED");
        if let Some(state) = &self.input.state {
            add("STATE", state, "STATE_TRUNCATED");
            variables.push(file("STATE_FILE", "state.json"));
        }
        variables
    }
}

/// Whether the kernel takes this as one variable.
fn fits(name: &str, value: &[u8]) -> bool {
    name.len() + 1 + value.len() <= VARIABLE_LIMIT && !value.contains(&0)
}

/// Bytes of variables that the kernel takes beside the inherited ones and `ours`.
fn space_left(ours: &[(OsString, OsString)]) -> usize {
    let stack = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    let (least, most) = TOTAL_LIMITS;
    let total = usize::try_from(stack / 4).unwrap_or(most).clamp(least, most);
    // Name, '=', NUL, and the pointer to it.
    let size = |name: &OsStr, value: &OsStr| name.len() + value.len() + 2 + size_of::<usize>();
    let inherited: usize = std::env::vars_os().map(|(name, value)| size(&name, &value)).sum();
    let set: usize = ours.iter().map(|(name, value)| size(name, value)).sum();
    total.saturating_sub(inherited + set + MARGIN)
}

fn write_with_fallback(input: &CallbackInput, account: Option<&Account>) -> Result<TempDir, CallbackError> {
    let first = std::env::temp_dir();
    match write_files(&first, input, account) {
        Ok(directory) => Ok(directory),
        Err(_) => write_files(Path::new(FALLBACK_DIRECTORY), input, account)
            .map_err(|source| CallbackError::WriteFiles(first.display().to_string(), source)),
    }
}

fn write_files(parent: &Path, input: &CallbackInput, account: Option<&Account>) -> io::Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("kubervisor-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    let write = |name: &str, content: &[u8]| write_file(directory.path().join(name), content, account);
    write("pods.json", &input.pods)?;
    write("fleet.json", &input.fleet)?;
    if let Some(state) = &input.state {
        write("state.json", state)?;
    }
    // Last: afterwards the user may change its content, so no path in it is opened any more.
    if let Some(account) = account {
        chown(directory.path(), Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
    }
    Ok(directory)
}

fn write_file(path: PathBuf, content: &[u8], account: Option<&Account>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Some(account) = account {
        fchown(&file, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pods: usize, state: Option<usize>) -> CallbackFiles {
        let text = |size: usize| Bytes::from("x".repeat(size));
        let input = CallbackInput {
            pods: text(pods),
            digest: "ab:cd".into(),
            state: state.map(text),
            fleet: Bytes::from_static(b"{}"),
        };
        let directory = write_with_fallback(&input, None).unwrap();
        CallbackFiles { directory, input, environment: vec![("HASH".into(), "stale".into())] }
    }

    fn value(variables: &[(OsString, OsString)], name: &str) -> Option<OsString> {
        variables.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn a_variable_is_left_out_at_the_kernel_s_limit_and_not_before() {
        let limit = VARIABLE_LIMIT - "PODS=".len();
        let fits = files(limit, None).variables(true);
        assert_eq!(value(&fits, "PODS").unwrap().len(), limit);
        assert_eq!(value(&fits, "PODS_TRUNCATED"), None);
        let beyond = files(limit + 1, Some(VARIABLE_LIMIT)).variables(true);
        assert_eq!(value(&beyond, "PODS"), None);
        assert_eq!(value(&beyond, "PODS_TRUNCATED").unwrap(), "1");
        assert_eq!(value(&beyond, "STATE"), None);
        assert_eq!(value(&beyond, "STATE_TRUNCATED").unwrap(), "1");
    }

    #[test]
    fn our_variables_override_and_none_of_them_is_inherited() {
        let files = files(2, Some(3));
        let variables = files.variables(true);
        assert_eq!(value(&variables, "HASH").unwrap(), "ab:cd");
        assert_eq!(value(&variables, "MD5").unwrap(), "ab:cd");
        assert_eq!(fs::read(value(&variables, "STATE_FILE").unwrap()).unwrap(), b"xxx");
        for (name, _) in files.variables(true).iter().chain(&files.variables(false)) {
            assert!(CallbackFiles::names().contains(name), "{name:?}");
        }
    }

    #[test]
    fn without_the_large_variables_the_files_have_everything() {
        let files = files(2, Some(3));
        let variables = files.variables(false);
        assert_eq!(value(&variables, "PODS"), None);
        assert_eq!(value(&variables, "STATE"), None);
        assert_eq!(fs::read(value(&variables, "PODS_FILE").unwrap()).unwrap(), b"xx");
    }

    #[test]
    fn without_a_state_its_variables_are_not_set() {
        let variables = files(2, None).variables(true);
        assert!(
            ["STATE", "STATE_FILE", "STATE_TRUNCATED"].iter().all(|name| value(&variables, name).is_none())
        );
    }
}
