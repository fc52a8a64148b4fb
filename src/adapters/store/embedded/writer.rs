//! The thread that owns the file: it joins all waiting requests into one durable transaction, then answers them.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::file::File;
use crate::{
    adapters::store::{
        Records, StoreError,
        layout::{SINGLES, Writes},
        mirror::Mirror,
    },
    alarms::Alarms,
    core_task,
};

type WriterReply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to the thread.
pub(super) enum WriterRequest {
    /// Reads all records.
    Load(WriterReply<Records>),
    /// Writes durably; answered after the transaction is on disk.
    Commit(Writes, WriterReply<()>),
}

/// Most requests in one transaction.
const BATCH: usize = 256;

/// Handle of the thread, which ends and closes the file when this is closed or dropped.
pub(super) struct Writer {
    requests: Mutex<Option<mpsc::Sender<WriterRequest>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread and waits until the mirror holds the file's records.
    pub(super) async fn start(
        mut file: File,
        mirror: Arc<Mirror>,
        alarms: Alarms,
    ) -> Result<Self, StoreError> {
        let (requests, inbox) = mpsc::channel();
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let first = SINGLES.into_iter().try_for_each(|record| {
                    mirror.set(record, file.read(record)?);
                    Ok::<_, StoreError>(())
                });
                let usable = first.is_ok();
                if ready.send(first).is_ok() && usable {
                    core_task::thread(&alarms, "the store's file", || run(&inbox, &mut file, &mirror));
                }
            })
            .map_err(|error| StoreError::Unavailable(format!("no thread for the store: {error}")))?;
        started.await.map_err(|_| {
            StoreError::Unusable(
                "its thread ended by a panic while it read the file; the log says more".to_owned(),
            )
        })??;
        Ok(Self { requests: Mutex::new(Some(requests)), thread: Mutex::new(Some(thread)) })
    }

    /// Sends the request; `false` when the thread has ended.
    pub(super) fn send(&self, request: WriterRequest) -> bool {
        self.requests.lock().as_ref().is_some_and(|requests| requests.send(request).is_ok())
    }

    /// Completes waiting requests and closes the file.
    pub(super) async fn close(&self) {
        self.requests.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the thread of the store ended by a panic");
            }
        }
    }
}

impl Drop for Writer {
    /// Joins the thread, so that the file can be opened again at once.
    fn drop(&mut self) {
        self.requests.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn run(inbox: &mpsc::Receiver<WriterRequest>, file: &mut File, mirror: &Mirror) {
    while let Ok(first) = inbox.recv() {
        let (mut commits, mut loads) = (Vec::new(), Vec::new());
        for request in std::iter::once(first).chain(inbox.try_iter().take(BATCH - 1)) {
            match request {
                WriterRequest::Commit(writes, reply) => commits.push((writes, reply)),
                WriterRequest::Load(reply) => loads.push(reply),
            }
        }
        commit(file, mirror, commits);
        for reply in loads {
            let _ = reply.send(file.load());
        }
    }
}

fn commit(file: &mut File, mirror: &Mirror, commits: Vec<(Writes, WriterReply<()>)>) {
    if commits.is_empty() {
        return;
    }
    let outcome = file.write(commits.iter().map(|(writes, _)| writes));
    for (writes, reply) in commits {
        if outcome.is_ok() {
            writes.into_iter().for_each(|(record, value)| mirror.set(record, value));
        }
        let _ = reply.send(outcome.clone());
    }
}
