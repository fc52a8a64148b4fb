//! The background task of a store, which ends in order when the store is told to leave.

use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{alarms::Alarms, core_task::without_panic};

/// A running task; it is aborted when this is dropped.
pub(super) struct BackgroundTask {
    leaving: CancellationToken,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl BackgroundTask {
    /// Runs `task`, which leaves when its token is cancelled; its panic is an alarm about `name`.
    pub(super) fn start<F: Future<Output = ()> + Send + 'static>(
        alarms: &Alarms,
        name: &str,
        task: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let leaving = CancellationToken::new();
        let task = without_panic(alarms.clone(), name.to_owned(), task(leaving.clone()));
        Self { leaving, task: Mutex::new(Some(AbortOnDropHandle::new(tokio::spawn(task)))) }
    }

    /// Has the task leave, and waits for its end.
    pub(super) async fn leave(&self) {
        self.leaving.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}
