//! Where the fleet of the past is read: a query of the user's, kube-state-metrics, or the breakers' own series.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    history_query::{HistoryError, HistoryFetcher, HistoryQuery},
    model::FleetOrigin,
    queries::{QueryPlan, Servers},
    request::ReportRequest,
    series_fleet::SeriesFleet,
    state_fleet::{FleetSelection, StateFleet, StateReader},
    time_range::TimeRange,
};
use crate::{adapters::prometheus::PrometheusError, decide::replay::history::FleetEvent};

/// Points at which the queries are asked for the names of pods.
const NAME_POINTS: u32 = 24;

/// The fleet's source.
pub(super) enum FleetHistory {
    /// All changes, in order of time.
    Known(VecDeque<FleetEvent>),
    Series(SeriesFleet),
}

/// A fleet's source and what is to be said about it.
pub(super) struct FoundFleet {
    pub(super) history: FleetHistory,
    pub(super) origin: FleetOrigin,
    pub(super) notes: Vec<String>,
    /// The names of all pods, if they are known beforehand.
    pub(super) names: Option<BTreeSet<String>>,
}

/// Finds out where the fleet can be read.
///
/// # Errors
/// [`HistoryError`], when the server does not answer.
pub(super) async fn find(
    request: &ReportRequest,
    fetcher: &HistoryFetcher,
    namespace: &str,
    servers: Servers<'_>,
) -> Result<FoundFleet, HistoryError> {
    let early = QueryPlan::new(&request.variants, namespace, servers, request.pods.as_ref());
    let mut notes = vec![
        "A replay cannot know what withholding would have changed: withheld pods go on being measured as they were, and \
         the load of the others stays what it was."
            .to_owned(),
    ];
    let Some(first) = early.queries.first() else { return Ok(from_series(namespace, None, notes)) };
    let by_node =
        request.variants.iter().any(|variant| variant.manifest.policy.keep_one_per_node == Some(true));
    let source = &first.query.source;
    let reader = StateReader { fetcher, source, namespace, range: request.range, by_node };
    if let Some(query) = &request.fleet_query {
        let fleet = reader.by_query(query).await?;
        let text = format!("--fleet-query {query:?}; as many pods are wanted as there are");
        return Ok(known(fleet, "fleet-query", text, notes));
    }
    if let Some(labels) = &request.selector {
        match reader.read(&FleetSelection::Labels(labels.clone())).await? {
            Some(fleet) => {
                let text = "kube-state-metrics: the pods with the Service's labels".to_owned();
                return Ok(known(fleet, "kube-state-metrics", text, notes));
            }
            None => notes.push(
                "The selector was not used: Prometheus has no kube_pod_labels with these labels (kube-state-metrics \
                 leaves them out unless its --metric-labels-allowlist names them)."
                    .to_owned(),
            ),
        }
    }
    let names = match &request.pods {
        Some(pods) => pods.clone(),
        None => names(fetcher, &early.queries, request.range, namespace).await?,
    };
    match reader.read(&FleetSelection::Kin(names)).await? {
        Some(fleet) if !fleet.names.is_empty() => {
            let text = "kube-state-metrics: the pods that the queries name, and all others of their owners";
            Ok(known(fleet, "kube-state-metrics", text.to_owned(), notes))
        }
        _ => Ok(from_series(namespace, request.pods.clone(), notes)),
    }
}

fn known(fleet: StateFleet, source: &'static str, text: String, mut notes: Vec<String>) -> FoundFleet {
    let StateFleet { events, names, notes: more } = fleet;
    notes.extend(more);
    let origin = FleetOrigin { source, text, pods: names.len() };
    FoundFleet { history: FleetHistory::Known(events.into()), origin, notes, names: Some(names) }
}

fn from_series(namespace: &str, names: Option<BTreeSet<String>>, notes: Vec<String>) -> FoundFleet {
    let text = "the queries' own series: a pod is there from its first to its last sample and counts as Ready, and as \
                many are wanted as there are (kube-state-metrics, which tells more, was not found)";
    let origin = FleetOrigin { source: "series", text: text.to_owned(), pods: 0 };
    let history = FleetHistory::Series(SeriesFleet::new(namespace));
    FoundFleet { history, origin, notes, names }
}

/// The pods that the queries name, looked up at a few points.
async fn names(
    fetcher: &HistoryFetcher,
    queries: &[HistoryQuery],
    range: TimeRange,
    namespace: &str,
) -> Result<BTreeSet<String>, HistoryError> {
    let mut names = BTreeSet::new();
    for query in queries {
        let step = (range.length() / NAME_POINTS).max(query.step);
        let sparse = HistoryQuery { step: Duration::from_secs(step.as_secs().max(1)), ..query.clone() };
        let answer = match fetcher.fetch(&sparse, range.from, range).await {
            // The parts say so again.
            Err(HistoryError { source: PrometheusError::Partial(_), .. }) => continue,
            answer => answer?,
        };
        let ours = answer
            .series
            .into_iter()
            .map(|series| series.element)
            .filter(|element| element.namespace.as_deref().is_none_or(|of| of == namespace));
        names.extend(ours.filter_map(|element| element.pod));
    }
    Ok(names)
}
