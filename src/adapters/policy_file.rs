//! A policy file that is read again when it changes. A new one with a mistake is refused and the old one
//! stays: a typing error must not take the rules away.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::api::{self, Context, Manifest, Problems};

/// The policy in force, and the file that it came from.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    path: PathBuf,
    context: Context,
    seen: FileState,
    current: Arc<Manifest>,
}

/// What the file's last reading was of. Its content, not its time: a ConfigMap's symlink swap keeps
/// times, and a touch changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    Text(Vec<u8>),
    Unreadable(String),
}

impl PolicyFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn open(path: impl Into<PathBuf>, context: Context) -> Result<Self, Problems> {
        let path = path.into();
        let seen = look(&path);
        let current = Arc::new(api::load(&path, context)?);
        Ok(Self { path, context, seen, current })
    }

    /// The policy in force.
    #[must_use]
    pub fn current(&self) -> Arc<Manifest> {
        Arc::clone(&self.current)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again; `true`: it holds another policy now. Cheap enough for every second.
    ///
    /// # Errors
    /// What is wrong with the new one, once per change of the file; the old policy stays.
    pub fn reload(&mut self) -> Result<bool, Problems> {
        let seen = look(&self.path);
        if seen == self.seen {
            return Ok(false);
        }
        self.seen = seen;
        let fresh = api::load(&self.path, self.context)?;
        if fresh.policy == self.current.policy && fresh.rules == self.current.rules {
            return Ok(false);
        }
        self.current = Arc::new(fresh);
        Ok(true)
    }
}

fn look(path: &Path) -> FileState {
    match api::bytes(path) {
        Ok(bytes) => FileState::Text(bytes),
        Err(error) => FileState::Unreadable(error.to_string()),
    }
}
