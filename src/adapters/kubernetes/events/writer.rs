//! The writer of Events: one request at a time, repeated Events as one series.

use std::time::Duration;

use jiff::Timestamp as Instant;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1 as k8s},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Event, EventSettings, ObjectRef, QueuedEvent,
    series::{SeriesEntry, SeriesKey, SeriesTable, SeriesUpdate},
};
use crate::decide::time::{Moment, Timestamp};

/// Bytes that the API server accepts of a note.
const MAX_NOTE: usize = 1024;
/// Bytes that the API server accepts of a reason, an action or an instance.
const MAX_REASON: usize = 128;
/// An Event is written this long after the decision, which leaves the endpoint controllers CPU.
const DELAY: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts while the API server is unreachable or busy.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// After this an Event is given up.
const RETRY_FOR: Duration = Duration::from_secs(120);
/// For the queued Events when the process ends.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);
/// A name may have 253 bytes; this much of it is the object's name.
const MAX_NAME_STEM: usize = 230;

/// Writes the queued Events; ends with the settings' `stop`.
pub(super) struct EventWriter {
    settings: EventSettings,
    series: SeriesTable,
    queued: mpsc::Receiver<QueuedEvent>,
    /// The Event that is written next, until [`DELAY`] has passed.
    next: Option<QueuedEvent>,
}

impl EventWriter {
    pub(super) fn new(settings: EventSettings, queued: mpsc::Receiver<QueuedEvent>) -> Self {
        Self { settings, series: SeriesTable::default(), queued, next: None }
    }

    pub(super) async fn run(mut self) {
        let stop = self.settings.stop.clone();
        if stop.run_until_cancelled(self.work()).await.is_none() {
            let _incomplete = tokio::time::timeout(STOP_TIMEOUT, self.drain()).await;
        }
    }

    /// Writes until every recorder is dropped.
    async fn work(&mut self) {
        loop {
            let (clock, due) = (self.settings.clock, self.series.due());
            tokio::select! {
                // First, so that a full queue does not hold up the series' counts.
                biased;
                () = clock.sleep_until(due) => {
                    let due = self.series.take_due(clock.now());
                    self.patch_all(due).await;
                }
                next = self.next() => match next {
                    Some(()) => self.write_next().await,
                    None => return self.patch_unsent().await,
                },
            }
        }
    }

    /// Waits until an Event is due; `None`: every recorder is dropped.
    async fn next(&mut self) -> Option<()> {
        if self.next.is_none() {
            self.next = self.queued.recv().await;
        }
        let at = self.next.as_ref()?.at;
        self.settings.clock.sleep_until(Some(at + DELAY)).await;
        Some(())
    }

    async fn write_next(&mut self) {
        if let Some(queued) = self.next.take() {
            self.write(queued).await;
        }
    }

    /// Writes what is queued and the counts that were not sent.
    async fn drain(&mut self) {
        self.queued.close();
        self.write_next().await;
        while let Ok(queued) = self.queued.try_recv() {
            self.write(queued).await;
        }
        self.patch_unsent().await;
    }

    async fn write(&mut self, queued: QueuedEvent) {
        let QueuedEvent { event, at, wall } = queued;
        let key = SeriesKey::of(&event);
        match self.series.count(&key, at, wall) {
            SeriesEntry::Counted => self.settings.metrics.count("counted"),
            SeriesEntry::Due(update) => {
                self.settings.metrics.count("counted");
                self.patch(update).await;
            }
            SeriesEntry::New => {
                let namespace = event.about.namespace.clone();
                let Some(stored) = stored(&self.settings, event, wall) else {
                    return self.settings.metrics.count("dropped");
                };
                let name = stored.metadata.name.clone().unwrap_or_default();
                if self.create(&namespace, &stored, at).await {
                    self.series.created(key, namespace, name, at, wall);
                }
            }
        }
    }

    async fn create(&self, namespace: &str, event: &k8s::Event, at: Moment) -> bool {
        let api: Api<k8s::Event> = Api::namespaced(self.settings.client.clone(), namespace);
        let api = &api;
        let request = move || async move { api.create(&PostParams::default(), event).await.map(drop) };
        self.request(at, request, "created").await
    }

    async fn patch_unsent(&mut self) {
        let unsent = self.series.take_all();
        self.patch_all(unsent).await;
    }

    async fn patch_all(&mut self, updates: Vec<SeriesUpdate>) {
        for update in updates {
            self.patch(update).await;
        }
    }

