//! Kubernetes Events: what was decided, told on the objects that it was decided about.
//!
//! An Event is a courtesy: whoever records one never waits for it and never learns what became of it. A bounded
//! queue stands in between; what does not fit is dropped and counted. One worker sends, one request at a time and not
//! at once, so that a fleet that tells much does not take the API server away from those who withhold and admit, nor
//! from the controllers that put it into effect.

mod series;

use std::time::Duration;

use jiff::Timestamp as Instant;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1 as k8s},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::series::{SeriesEntry, SeriesKey, SeriesTable, SeriesUpdate};
use crate::{
    clock::Clock,
    decide::time::{Moment, Timestamp},
};

/// Events that wait at most.
const QUEUE: usize = 1024;
/// What the API server takes of a note, in bytes.
const LONGEST_NOTE: usize = 1024;
/// And of a reason or an action.
const LONGEST_WORD: usize = 128;
/// The moments right after a decision belong to those who put it into effect.
const GRACE: Duration = Duration::from_secs(1);
/// One request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The API server is away or busy: so long until the next try.
const PAUSE: Duration = Duration::from_secs(1);
/// And for so long an Event is worth it.
const WORTH: Duration = Duration::from_secs(120);
/// What is left to tell when the process ends.
const FAREWELL: Duration = Duration::from_millis(1500);
/// The name of an Event may have 253 bytes; this much of it is the object's.
const LONGEST_STEM: usize = 230;

/// Which object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Such as `v1` or `kubervisor.k8s.io/v1alpha1`.
    pub api_version: String,
    /// Such as `Pod`.
    pub kind: String,
    /// Its namespace; the Event is stored there.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity: `kubectl describe` looks for it.
    pub uid: String,
}

/// How much it should worry people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// Not at all.
    Normal,
    /// They should have a look.
    Warning,
}

impl EventKind {
    /// As Kubernetes says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// On which object people find it.
    pub about: ObjectRef,
    /// The other object that has to do with it.
    pub related: Option<ObjectRef>,
    /// How much it should worry people.
    pub kind: EventKind,
    /// One CamelCase word for it.
    pub reason: &'static str,
    /// One word for what was done.
    pub action: &'static str,
    /// What makes it equal to another one with the same objects and reason, such as the breaker: equal ones become a
    /// series, under the first one's note. Empty: the note.
    pub rule: String,
    /// For people.
    pub note: String,
}

/// What a recorder needs.
pub struct EventSettings {
    /// Who stores Events.
    pub client: Client,
    /// `kubervisor`.
    pub reporting_controller: &'static str,
    /// Which process, such as the pod's name.
    pub reporting_instance: String,
    /// The clocks.
    pub clock: Clock,
    /// What is counted.
    pub metrics: EventMetrics,
    /// Ends it; [`EventRecorder::ended`] waits for that.
    pub stop: CancellationToken,
}

/// Takes Events and never waits; clones share one queue and one worker.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<QueuedEvent>,
    clock: Clock,
    metrics: EventMetrics,
    ended: CancellationToken,
}

/// An Event, and when it was recorded: it may have to wait.
#[derive(Debug)]
struct QueuedEvent {
    event: Event,
    at: Moment,
    wall: Timestamp,
}

impl EventRecorder {
    /// Starts the worker.
    #[must_use]
    pub fn start(settings: EventSettings) -> Self {
        let (queue, told) = mpsc::channel(QUEUE);
        let (clock, metrics, ended) = (settings.clock, settings.metrics.clone(), CancellationToken::new());
        let over = ended.clone().drop_guard();
        tokio::spawn(async move {
            EventWriter { settings, series: SeriesTable::default(), told, next: None }.run().await;
            drop(over);
        });
        Self { queue, clock, metrics, ended }
    }

    /// Takes an Event, or drops it where too many wait already.
    pub fn record(&self, event: Event) {
        let told = QueuedEvent { event, at: self.clock.now(), wall: self.clock.wall() };
        if self.queue.try_send(told).is_err() {
            self.metrics.count("dropped");
        }
    }

    /// Returns once the worker has ended, which takes it no more than 2 s after its stop.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

struct EventWriter {
    settings: EventSettings,
    series: SeriesTable,
    told: mpsc::Receiver<QueuedEvent>,
    /// The one whose turn it is.
    next: Option<QueuedEvent>,
}

impl EventWriter {
    async fn run(mut self) {
        let stop = self.settings.stop.clone();
        if stop.run_until_cancelled(self.work()).await.is_none() {
            let _as_far_as_it_came = tokio::time::timeout(FAREWELL, self.farewell()).await;
        }
    }

    /// Until every recorder is gone.
    async fn work(&mut self) {
        loop {
            let (clock, due) = (self.settings.clock, self.series.due());
            tokio::select! {
                // No series is kept from its patch by those that pour in.
                biased;
                () = clock.sleep_until(due) => self.bump_due().await,
                next = self.next() => match next {
                    Some(()) => self.tell_next().await,
                    None => return self.bump_all().await,
                },
            }
        }
    }

    /// Until there is a next one and it has waited long enough; `None`: every recorder is gone.
    async fn next(&mut self) -> Option<()> {
        if self.next.is_none() {
            self.next = self.told.recv().await;
        }
        let at = self.next.as_ref()?.at;
        self.settings.clock.sleep_until(Some(at + GRACE)).await;
        Some(())
    }

    async fn tell_next(&mut self) {
        if let Some(told) = self.next.take() {
            self.tell(told).await;
        }
    }

