//! The file that the page is written to.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::exit::Exit;

/// A file for the page: opened before the replay, because one that cannot be written is better known before.
pub(in crate::roles::report) struct PageFile {
    path: PathBuf,
    file: File,
}

impl PageFile {
    /// # Errors
    /// 1 when the file cannot be made.
    pub(in crate::roles::report) fn create(path: &Path) -> Result<Self, Exit> {
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// # Errors
    /// 1 when it cannot be written, for example on a full disk.
    pub(in crate::roles::report) fn write(mut self, page: &str) -> Result<(), Exit> {
        let written = self.file.write_all(page.as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Exit {
    Exit::Failed(anyhow::anyhow!(
        "cannot write the page to {}: {error}; name a file that can be written, on a disk with room for it",
        path.display()
    ))
}
