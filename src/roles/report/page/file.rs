//! The file that the page is written to.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

use crate::exit::Exit;

/// A file for the page. Whether it can be written is found out before the replay, because that is better known before;
/// what stands in it is kept until the new page is complete beside it.
pub(in crate::roles::report) struct PageFile {
    /// As it was named.
    named: PathBuf,
    place: PagePlace,
}

/// How the page comes into its file.
enum PagePlace {
    /// A file beside it takes its name.
    Beside(PathBuf),
    /// A device or a pipe, or a file in a folder that takes no other: written as it is.
    Within(File),
}

impl PageFile {
    /// # Errors
    /// 1 when the file cannot be made.
    pub(in crate::roles::report) fn create(path: &Path) -> Result<Self, Exit> {
        let named = path.to_owned();
        PagePlace::of(path).map(|place| Self { place, named }).map_err(|error| cannot_write(path, &error))
    }

    /// # Errors
    /// 1 when it cannot be written, for example on a full disk. A file that was there is as before then.
    pub(in crate::roles::report) fn write(self, page: &str) -> Result<(), Exit> {
        let written = match self.place {
            PagePlace::Beside(target) => replace(&target, page),
            PagePlace::Within(mut file) => overwrite(&mut file, page),
        };
        written.map_err(|error| cannot_write(&self.named, &error))
    }
}

impl PagePlace {
    fn of(path: &Path) -> io::Result<Self> {
        // The file that a link leads to is replaced, not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let Ok(found) = fs::metadata(&target) else {
            // The file is removed again at once: a replay that is killed leaves nothing behind.
            return beside(&target).map(|_| Self::Beside(target));
        };
        let file = OpenOptions::new().write(true).open(&target)?;
        let replaced = found.is_file() && beside(&target).is_ok();
        Ok(if replaced { Self::Beside(target) } else { Self::Within(file) })
    }
}

/// A new file in the folder of `target`, with the rights of a file that anybody makes there.
fn beside(target: &Path) -> io::Result<NamedTempFile> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Builder::new().prefix(".kubervisor-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

fn replace(target: &Path, page: &str) -> io::Result<()> {
    let mut file = beside(target)?;
    if let Ok(before) = fs::metadata(target) {
        file.as_file().set_permissions(before.permissions())?;
    }
    file.as_file_mut().write_all(page.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(target).map(drop).map_err(|refused| refused.error)
}

fn overwrite(file: &mut File, page: &str) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(page.as_bytes()).and_then(|()| file.flush())
}

fn cannot_write(path: &Path, error: &io::Error) -> Exit {
    Exit::Failed(anyhow::anyhow!(
        "cannot write the page to {}: {error}; name a file that can be written, on a disk with room for it",
        path.display()
    ))
}
