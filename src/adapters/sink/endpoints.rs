//! The endpoints file: the addresses that may get traffic, for proxies outside Kubernetes.
//!
//! One task writes the newest projection of the committed roster. A failed write raises an alarm and is retried until it
//! succeeds; a file that was changed by others is restored within [`CHECK_EVERY`]. An empty list replaces a non-empty one
//! only if every pod reported `down`, since a fleet that falls silent at once is more likely cut off than dead.

pub mod command;
pub mod format;
pub mod write;

use std::{collections::BTreeSet, fs, io, net::SocketAddrV4, path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

use self::{command::AfterWrite, write::WriteError};
use crate::{
    alarms::Alarms,
    config::{EndpointsConfig, EndpointsFormat},
    core_task::without_panic,
    decide::alarm_reason::AlarmReason,
};

/// Interval of the checks whether the file was changed or removed by others.
pub const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between two attempts to write.
const RETRY_AT_MOST: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The desired contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Projection {
    /// The addresses that may get traffic.
    pub addresses: BTreeSet<SocketAddrV4>,
    /// Every pod reported `down`; otherwise the list may not become empty.
    pub all_said_down: bool,
}

/// The state of the file, as last written or checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// Number of replacements.
    pub writes: u64,
    /// Number of failed attempts.
    pub failures: u64,
    /// The projection in the file; `None` before the first.
    pub in_force: Option<Projection>,
    /// An empty list is held back.
    pub held_back: bool,
}

/// Handle of the task that writes the file; dropping it stops the task.
pub struct EndpointsFile {
    wanted: watch::Sender<Option<Projection>>,
    status: watch::Receiver<FileStatus>,
    keeper: JoinHandle<()>,
    after: AfterWrite,
}

/// The addresses in the file; none if it does not exist. Blocks.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn read(path: &std::path::Path, format: EndpointsFormat) -> io::Result<BTreeSet<SocketAddrV4>> {
    match fs::read(path) {
        Ok(bytes) => Ok(format::parse(format, &bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

impl EndpointsFile {
    /// Starts the task, which leaves the file alone until the first projection. `fleet` is the name in formats with one.
    pub fn start(config: &EndpointsConfig, fleet: &str, alarms: &Alarms) -> Self {
        let (wanted, projections) = watch::channel(None);
        let (report, status) = watch::channel(FileStatus::default());
        let after = AfterWrite::start(config, alarms);
        let keeper = FileTask {
            path: config.path.clone(),
            format: config.format,
            in_place: config.in_place,
            fleet: fleet.to_owned(),
            alarms: alarms.clone(),
            written: after.trigger(),
            report,
            settled: false,
        };
        let keeper = without_panic(alarms.clone(), "the endpoints file".to_owned(), keeper.run(projections));
        Self { wanted, status, keeper: tokio::spawn(keeper), after }
    }

    /// Requests these contents; a projection that was not written yet is replaced.
    pub fn project(&self, projection: Projection) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&projection);
            *wanted = Some(projection);
            changed
        });
    }

    /// The state of the file.
    pub fn status(&self) -> watch::Receiver<FileStatus> {
        self.status.clone()
    }

    /// Writes the last projection, runs the command if it is due, and stops; gives up after `at_most`.
    pub async fn stop(self, at_most: Duration) {
        let Self { wanted, keeper, after, .. } = self;
        drop(wanted);
        let orderly = async {
            let _ = keeper.await;
            after.finish().await;
        };
        if timeout(at_most, orderly).await.is_err() {
            tracing::warn!("the endpoints file or its command was not finished {at_most:?} after the stop");
        }
    }
}

struct FileTask {
    path: PathBuf,
    format: EndpointsFormat,
    in_place: bool,
    fleet: String,
    alarms: Alarms,
    written: Arc<Notify>,
    report: watch::Sender<FileStatus>,
    /// The command was triggered for the file's contents since this process started.
    settled: bool,
}

/// The result of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteOutcome {
    Same,
    Replaced,
    HeldBack,
}

impl FileTask {
    async fn run(mut self, mut projections: watch::Receiver<Option<Projection>>) {
        let path = self.path.clone();
        let _ = tokio::task::spawn_blocking(move || write::sweep(&path)).await;
        let mut retry = RETRY_FIRST;
        loop {
            let projection = projections.borrow_and_update().clone();
            let done = match projection {
                None => Ok(Duration::MAX),
                Some(projection) => self.attempt(projection).await.map(|()| CHECK_EVERY),
            };
            let wait = done.unwrap_or(retry);
            retry = if done.is_ok() { RETRY_FIRST } else { (retry * 2).min(RETRY_AT_MOST) };
            // The handle was dropped, and the last projection was attempted.
            if let Ok(Err(_)) = timeout(wait, projections.changed()).await {
                return;
            }
        }
    }

    async fn attempt(&mut self, projection: Projection) -> Result<(), ()> {
        let bytes = format::render(self.format, &self.fleet, &projection.addresses);
        let may_empty = !projection.addresses.is_empty() || projection.all_said_down;
        let (path, format, in_place) = (self.path.clone(), self.format, self.in_place);
        let done =
            tokio::task::spawn_blocking(move || attempt(&path, format, in_place, &bytes, may_empty)).await;
        match done {
            Ok(Ok(outcome)) => {
                self.took(outcome, projection);
                Ok(())
            }
            Ok(Err(error)) => {
                if error.landed() {
                    self.settled = true;
                    self.written.notify_one();
                }
                self.alarms.raise(AlarmReason::EndpointsWrite, format!("{error}; trying again"));
                self.report.send_modify(|status| status.failures += 1);
                Err(())
            }
            Err(_) => Err(()),
        }
    }

    fn took(&mut self, outcome: WriteOutcome, projection: Projection) {
        self.alarms.clear(AlarmReason::EndpointsWrite);
        let held_back = outcome == WriteOutcome::HeldBack;
        let path = &self.path;
        self.alarms.set(AlarmReason::EndpointsEmpty, held_back, || {
            format!(
                "no pod may get traffic, yet not every pod said it is down: {} stays as it is; check whether this master can be reached",
                path.display()
            )
        });
        self.report.send_if_modified(|status| {
            let before = status.clone();
            status.writes += u64::from(outcome == WriteOutcome::Replaced);
            status.held_back = held_back;
            if !held_back {
                status.in_force = Some(projection);
            }
            *status != before
        });
        // Also once for an unchanged file: an earlier process may have ended between write and command.
        if outcome == WriteOutcome::Replaced || (!self.settled && !held_back) {
            self.settled = true;
            self.written.notify_one();
        }
    }
}

fn attempt(
    path: &std::path::Path,
    format: EndpointsFormat,
    in_place: bool,
    bytes: &[u8],
    may_empty: bool,
) -> Result<WriteOutcome, WriteError> {
    // An unreadable file counts as missing, unless the new list is empty.
    let current = fs::read(path);
    if current.as_ref().is_ok_and(|current| current == bytes) {
        return Ok(WriteOutcome::Same);
    }
    let not_empty = match &current {
        Ok(current) => !format::parse(format, current).is_empty(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if not_empty && !may_empty {
        return Ok(WriteOutcome::HeldBack);
    }
    write::replace(path, bytes, in_place).map(|()| WriteOutcome::Replaced)
}
