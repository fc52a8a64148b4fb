//! The work of a report: the history is fetched in parts, and every policy goes through each part while the next ones are
//! on their way. Memory holds a few parts, however long the range is.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use futures::{Stream, StreamExt as _, stream};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::{
    fleet_source::{self, FleetHistory, FoundFleet},
    history_part::{HistoryPart, fetch_part, parts},
    history_query::{HistoryError, HistoryFetcher, HistoryQuery},
    model::{FleetOrigin, PolicyReport, ReportModel, VERSION},
    picture::{FleetPicture, PodPhase},
    progress::ReportProgress,
    queries::{QueryPlan, Servers, namespace_of},
    recorder::ReplayRecorder,
    request::ReportRequest,
    time_range::TimeRange,
    variants::PolicyVariant,
};
use crate::{
    adapters::{secrets::Files, sources::SourceClient},
    clock::Clock,
    decide::{
        detect::{MetricSource, listed::FleetScope},
        replay::{
            Replay,
            answers::RangeAnswer,
            history::{FleetChange, FleetEvent},
        },
        time::Timestamp,
    },
    exit::{self, Exit},
};

/// Parts that are fetched or waiting, beyond those that the replay has: as many as there may be requests.
const PARTS_AHEAD: usize = 3;

/// A policy on its way.
struct PolicyRun {
    replay: Replay,
    recorder: ReplayRecorder,
    readers: Vec<(String, usize)>,
}

/// Replays the policies of one Service; stops at `stop` with what there is by then.
///
/// # Errors
/// 2 for policies without a history, 1 when the server gives nothing at all.
pub async fn replay(
    request: ReportRequest,
    progress: &ReportProgress,
    stop: &CancellationToken,
) -> Result<ReportModel, Exit> {
    let namespace = namespace_of(&request.variants, request.namespace.as_deref())?;
    let client = SourceClient::new(Arc::new(Files), Clock::start());
    let fetcher = HistoryFetcher::new(
        client.map_err(|error| Exit::Failed(anyhow::Error::new(error)))?,
        request.show_queries,
    );
    let only = request.prometheus.as_deref().map(|url| Arc::new(MetricSource::at(url)));
    let servers = Servers { only: only.as_ref(), operator: request.sources };
    progress.says("looking for the fleet");
    let found = tokio::select! {
        () = stop.cancelled() => return Err(Exit::Failed(anyhow::anyhow!("interrupted before anything was replayed"))),
        found = fleet_source::find(&request, &fetcher, &namespace, servers) => found.map_err(|error| failed(&error))?,
    };
    let FoundFleet { history, mut origin, mut notes, names } = found;
    let plan = QueryPlan::new(&request.variants, &namespace, servers, names.as_ref());
    let runs = runs(&request, &plan, &namespace);
    let mut work = ReportWork {
        range: request.range,
        history,
        picture: FleetPicture::default(),
        runs,
        replayed_to: request.range.from,
        notes: BTreeSet::new(),
    };
    let partial = work.go(&fetcher, &plan.queries, progress, stop).await?;
    if let FleetHistory::Series(series) = &work.history {
        origin.pods = series.count();
    }
    if origin.pods == 0 {
        notes.push(
            "No pod was found in this range: check the query, podNamekey and namespaceKey, the namespace, and how far back \
             the server's data reach."
                .to_owned(),
        );
    }
    notes.extend(std::mem::take(&mut work.notes).into_iter().chain(fetcher.note()));
    Ok(work.into_model(request.variants, &namespace, origin, notes, partial))
}

fn failed(error: &HistoryError) -> Exit {
    Exit::Failed(anyhow::anyhow!("{}", exit::chain(error)))
}

fn runs(request: &ReportRequest, plan: &QueryPlan, namespace: &str) -> Vec<PolicyRun> {
    let shortest = plan.queries.iter().map(|query| query.step).min().unwrap_or_default();
    let labels = request.labels.clone().map(|labels| Arc::new(labels.every(shortest)));
    let one = |(variant, readers): (&PolicyVariant, &Vec<(String, usize)>)| {
        let scope = FleetScope { namespace: namespace.to_owned(), by_uid: true };
        let breakers = plan.breakers(variant, readers);
        PolicyRun {
            replay: Replay::new(&variant.manifest.policy, &variant.manifest.rules, scope, request.range.from),
            recorder: ReplayRecorder::new(request.range, breakers, labels.clone()),
            readers: readers.clone(),
        }
    };
    request.variants.iter().zip(&plan.readers).map(one).collect()
}

/// Fleet and policies on their way through the range.
struct ReportWork {
    range: TimeRange,
    history: FleetHistory,
    picture: FleetPicture,
    runs: Vec<PolicyRun>,
    replayed_to: Timestamp,
    notes: BTreeSet<String>,
}

