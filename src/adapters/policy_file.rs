//! A policy file that is reloaded when it changes. If the new content is invalid, the old policy stays in force.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::api::{self, Context, Manifest, Problems};

/// The policy in force and its file.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    path: PathBuf,
    context: Context,
    last_read: FileState,
    current: Arc<Manifest>,
}

/// The content of the file when last read. Its modification time does not serve: a ConfigMap's symlink swap
/// may keep it, and a touch changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    Text(Vec<u8>),
    Unreadable(String),
}

impl PolicyFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn open(path: impl Into<PathBuf>, context: Context) -> Result<Self, Problems> {
        let path = path.into();
        let last_read = read(&path);
        let current = Arc::new(api::load(&path, context)?);
        Ok(Self { path, context, last_read, current })
    }

    /// The policy in force.
    pub fn current(&self) -> Arc<Manifest> {
        Arc::clone(&self.current)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again; true if the policy has changed. Cheap enough for once a second.
    ///
    /// # Errors
    /// The problems of the new content, once per change of the file; the old policy stays in force.
    pub fn reload(&mut self) -> Result<bool, Problems> {
        let content = read(&self.path);
        if content == self.last_read {
            return Ok(false);
        }
        self.last_read = content;
        let fresh = api::load(&self.path, self.context)?;
        if fresh.policy == self.current.policy && fresh.rules == self.current.rules {
            return Ok(false);
        }
        self.current = Arc::new(fresh);
        Ok(true)
    }
}

fn read(path: &Path) -> FileState {
    match api::bytes(path) {
        Ok(bytes) => FileState::Text(bytes),
        Err(error) => FileState::Unreadable(error.to_string()),
    }
}
