//! Replaces a file atomically and durably.
//!
//! A temporary file in the same directory is written, synced and renamed over the old one; then the directory is synced, since
//! the rename could be lost in a power failure.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

/// Readable by a proxy that runs as another user.
const MODE: u32 = 0o644;
const TEMPORARY: &str = ".kubervisor-tmp";

/// The step at which a replacement failed; the old file is as it was, except after `SyncDirectory`.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The directory is missing or not writable.
    #[error("cannot create a temporary file in {}: {}; create the directory and let this user write to it", .0.display(), .1)]
    CreateTemporary(PathBuf, #[source] io::Error),
    /// The disk is full, for instance.
    #[error("cannot write the new {}: {}; the old file stays", .0.display(), .1)]
    WriteTemporary(PathBuf, #[source] io::Error),
    /// The file itself is a mount, which no other file can replace.
    #[error("{} is a mount of its own and cannot be replaced; mount its directory instead, or set KUBERVISOR_ENDPOINTS_IN_PLACE=true", .0.display())]
    Mounted(PathBuf, #[source] io::Error),
    /// The path is a directory, or the directory became read-only.
    #[error("cannot put the new {} in place: {}; the old file stays", .0.display(), .1)]
    Rename(PathBuf, #[source] io::Error),
    /// The new file is in place, but may be lost in a power failure.
    #[error("cannot sync {}: {}", .0.display(), .1)]
    SyncDirectory(PathBuf, #[source] io::Error),
}

impl WriteError {
    /// Whether the new file is in place all the same.
    pub fn landed(&self) -> bool {
        matches!(self, Self::SyncDirectory(..))
    }
}

/// Replaces the contents of `path` by `bytes`. Blocks: call it off the runtime's threads.
///
/// An existing file keeps its mode, and where this user may give it away its owner, group and extended attributes (ACL,
/// label). A symbolic link stays: where it points to is replaced, or made.
///
/// `in_place` writes into the file as it is, which a reader may see half written.
///
/// # Errors
/// One variant per step; the temporary file is removed.
pub fn replace(path: &Path, bytes: &[u8], in_place: bool) -> Result<(), WriteError> {
    let path = &target(path);
    let directory = directory_of(path);
    if in_place {
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).open(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        return write().map_err(|source| WriteError::WriteTemporary(path.clone(), source));
    }
    let old = fs::metadata(path).ok();
    let mode = old.as_ref().map_or(MODE, |old| old.permissions().mode() & 0o777);
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix(path))
        .suffix(TEMPORARY)
        .tempfile_in(directory)
        .map_err(|source| WriteError::CreateTemporary(directory.to_owned(), source))?;
    let written = |file: &mut File| {
        file.write_all(bytes)?;
        if let Some(old) = &old {
            keep_owner(file, old);
            keep_attributes(path, file);
        }
        // On the open file, so that the process's umask does not apply; last, because a new owner clears bits.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    written(temporary.as_file_mut()).map_err(|source| WriteError::WriteTemporary(path.clone(), source))?;
    temporary.persist(path).map_err(|failed| match failed.error.kind() {
        io::ErrorKind::ResourceBusy => WriteError::Mounted(path.clone(), failed.error),
        _ => WriteError::Rename(path.clone(), failed.error),
    })?;
    let synced = File::open(directory).and_then(|opened| opened.sync_all());
    synced.or_else(|source| match Errno::from_io_error(&source) {
        // File systems without it, such as older CIFS and some FUSE ones.
        Some(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        _ => Err(WriteError::SyncDirectory(directory.to_owned(), source)),
    })
}

/// Where the links of `path` lead, whether or not there is a file yet.
fn target(path: &Path) -> PathBuf {
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = fs::read_link(&path) else { break };
        path = directory_of(&path).join(next);
    }
    fs::canonicalize(&path).unwrap_or(path)
}

/// Gives the file the old one's owner and group, each as far as this user may.
fn keep_owner(file: &File, old: &fs::Metadata) {
    let owned = fchown(file, Some(old.uid()), Some(old.gid()));
    let _as_far_as_allowed = owned.or_else(|_| fchown(file, None, Some(old.gid())));
}

/// Copies the old file's extended attributes, each as far as this user and the file system allow.
fn keep_attributes(old: &Path, file: &File) {
    let mut names = vec![0; 1 << 16];
    let Ok(size) = rustix::fs::listxattr(old, &mut names) else { return };
    let mut value = vec![0; 1 << 16];
    for name in names.get(..size).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty())
    {
        let Ok(size) = rustix::fs::getxattr(old, name, &mut value) else { continue };
        let value = value.get(..size).unwrap_or_default();
        if let Err(error) = rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty()) {
            tracing::debug!("an attribute of {} is not kept: {error}", old.display());
        }
    }
}

/// Removes temporary files of a process that was killed during [`replace`]. Blocks.
pub fn sweep(path: &Path) {
    let prefix = prefix(path);
    let Ok(entries) = fs::read_dir(directory_of(path)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
            && name.as_encoded_bytes().ends_with(TEMPORARY.as_bytes());
        if ours && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!("cannot remove the leftover {}: {error}", entry.path().display());
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The start of a temporary file's name: hidden; with its own suffix it matches neither `*.json` nor `*.conf`.
fn prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_new_file_is_readable_by_all_and_an_old_one_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        replace(&path, b"one", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"two", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(directory.path()), ["web.json"]);
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, b"new", false).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_missing_directory_and_a_path_that_is_a_directory_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let missing = replace(&directory.path().join("none/web.json"), b"x", false).unwrap_err();
        assert!(matches!(missing, WriteError::CreateTemporary { .. }), "{missing:?}");
        assert!(missing.to_string().contains("create the directory"), "{missing}");
        let taken = directory.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(matches!(replace(&taken, b"x", false), Err(WriteError::Rename { .. })));
        assert_eq!(names(directory.path()), ["taken"]);
    }

    #[test]
    fn leftovers_of_a_killed_writer_are_swept_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in
            [".web.json.abc.kubervisor-tmp", ".web.json.abc", "web.json", ".api.json.x.kubervisor-tmp"]
        {
            fs::write(directory.path().join(name), b"").unwrap();
        }
        sweep(&directory.path().join("web.json"));
        let mut left = names(directory.path());
        left.sort();
        assert_eq!(left, [".api.json.x.kubervisor-tmp", ".web.json.abc", "web.json"]);
    }

    #[test]
    fn owner_group_and_attributes_are_kept_and_a_link_leads_to_what_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("web.json"), directory.path().join("link.json"));
        std::os::unix::fs::symlink("web.json", &link).unwrap();
        replace(&link, b"one", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one", "the link's target is made");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let root = rustix::process::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(33), Some(33)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let labelled = rustix::fs::setxattr(&path, "user.note", b"x", rustix::fs::XattrFlags::empty());
        replace(&link, b"two", false).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o640);
        if root {
            assert_eq!((meta.uid(), meta.gid()), (33, 33));
        }
        if labelled.is_ok() {
            let mut value = [0; 8];
            assert_eq!(rustix::fs::getxattr(&path, "user.note", &mut value).unwrap(), 1);
        }
    }

    #[test]
    fn in_place_the_file_stays_the_same_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        replace(&path, b"longer", false).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        replace(&path, b"new", true).unwrap();
        assert_eq!((fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap()), (before, b"new".to_vec()));
        assert_eq!(names(directory.path()), ["web.json"]);
    }
}
