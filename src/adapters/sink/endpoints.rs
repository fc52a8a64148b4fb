//! The endpoints file: the addresses that may get traffic, for proxies that know no Kubernetes.
//!
//! The file is a projection of the committed roster and carries no authority: one task writes it,
//! the newest projection wins, a failed write is alarmed and tried again until it succeeds, and a
//! file that somebody else changed is put right within [`CHECK_EVERY`]. An empty list never
//! replaces one that is not, unless every pod said `down`: a fleet that fell silent all at once is
//! far more likely our own blindness than its death.

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
    decide::alarm_reason::AlarmReason,
};

/// A file that was damaged or removed behind our back is right again after at most this long.
pub const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The longest wait between two attempts to write.
const RETRY_AT_MOST: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// What the file should say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Projection {
    /// Who may get traffic.
    pub addresses: BTreeSet<SocketAddrV4>,
    /// Every pod that ever was said `down`: the only time at which the list may become empty.
    pub all_said_down: bool,
}

/// What the file says, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// Replacements so far.
    pub writes: u64,
    /// Attempts that failed so far.
    pub failures: u64,
    /// The projection that is in force; `None` before the first.
    pub in_force: Option<Projection>,
    /// An empty list is held back.
    pub held_back: bool,
}

/// The task that keeps the file; dropping it stops the task.
pub struct EndpointsFile {
    wanted: watch::Sender<Option<Projection>>,
    status: watch::Receiver<FileStatus>,
    keeper: JoinHandle<()>,
    after: AfterWrite,
}

/// The addresses in the file as it is now; none when there is no file. Blocks.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(path: &std::path::Path, format: EndpointsFormat) -> io::Result<BTreeSet<SocketAddrV4>> {
    match fs::read(path) {
        Ok(bytes) => Ok(format::parse(format, &bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

impl EndpointsFile {
    /// Starts the task; it touches the file only once there is a projection. `fleet` names the fleet in the formats that have a name.
    #[must_use]
    pub fn start(config: &EndpointsConfig, fleet: &str, alarms: &Alarms) -> Self {
        let (wanted, wishes) = watch::channel(None);
        let (report, status) = watch::channel(FileStatus::default());
        let after = AfterWrite::start(config, alarms.clone());
        let keeper = FileTask {
            path: config.path.clone(),
            format: config.format,
            fleet: fleet.to_owned(),
            alarms: alarms.clone(),
            written: after.trigger(),
            report,
            settled: false,
        };
        Self { wanted, status, keeper: tokio::spawn(keeper.run(wishes)), after }
    }

    /// Makes the file say this, soon; a projection that was not written yet is skipped.
    pub fn project(&self, projection: Projection) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&projection);
            *wanted = Some(projection);
            changed
        });
    }

    /// What the file says, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<FileStatus> {
        self.status.clone()
    }

    /// Writes what is still to be written, runs the command once more if it is due, and ends; gives up after `at_most`.
    pub async fn stop(self, at_most: Duration) {
        let Self { wanted, keeper, after, .. } = self;
        drop(wanted);
        let orderly = async {
            let _ = keeper.await;
            after.finish().await;
        };
        if timeout(at_most, orderly).await.is_err() {
            tracing::warn!("the endpoints file or its command was not done {at_most:?} after the stop");
        }
    }
}

struct FileTask {
    path: PathBuf,
    format: EndpointsFormat,
    fleet: String,
    alarms: Alarms,
    written: Arc<Notify>,
    report: watch::Sender<FileStatus>,
    /// The command has run for what the file says since this process began.
    settled: bool,
}

/// What one attempt did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteOutcome {
    Same,
    Replaced,
    HeldBack,
}

impl FileTask {
    async fn run(mut self, mut wishes: watch::Receiver<Option<Projection>>) {
        let path = self.path.clone();
        let _ = tokio::task::spawn_blocking(move || write::sweep(&path)).await;
        let mut retry = RETRY_FIRST;
        loop {
            let wish = wishes.borrow_and_update().clone();
            let done = match wish {
                None => Ok(Duration::MAX),
                Some(projection) => self.attempt(projection).await.map(|()| CHECK_EVERY),
            };
            let wait = done.unwrap_or(retry);
            retry = if done.is_ok() { RETRY_FIRST } else { (retry * 2).min(RETRY_AT_MOST) };
            // An error: nobody wants anything any more, and the last wish was attempted.
            if let Ok(Err(_)) = timeout(wait, wishes.changed()).await {
                return;
            }
        }
    }

    async fn attempt(&mut self, projection: Projection) -> Result<(), ()> {
        let bytes = format::render(self.format, &self.fleet, &projection.addresses);
        let may_empty = !projection.addresses.is_empty() || projection.all_said_down;
        let (path, format) = (self.path.clone(), self.format);
        let done = tokio::task::spawn_blocking(move || attempt(&path, format, &bytes, may_empty)).await;
        match done {
            Ok(Ok(outcome)) => {
                self.took(outcome, projection);
                Ok(())
            }
            Ok(Err(error)) => {
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
        // Also after the first look at an unchanged file: an earlier process may have died between
        // its write and its command.
        if outcome == WriteOutcome::Replaced || (!self.settled && !held_back) {
            self.settled = true;
            self.written.notify_one();
        }
    }
}

fn attempt(
    path: &std::path::Path,
    format: EndpointsFormat,
    bytes: &[u8],
    may_empty: bool,
) -> Result<WriteOutcome, WriteError> {
    // A file that cannot be read is replaced like one that is not there, unless that would empty it.
    let current = fs::read(path);
    if current.as_ref().is_ok_and(|current| current == bytes) {
        return Ok(WriteOutcome::Same);
    }
    let lists_somebody = match &current {
        Ok(current) => !format::parse(format, current).is_empty(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if lists_somebody && !may_empty {
        return Ok(WriteOutcome::HeldBack);
    }
    write::replace(path, bytes).map(|()| WriteOutcome::Replaced)
}