    /// What waits already, and the counts as they are.
    async fn farewell(&mut self) {
        self.told.close();
        self.tell_next().await;
        while let Ok(told) = self.told.try_recv() {
            self.tell(told).await;
        }
        self.bump_all().await;
    }

    async fn tell(&mut self, told: QueuedEvent) {
        let QueuedEvent { event, at, wall } = told;
        let identity = SeriesKey::of(&event);
        match self.series.hear(&identity, at, wall) {
            SeriesEntry::Counted => self.settings.metrics.count("counted"),
            SeriesEntry::SeriesUpdate(bump) => {
                self.settings.metrics.count("counted");
                self.bump(bump).await;
            }
            SeriesEntry::New => {
                let namespace = event.about.namespace.clone();
                let Some(stored) = stored(&self.settings, event, wall) else {
                    return self.settings.metrics.count("dropped");
                };
                let name = stored.metadata.name.clone().unwrap_or_default();
                if self.create(&namespace, &stored, at).await {
                    self.series.created(identity, namespace, name, at, wall);
                }
            }
        }
    }

    async fn create(&self, namespace: &str, event: &k8s::Event, at: Moment) -> bool {
        let api: Api<k8s::Event> = Api::namespaced(self.settings.client.clone(), namespace);
        let api = &api;
        let request = move || async move { api.create(&PostParams::default(), event).await.map(drop) };
        self.outcome(at, request, "created").await
    }

    async fn bump_due(&mut self) {
        for bump in self.series.take_due(self.settings.clock.now()) {
            self.bump(bump).await;
        }
    }

    async fn bump_all(&mut self) {
        for bump in self.series.take_all() {
            self.bump(bump).await;
        }
    }

    async fn bump(&mut self, bump: SeriesUpdate) {
        let Some(last) = micro_time(bump.last) else { return };
        let series = k8s::EventSeries { count: bump.count, last_observed_time: last };
        let api: Api<k8s::Event> = Api::namespaced(self.settings.client.clone(), &bump.namespace);
        let patch = Patch::Merge(json!({"series": series}));
        let (api, patch, name, parameters) = (&api, &patch, &bump.name, &PatchParams::default());
        let request = move || async move { api.patch(name, parameters, patch).await.map(drop) };
        if !self.outcome(self.settings.clock.now(), request, "patched").await {
            // It is not there any more, or nobody wants it: the next one begins anew.
            self.series.forget(&bump.identity);
        }
    }

    /// Whether it was done; counted either way. It is tried again while it is the API server that is not well.
    async fn outcome<R: Future<Output = Result<(), kube::Error>>>(
        &self,
        since: Moment,
        request: impl Fn() -> R,
        done: &'static str,
    ) -> bool {
        loop {
            let answer = tokio::time::timeout(PATIENCE, request()).await;
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
            let unwell = matches!(outcome, "unreachable" | "busy" | "timeout");
            if !unwell || self.settings.clock.now().since(since) > WORTH {
                self.settings.metrics.count(outcome);
                return outcome == done;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A word for the metric. A namespace that is going or gone, and an Event that somebody removed, are nobody's fault.
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

/// As it is stored; `None` when the wall clock says nonsense or there is no randomness for a name.
fn stored(settings: &EventSettings, event: Event, wall: Timestamp) -> Option<k8s::Event> {
    let reference = |object: ObjectRef| ObjectReference {
        api_version: Some(object.api_version),
        kind: Some(object.kind),
        namespace: Some(object.namespace),
        name: Some(object.name),
        uid: Some(object.uid),
        ..ObjectReference::default()
    };
    let stem = cut(&event.about.name, LONGEST_STEM).trim_end_matches(['.', '-']);
    let name = format!("{stem}.{:016x}", getrandom::u64().ok()?);
    let namespace = Some(event.about.namespace.clone());
    Some(k8s::Event {
        metadata: ObjectMeta { name: Some(name), namespace, ..ObjectMeta::default() },
        event_time: Some(micro_time(wall)?),
        reporting_controller: Some(settings.reporting_controller.to_owned()),
        reporting_instance: Some(cut(&settings.reporting_instance, LONGEST_WORD).to_owned()),
        action: Some(cut(event.action, LONGEST_WORD).to_owned()),
        reason: Some(cut(event.reason, LONGEST_WORD).to_owned()),
        regarding: Some(reference(event.about)),
        related: event.related.map(reference),
        note: Some(cut(&event.note, LONGEST_NOTE).to_owned()),
        type_: Some(event.kind.as_str().to_owned()),
        ..k8s::Event::default()
    })
}

fn micro_time(at: Timestamp) -> Option<MicroTime> {
    Instant::from_millisecond(at.unix_millis()).ok().map(MicroTime)
}

/// No more than `most` bytes of it, and no half of a character.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventResultLabel {
    outcome: &'static str,
}

/// What is counted of the Events.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    events: Family<EventResultLabel, Counter>,
}

impl EventMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("events", "Kubernetes Events, by what became of them", metrics.events.clone());
        metrics
    }

    fn count(&self, outcome: &'static str) {
        self.events.get_or_create_owned(&EventResultLabel { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_two_characters() {
        assert_eq!(cut("short", LONGEST_NOTE), "short");
        let long = format!("{}é", "a".repeat(LONGEST_NOTE - 1));
        assert_eq!(cut(&long, LONGEST_NOTE).len(), LONGEST_NOTE - 1);
        assert_eq!(cut("", LONGEST_NOTE), "");
    }

    #[test]
    fn only_a_namespace_that_goes_is_passed_over_in_silence() {
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