    async fn patch(&mut self, update: SeriesUpdate) {
        let Some(last) = micro_time(update.last) else { return };
        let series = k8s::EventSeries { count: update.count, last_observed_time: last };
        let api: Api<k8s::Event> = Api::namespaced(self.settings.client.clone(), &update.namespace);
        let patch = Patch::Merge(json!({"series": series}));
        let (api, patch, name, parameters) = (&api, &patch, &update.name, &PatchParams::default());
        let request = move || async move { api.patch(name, parameters, patch).await.map(drop) };
        if !self.request(self.settings.clock.now(), request, "patched").await {
            // The Event was deleted or the patch refused: the next one starts a new series.
            self.series.forget(&update.key);
        }
    }

    /// Sends the request, again every second for [`RETRY_FOR`] while the API server is unreachable or busy. Counts the
    /// outcome and returns whether it is `done`.
    async fn request<R: Future<Output = Result<(), kube::Error>>>(
        &self,
        since: Moment,
        request: impl Fn() -> R,
        done: &'static str,
    ) -> bool {
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, request()).await;
            let outcome = match &answer {
                Ok(Ok(())) => done,
                Ok(Err(error)) => category(error),
                Err(_) => "timeout",
            };
            if let Ok(Err(error)) = &answer
                && outcome != "gone"
            {
                tracing::debug!(outcome, "an Event was not stored: {error}");
            }
            let retryable = matches!(outcome, "unreachable" | "busy" | "timeout");
            if !retryable || self.settings.clock.now().since(since) > RETRY_FOR {
                self.settings.metrics.count(outcome);
                return outcome == done;
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
}

/// The outcome as a metric label. `gone`, a deleted Event or a namespace that is deleted or terminating, is no fault.
fn category(error: &kube::Error) -> &'static str {
    let kube::Error::Api(status) = error else { return "unreachable" };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        403 if causes.map(|cause| cause.reason.as_str()).any(|reason| reason == "NamespaceTerminating") => {
            "gone"
        }
        403 => "forbidden",
        404 | 409 => "gone",
        429 | 500.. => "busy",
        _ => "refused",
    }
}

/// The object to create; `None` when the time is out of range or there is no randomness for its name.
fn stored(settings: &EventSettings, event: Event, wall: Timestamp) -> Option<k8s::Event> {
    let reference = |object: ObjectRef| ObjectReference {
        api_version: Some(object.api_version),
        kind: Some(object.kind),
        namespace: Some(object.namespace),
        name: Some(object.name),
        uid: Some(object.uid),
        ..ObjectReference::default()
    };
    let stem = cut(&event.about.name, MAX_NAME_STEM).trim_end_matches(['.', '-']);
    let name = format!("{stem}.{:016x}", getrandom::u64().ok()?);
    let namespace = Some(event.about.namespace.clone());
    Some(k8s::Event {
        metadata: ObjectMeta { name: Some(name), namespace, ..ObjectMeta::default() },
        event_time: Some(micro_time(wall)?),
        reporting_controller: Some(settings.reporting_controller.to_owned()),
        reporting_instance: Some(cut(&settings.reporting_instance, MAX_REASON).to_owned()),
        action: Some(cut(event.action, MAX_REASON).to_owned()),
        reason: Some(cut(event.reason, MAX_REASON).to_owned()),
        regarding: Some(reference(event.about)),
        related: event.related.map(reference),
        note: Some(cut(&event.note, MAX_NOTE).to_owned()),
        type_: Some(event.kind.as_str().to_owned()),
        ..k8s::Event::default()
    })
}

fn micro_time(at: Timestamp) -> Option<MicroTime> {
    Instant::from_millisecond(at.unix_millis()).ok().map(MicroTime)
}

/// The first `max` bytes of `text`, or fewer, so that no character is split.
fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_two_characters() {
        assert_eq!(cut("short", MAX_NOTE), "short");
        let long = format!("{}é", "a".repeat(MAX_NOTE - 1));
        assert_eq!(cut(&long, MAX_NOTE).len(), MAX_NOTE - 1);
        assert_eq!(cut("", MAX_NOTE), "");
    }

    #[test]
    fn refusals_are_categorised_and_a_terminating_namespace_is_gone() {
        use kube::core::Status;
        let refused = |code: u16, cause: &str| {
            let status = json!({"code": code, "details": {"causes": [{"reason": cause}]}});
            category(&kube::Error::Api(serde_json::from_value::<Status>(status).unwrap().boxed()))
        };
        assert_eq!(refused(403, "NamespaceTerminating"), "gone");
        assert_eq!(refused(403, ""), "forbidden");
        assert_eq!(refused(404, ""), "gone");
        assert_eq!(refused(422, ""), "refused");
        assert_eq!((refused(429, ""), refused(503, "")), ("busy", "busy"));
    }
}
