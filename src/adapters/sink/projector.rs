//! Projects the committed roster onto this master's endpoints file, on leaders and followers.
//!
//! Its only input is the store, so the file is never ahead of what was committed.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::endpoints::{EndpointsFile, FileStatus, Projection};
use crate::{
    adapters::store::{RecordKey, Store},
    alarms::Alarms,
    config::EndpointsConfig,
    core_task::without_panic,
    decide::alarm_reason::AlarmReason,
    decide::roster::Roster,
};

/// Time limit of a stop for the last write and its command.
const STOP: Duration = Duration::from_secs(5);

/// Handle of the task; dropping it aborts the task and leaves the file.
pub struct Projector {
    stop: CancellationToken,
    task: JoinHandle<()>,
    status: watch::Receiver<FileStatus>,
}

impl Projector {
    /// Starts projecting the rosters of the fleet `of` (`<namespace>/<app>`); `name` is its name in the file.
    pub fn start(store: &dyn Store, config: &EndpointsConfig, of: &str, name: &str, alarms: &Alarms) -> Self {
        let file = EndpointsFile::start(config, name, alarms);
        let status = file.status();
        let stop = CancellationToken::new();
        let follow = ProjectorTask {
            rosters: store.follow(RecordKey::Ledger),
            of: of.to_owned(),
            alarms: alarms.clone(),
            file,
        };
        let name = "the projection of the roster".to_owned();
        let following = without_panic(alarms.clone(), name, follow.run(stop.clone()));
        Self { task: tokio::spawn(following), stop, status }
    }

    /// The state of the file.
    pub fn status(&self) -> watch::Receiver<FileStatus> {
        self.status.clone()
    }

    /// Stops after the last write and its command.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct ProjectorTask {
    rosters: watch::Receiver<Option<Bytes>>,
    of: String,
    alarms: Alarms,
    file: EndpointsFile,
}

impl ProjectorTask {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let record = self.rosters.borrow_and_update().clone();
            self.project(record);
            tokio::select! {
                changed = self.rosters.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        self.file.stop(STOP).await;
    }

    /// Without a record the file stays as it is.
    fn project(&self, record: Option<Bytes>) {
        let Some(record) = record else { return };
        match Roster::decode(&record, &self.of) {
            Ok(roster) => {
                self.alarms.clear(AlarmReason::RosterUnusable);
                self.file.project(Projection {
                    addresses: roster.addresses(),
                    all_said_down: roster.all_said_down,
                });
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
                self.alarms.raise(
                    AlarmReason::RosterUnusable,
                    format!("{error}{source}; the endpoints file stays as it is"),
                );
            }
        }
    }
}
