//! The payload file: watched through its directory, because that is what changes when a ConfigMap swaps its symlinks,
//! when an editor renames a new file into place, and when the file appears late.
//!
//! Events are only a hint: each one makes us look. A slow poll looks too, so that a file system without
//! events (or a directory that is made later) costs a second, not correctness.

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
use tokio::{io::AsyncReadExt, sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use super::speech::{PayloadError, Speaker};
use crate::decide::keepalive::MAX_SIZE;

/// How long events are gathered before we look: a file that is being written is seen once, whole.
const GATHER: Duration = Duration::from_millis(10);
/// The safety net.
const POLL: Duration = Duration::from_secs(1);

/// Tells one version of the file from another, even with the same content (a touched file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Why the file could not be taken; the last good payload stays.
#[derive(Debug, thiserror::Error)]
enum ReadError {
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

/// The file, what was last seen of it, and the watch on its directory.
pub(super) struct PayloadFile {
    path: PathBuf,
    speaker: Speaker,
    seen: Option<Stamp>,
    content: Option<String>,
    complaint: Option<String>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the directory that is watched.
    watched: Option<(u64, u64)>,
    events: mpsc::Receiver<()>,
}

impl PayloadFile {
    /// Starts to watch `path`, and looks at it once, so that the first keepalive has the payload already.
    pub(super) async fn open(path: PathBuf, speaker: Speaker) -> Self {
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
        let (seen, content, complaint, watched) = (None, None, None, None);
        let mut file = Self { path, speaker, seen, content, complaint, watcher, watched, events };
        file.arm();
        file.look(true).await;
        file
    }

    /// Looks whenever something may have changed, until `stop`.
    pub(super) async fn follow(mut self, stop: CancellationToken) {
        let mut poll = time::interval(POLL);
        poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = self.events.recv() => {
                    time::sleep(GATHER).await;
                    let _gathered = self.events.try_recv();
                    self.look(true).await;
                }
                _ = poll.tick() => {
                    let rearmed = self.arm();
                    self.look(rearmed).await;
                }
            }
        }
    }

    /// Watches the directory as it is now, if it is another one than before. True when it is.
    fn arm(&mut self) -> bool {
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

    /// Takes the file if it is another one than before, or was touched. `read` looks into it in any case:
    /// two writes within one tick of the file system's clock have the same stamp.
    async fn look(&mut self, read: bool) {
        match self.read_if_changed(read).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::debug!(file = %self.path.display(), "payload taken");
                self.complaint = None;
            }
            Err(error) => self.complain(&error),
        }
    }

    async fn read_if_changed(&mut self, read: bool) -> Result<bool, ReadError> {
        let meta = tokio::fs::metadata(&self.path).await.inspect_err(|_| self.seen = None)?;
        let stamp = Stamp {
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
            return Err(ReadError::NotAFile);
        }
        let content = read_text(&self.path).await?;
        if !touched && self.content.as_ref() == Some(&content) {
            return Ok(false);
        }
        self.content = Some(content);
        self.speaker.take(self.content.as_deref().unwrap_or_default())?;
        Ok(true)
    }

    /// Says once what is wrong, not once a second.
    fn complain(&mut self, error: &ReadError) {
        let text = error.to_string();
        if self.complaint.as_ref() == Some(&text) {
            return;
        }
        let file = self.path.display();
        match error {
            ReadError::Read(source) if source.kind() == io::ErrorKind::NotFound => {
                tracing::info!("payload file {file} is not there; the last payload stays");
            }
            // Most likely it is being written.
            ReadError::Empty => tracing::debug!("payload file {file} is empty; the last payload stays"),
            _ => tracing::warn!("payload file {file} is skipped, the last payload stays: {text}"),
        }
        self.complaint = Some(text);
    }
}

/// Whether an event may mean another content; our own reading makes events too.
fn is_a_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

async fn read_text(path: &Path) -> Result<String, ReadError> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).await?;
    match bytes.len() {
        0 => return Err(ReadError::Empty),
        1..=MAX_SIZE => {}
        _ => return Err(ReadError::TooLarge),
    }
    String::from_utf8(bytes).map_err(|_| ReadError::NotText)
}
