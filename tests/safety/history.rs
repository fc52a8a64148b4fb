//! Records every revision of the plane's etcd, from the first, each with the moment of its arrival.
//!
//! It runs on a thread of its own: a test that blocks, because it kills a process say, must not make the clock lie.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use etcd_client::{Client, Error, EventType, WatchOptions};
use serde_json::Value;
use tokio::sync::watch;

use super::{checker::Revision, objects};
use crate::plane::Plane;

/// A recording that goes on until it is dropped.
pub(super) struct Recorder {
    etcd: String,
    began: Instant,
    revisions: Arc<Mutex<Vec<Revision>>>,
    reached: watch::Receiver<i64>,
    _stop: mpsc::Sender<()>,
}

impl Recorder {
    /// Starts one; what was stored before arrives first, as if it had all been at once.
    pub(super) fn start(etcd: &str) -> Self {
        let (began, revisions) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let ((told, reached), (stop, stopped)) = (watch::channel(0), mpsc::channel());
        let (url, into) = (etcd.to_owned(), Arc::clone(&revisions));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = record(&url, began, &into, &told) => {}
                    _ = tokio::task::spawn_blocking(move || stopped.recv()) => {}
                }
            });
        });
        Self { etcd: etcd.to_owned(), began, revisions, reached, _stop: stop }
    }

    /// The recording's clock.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Everything that is stored by now.
    pub(super) async fn until_now(&mut self) -> Vec<Revision> {
        let mut client = Client::connect([&self.etcd], None).await.unwrap();
        let now = client.get("/", None).await.unwrap().header().unwrap().revision();
        let whole =
            tokio::time::timeout(Duration::from_secs(30), self.reached.wait_for(|reached| *reached >= now));
        whole.await.expect("the recording is whole within 30 s").unwrap();
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn record(etcd: &str, began: Instant, into: &Mutex<Vec<Revision>>, told: &watch::Sender<i64>) {
    loop {
        let from = *told.borrow() + 1;
        let _broken_off = follow(etcd, from, began, into, told).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn follow(
    etcd: &str,
    from: i64,
    began: Instant,
    into: &Mutex<Vec<Revision>>,
    told: &watch::Sender<i64>,
) -> Result<(), Error> {
    // Everything from the first on may come in a few large answers.
    let client = Client::connect([etcd], None).await?;
    let mut watching = client.watch_client().max_decoding_message_size(1 << 30);
    // All keys: then the last revision that was heard of is the store's own.
    let all = WatchOptions::new().with_all_keys().with_start_revision(from);
    let mut stream = watching.watch("", Some(all)).await?;
    while let Some(answer) = stream.message().await? {
        assert_eq!(answer.compact_revision(), 0, "nothing was compacted");
        let at = began.elapsed();
        for event in answer.events() {
            let Some(pair) = event.kv() else { continue };
            let (number, key) = (pair.mod_revision(), String::from_utf8_lossy(pair.key()).into_owned());
            if objects::identify(&key).is_some() {
                let object = (event.event_type() == EventType::Put)
                    .then(|| serde_json::from_slice::<Value>(pair.value()).expect("stored as JSON"));
                let mut revisions = into.lock().unwrap_or_else(PoisonError::into_inner);
                revisions.push(Revision { number, at, key, object });
            }
            told.send_replace(number);
        }
    }
    Ok(())
}

/// Who wrote which revision, by the audit log.
pub(super) fn authors(plane: &Plane, namespaces: &BTreeSet<String>) -> HashMap<i64, String> {
    let events = namespaces.iter().flat_map(|namespace| plane.audit(namespace));
    let written = events
        .filter(|event| !["get", "list", "watch"].contains(&event["verb"].as_str().unwrap_or_default()));
    let pairs = written.filter_map(|event| {
        let revision = event["responseObject"]["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
        Some((revision, event["user"]["username"].as_str()?.to_owned()))
    });
    // An answer may tell of a revision that it did not make, as a patch that changed nothing: the first one made it.
    let mut authors = HashMap::new();
    for (revision, author) in pairs {
        authors.entry(revision).or_insert(author);
    }
    authors
}
