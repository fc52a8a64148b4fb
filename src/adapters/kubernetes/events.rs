//! Kubernetes Events: decisions, recorded on the objects that they are about.
//!
//! Recording never blocks and never fails: a queue of `QUEUE_CAPACITY` Events takes what is recorded, and what does not
//! fit is dropped and counted. One writer sends one request at a time, a second after the decision, so that Events take no
//! request slots from withholding and admitting, and no CPU from the endpoint controllers.

mod series;
mod writer;

use std::{collections::VecDeque, sync::Arc};

use kube::Client;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::writer::EventWriter;
use crate::{
    clock::Clock,
    decide::time::{Moment, Timestamp},
    metrics::LabelledCounter,
};

/// Events that wait to be written; further ones are dropped.
const QUEUE_CAPACITY: usize = 1024;

/// Events that are kept for [`EventRecorder::recent`], of all objects.
const RECENT: usize = 500;

/// A reference to an object of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Group and version, such as `v1` or `kubervisor.k8s.io/v1alpha1`.
    pub api_version: String,
    /// Such as `Pod`.
    pub kind: String,
    /// `metadata.namespace`; the Event is stored in it.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: `kubectl describe` selects by it.
    pub uid: String,
}

labelled! {
    /// The type of an Event.
    pub enum EventKind, as_str {
        /// For information.
        Normal = "Normal",
        /// Needs attention.
        Warning = "Warning",
    }
}

/// An Event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `regarding`: the object that `kubectl describe` shows it on.
    pub about: ObjectRef,
    /// A second object that takes part.
    pub related: Option<ObjectRef>,
    /// Its type.
    pub kind: EventKind,
    /// A CamelCase word.
    pub reason: &'static str,
    /// What was done, a CamelCase word.
    pub action: &'static str,
    /// What Events of one series share beside objects and reason, such as the breaker; the series keeps the first note.
    /// Empty: the note takes its place.
    pub rule: String,
    /// The message, of at most 1024 bytes; longer ones are cut.
    pub note: String,
}

/// What a recorder is made from.
pub struct EventSettings {
    /// Writes the Events.
    pub client: Client,
    /// `kubervisor`.
    pub reporting_controller: &'static str,
    /// The process, such as the pod's name.
    pub reporting_instance: String,
    /// Monotonic and wall clock.
    pub clock: Clock,
    /// Counts the Events by outcome.
    pub metrics: EventMetrics,
    /// Stops the writer; [`EventRecorder::ended`] waits for its end.
    pub stop: CancellationToken,
}

/// Queues Events without blocking; clones share one queue and one writer.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<QueuedEvent>,
    /// Oldest first.
    recent: Arc<Mutex<VecDeque<(Timestamp, Event)>>>,
    clock: Clock,
    metrics: EventMetrics,
    ended: CancellationToken,
}

/// An Event and when it was recorded.
#[derive(Debug)]
struct QueuedEvent {
    event: Event,
    at: Moment,
    wall: Timestamp,
}

impl EventRecorder {
    /// Starts the writer.
    pub fn start(settings: EventSettings) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_CAPACITY);
        let (clock, metrics, ended) = (settings.clock, settings.metrics.clone(), CancellationToken::new());
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            EventWriter::new(settings, queued).run().await;
            drop(guard);
        });
        Self { queue, recent: Arc::default(), clock, metrics, ended }
    }

    /// Queues an Event, or drops it when the queue is full.
    pub fn record(&self, event: Event) {
        let wall = self.clock.wall();
        {
            let mut recent = self.recent.lock();
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back((wall, event.clone()));
        }
        let queued = QueuedEvent { event, at: self.clock.now(), wall };
        if self.queue.try_send(queued).is_err() {
            self.metrics.count("dropped");
        }
    }

    /// The newest Events about the object of this namespace and name, or related to it; newest first.
    pub fn recent(&self, namespace: &str, name: &str) -> Vec<(Timestamp, Event)> {
        let is_it = |object: &ObjectRef| object.namespace == namespace && object.name == name;
        let recent = self.recent.lock();
        let of = recent
            .iter()
            .rev()
            .filter(|(_, event)| is_it(&event.about) || event.related.as_ref().is_some_and(is_it));
        of.cloned().collect()
    }

    /// Returns once the writer has ended: at most 2 s after its stop.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// `kubervisor_events_total`, by outcome.
#[derive(Clone, Debug)]
pub struct EventMetrics {
    events: LabelledCounter,
}

impl EventMetrics {
    /// Registers the counter.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Kubernetes Events, by what became of them";
        Self { events: LabelledCounter::register(registry, "events", help, "outcome") }
    }

    fn count(&self, outcome: &'static str) {
        self.events.of(outcome).inc();
    }
}
