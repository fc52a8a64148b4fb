//! The payload file. Its directory is watched, because that changes when a ConfigMap swaps its symlinks, when an editor
//! renames a new file into place, and when the file appears late.
//!
//! An event only causes a check of the file. A poll of 1 s checks it too, for file systems without events and for
//! directories that are made later.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::composer::{KeepaliveComposer, PayloadError};
use crate::decide::keepalive::MAX_SIZE;

/// Delay from an event to the check, so that a file that is being written is read once, whole.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Interval of checks without an event.
const POLL: Duration = Duration::from_secs(1);

/// Identifies a version of the file, also one with the same content (a touched file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Why the file was not taken; the last good payload stays.
#[derive(Debug, thiserror::Error)]
enum PayloadFileError {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("it is no regular file")]
    NotAFile,
    #[error("it has more than {MAX_SIZE} bytes")]
    TooLarge,
    #[error("it is not UTF-8")]
    NotText,
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// The file, its last version, and the watch on its directory.
pub(super) struct PayloadFile {
    path: PathBuf,
    composer: KeepaliveComposer,
    seen: Option<FileStamp>,
    content: Option<String>,
    /// The last error that was logged.
    logged: Option<String>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the directory that is watched.
    watched: Option<(u64, u64)>,
    events: mpsc::Receiver<()>,
    /// After this time without a valid file the keepalives say `stale`.
    max_age: Option<Duration>,
    /// When the file was last found valid.
    valid: Instant,
}

impl PayloadFile {
    /// Watches `path` and reads it once, so that the first keepalive has the payload.
    pub(super) async fn open(path: PathBuf, composer: KeepaliveComposer, max_age: Option<Duration>) -> Self {
        let (hint, events) = mpsc::channel(1);
        let handler = move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, is_a_change) {
                // A full channel holds a hint already.
                let _ = hint.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!("cannot watch files, polling each second instead: {error}"))
            .ok();
        let (seen, content, logged, watched) = (None, None, None, None);
        let valid = Instant::now();
        let mut file =
            Self { path, composer, seen, content, logged, watcher, watched, events, max_age, valid };
        file.watch_directory();
        file.check(true).await;
        file
    }

    /// Checks the file after each event and each poll, until `stop`.
    pub(super) async fn follow(mut self, stop: CancellationToken) {
        let mut poll = time::interval(POLL);
        poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = self.events.recv() => {
                    time::sleep(DEBOUNCE).await;
                    let _same_change = self.events.try_recv();
                    self.check(true).await;
                }
                _ = poll.tick() => {
                    let replaced = self.watch_directory();
                    self.check(replaced).await;
                }
            }
        }
    }

    /// Watches the directory if it is another one than before, and returns whether it is.
    fn watch_directory(&mut self) -> bool {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let identity = std::fs::metadata(folder).ok().map(|meta| (meta.dev(), meta.ino()));
        if identity == self.watched {
            return false;
        }
        self.watched = identity.filter(|_| {
            let watching =
                self.watcher.as_mut().map(|watcher| watcher.watch(folder, RecursiveMode::NonRecursive));
            matches!(watching, Some(Ok(())))
        });
        true
    }

    /// Takes the file if its version has changed. `read` compares the content in any case, because two writes within
    /// one tick of the file system's clock have the same stamp.
    async fn check(&mut self, read: bool) {
        match self.read_if_changed(read).await {
            // An unchanged file that was refused stays refused.
            Ok(false) if self.logged.is_some() => self.age(),
            Ok(false) => self.valid = Instant::now(),
            Ok(true) => {
                tracing::debug!(file = %self.path.display(), "payload taken");
                self.logged = None;
                self.valid = Instant::now();
            }
            Err(error) => {
                self.log(&error);
                self.age();
            }
        }
    }

    /// Marks the last payload as stale once it is too old.
    fn age(&self) {
        if self.max_age.is_some_and(|limit| self.valid.elapsed() > limit) && self.composer.mark_stale() {
            let seconds = self.valid.elapsed().as_secs();
            tracing::warn!(
                "payload file {} was last valid {seconds} s ago: its payload counts as no data from now on",
                self.path.display()
            );
        }
    }

    async fn read_if_changed(&mut self, read: bool) -> Result<bool, PayloadFileError> {
        let meta = tokio::fs::metadata(&self.path).await.inspect_err(|_| self.seen = None)?;
        let stamp = FileStamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        };
        let touched = self.seen != Some(stamp);
        if !touched && !read {
            return Ok(false);
        }
        self.seen = Some(stamp);
        if !meta.is_file() {
            return Err(PayloadFileError::NotAFile);
        }
        let content = read_text(&self.path).await?;
        if !touched && self.content.as_ref() == Some(&content) {
            return Ok(false);
        }
        self.content = Some(content);
        self.composer.set_payload(self.content.as_deref().unwrap_or_default())?;
        Ok(true)
    }

    /// Logs an error once, not at every poll.
    fn log(&mut self, error: &PayloadFileError) {
        let text = error.to_string();
        if self.logged.as_ref() == Some(&text) {
            return;
        }
        let file = self.path.display();
        match error {
            PayloadFileError::Read(source) if source.kind() == io::ErrorKind::NotFound => {
                tracing::info!("payload file {file} is not there; the last payload stays");
            }
            // Probably it is being written.
            PayloadFileError::Empty => {
                tracing::debug!("payload file {file} is empty; the last payload stays")
            }
            _ => tracing::warn!("payload file {file} is skipped, the last payload stays: {text}"),
        }
        self.logged = Some(text);
    }
}

/// Whether an event may be a change; reading the file makes events too.
fn is_a_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

async fn read_text(path: &Path) -> Result<String, PayloadFileError> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).await?;
    match bytes.len() {
        0 => return Err(PayloadFileError::Empty),
        1..=MAX_SIZE => {}
        _ => return Err(PayloadFileError::TooLarge),
    }
    let text = String::from_utf8(bytes).map_err(|_| PayloadFileError::NotText)?;
    // Some editors begin a file with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}