impl ReportWork {
    /// Goes through all parts. Returns why it ended early, if it did.
    async fn go(
        &mut self,
        fetcher: &Arc<HistoryFetcher>,
        queries: &[HistoryQuery],
        progress: &ReportProgress,
        stop: &CancellationToken,
    ) -> Result<Option<String>, Exit> {
        let queries: Arc<[HistoryQuery]> = queries.into();
        let origin = self.range.from;
        let parts = parts(self.range, &queries);
        let fetched = parts.into_iter().map(|range| {
            let (fetcher, queries) = (Arc::clone(fetcher), Arc::clone(&queries));
            tokio::spawn(async move { fetch_part(&fetcher, &queries, origin, range).await })
        });
        let mut fetched = stream::iter(fetched).buffered(PARTS_AHEAD);
        let mut current = match part_of(&mut fetched, stop).await? {
            Ok(None) => return Ok(None),
            Ok(Some(part)) => part,
            Err(why) => return Err(Exit::Failed(anyhow::anyhow!("nothing could be replayed: {why}"))),
        };
        let mut following = part_of(&mut fetched, stop).await?;
        loop {
            self.notes.extend(current.notes.iter().cloned());
            let next = following.as_ref().ok().and_then(Option::as_ref);
            // Polled meanwhile, so that requests begin.
            let after =
                async { if next.is_some() { part_of(&mut fetched, stop).await } else { Ok(Ok(None)) } };
            let (replayed, after) = tokio::join!(self.replay_part(&current, next), after);
            replayed?;
            progress.reached(self.replayed_to);
            current = match following {
                Ok(None) => return Ok(None),
                Ok(Some(part)) => part,
                Err(why) => return Ok(Some(format!("the replay ends at {}: {why}", self.replayed_to))),
            };
            following = after?;
        }
    }

    /// Replays a part with every policy, each on a thread of its own.
    async fn replay_part(&mut self, part: &HistoryPart, next: Option<&HistoryPart>) -> Result<(), Exit> {
        let events: Arc<[FleetEvent]> = self.events(part, next).into();
        self.note_presence(&events);
        let end = part.range.to;
        let running: Vec<_> = std::mem::take(&mut self.runs)
            .into_iter()
            .map(|mut run| {
                let (events, answers) = (Arc::clone(&events), Arc::clone(&part.answers));
                tokio::task::spawn_blocking(move || {
                    let answer = |(breaker, index): &'_ (String, usize)| {
                        answers.get(*index).and_then(Option::as_ref).map(|answer| (breaker.clone(), answer))
                    };
                    let own: Vec<(String, &RangeAnswer)> = run.readers.iter().filter_map(answer).collect();
                    let own: HashMap<&str, &RangeAnswer> =
                        own.iter().map(|(breaker, answer)| (breaker.as_str(), *answer)).collect();
                    run.replay.advance(end, &events, &own, &mut run.recorder);
                    run
                })
            })
            .collect();
        for run in running {
            self.runs.push(run.await.map_err(|stopped| Exit::Failed(anyhow::Error::new(stopped)))?);
        }
        self.replayed_to = end;
        Ok(())
    }

    fn events(&mut self, part: &HistoryPart, next: Option<&HistoryPart>) -> Vec<FleetEvent> {
        match &mut self.history {
            FleetHistory::Known(events) => {
                let count = events.partition_point(|event| event.at < part.range.to);
                events.drain(..count).collect()
            }
            FleetHistory::Series(series) => {
                fn usable(part: &HistoryPart) -> Vec<&RangeAnswer> {
                    part.answers.iter().flatten().collect()
                }
                let next = next.map(usable);
                series.events(part.range, &usable(part), next.as_deref())
            }
        }
    }

    fn note_presence(&mut self, events: &[FleetEvent]) {
        for FleetEvent { at, change } in events {
            let (uid, name, phase) = match change {
                FleetChange::Appears(pod) => (&pod.uid, pod.name.as_str(), ready(pod.ready)),
                FleetChange::Ready(uid, is_ready) => (uid, "", ready(*is_ready)),
                FleetChange::Leaves(uid) => (uid, "", PodPhase::Gone),
                FleetChange::Desired(_) => continue,
            };
            self.picture.phase(uid, name, *at, phase);
        }
    }

    fn into_model(
        self,
        variants: Vec<PolicyVariant>,
        namespace: &str,
        fleet: FleetOrigin,
        notes: Vec<String>,
        partial: Option<String>,
    ) -> ReportModel {
        let end = self.replayed_to;
        let policies = variants.into_iter().zip(self.runs);
        ReportModel {
            version: VERSION,
            kubervisor: env!("CARGO_PKG_VERSION"),
            from: self.range.from,
            to: self.range.to,
            replayed_to: end,
            partial,
            fleet,
            notes,
            policies: policies
                .map(|(variant, run)| PolicyReport::new(variant, namespace, run.recorder, end))
                .collect(),
            picture: self.picture,
        }
    }
}

/// The next part, if there is one, or why there are no more.
async fn part_of(
    fetched: &mut (impl Stream<Item = Result<Result<HistoryPart, HistoryError>, JoinError>> + Unpin),
    stop: &CancellationToken,
) -> Result<Result<Option<HistoryPart>, String>, Exit> {
    tokio::select! {
        () = stop.cancelled() => Ok(Err("interrupted".to_owned())),
        next = fetched.next() => match next {
            None => Ok(Ok(None)),
            Some(Ok(Ok(part))) => Ok(Ok(Some(part))),
            Some(Ok(Err(error))) => Ok(Err(exit::chain(&error))),
            Some(Err(stopped)) => Err(Exit::Failed(anyhow::Error::new(stopped))),
        },
    }
}

fn ready(ready: bool) -> PodPhase {
    if ready { PodPhase::Ready } else { PodPhase::Unready }
}
