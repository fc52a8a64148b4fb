//! A group of pods and what is measured of them → a manifest with a reason for each breaker.

use std::fmt::Write as _;

use super::{
    conventions::{LatencyUnit, Signal},
    grouping::PodGroup,
    inventory::{MOMENTS, MetricSighting, SeenPod},
};

/// With fewer pods no median says what is usual.
const FEWEST: u32 = 3;
/// The least number of values that are compared, where there are so many pods.
const PEERS: u32 = 5;
/// A breaker is proposed where at least this share of the pods has the metric, in percent.
const COVERED: usize = 50;
/// The window of the queries: long enough for a scrape each minute.
const WINDOW: &str = "5m";
/// A container that restarts more often than its peers is found over this window.
const RESTART_WINDOW: &str = "15m";
/// Requests a second below which the share of failed ones says nothing: 15 requests in [`WINDOW`].
const FEWEST_REQUESTS: &str = "0.05";

/// A proposed manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) group: PodGroup,
    /// The most pods at one moment.
    pub(super) at_once: u32,
    pub(super) breakers: Vec<ProposedBreaker>,
}

/// The server that was asked, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerName {
    /// `prometheusService`.
    Address(String),
    /// `source`.
    Source(String),
}

/// A breaker and what speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProposedBreaker {
    pub(super) name: &'static str,
    pub(super) promql: String,
    pod_key: &'static str,
    /// A smaller distance from the median is good, in units of the value.
    min_deviation: &'static str,
    pub(super) reason: String,
}

/// Why nothing is proposed for a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoProposal {
    #[error("at most {0} of its pods were there at the same time; {FEWEST} are needed to compare them")]
    TooFewPods(u32),
    #[error("fewer than {COVERED} % of its pods have one of the usual metrics")]
    NoUsualMetric,
}

/// The manifest for a group.
///
/// # Errors
/// Why there is none.
pub(super) fn propose(group: &PodGroup, sightings: &[MetricSighting]) -> Result<Proposal, NoProposal> {
    let at_once = most_at_once(group, sightings);
    if at_once < FEWEST {
        return Err(NoProposal::TooFewPods(at_once));
    }
    let breakers = ["errors", "latency", "restarts"].into_iter().filter_map(|name| {
        let usable = sightings.iter().filter(|sighting| sighting.convention.signal.breaker() == name);
        let covered = usable.map(|sighting| (of_group(sighting, group).count(), sighting));
        let enough = covered.filter(|(pods, _)| pods * 100 >= group.pods.len() * COVERED);
        // The first of those that most pods have.
        let best = enough.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(pods, sighting)| ProposedBreaker::new(sighting, pods, group.pods.len()))
    });
    let breakers: Vec<ProposedBreaker> = breakers.collect();
    if breakers.is_empty() {
        return Err(NoProposal::NoUsualMetric);
    }
    Ok(Proposal { group: group.clone(), at_once, breakers })
}

/// The pods of the group that have the metric.
fn of_group<'s>(
    sighting: &'s MetricSighting,
    group: &'s PodGroup,
) -> impl Iterator<Item = (&'s String, &'s SeenPod)> {
    sighting.pods.iter().filter(|(pod, _)| group.pods.contains(*pod))
}

fn most_at_once(group: &PodGroup, sightings: &[MetricSighting]) -> u32 {
    let at = |moment: usize| {
        let there = |pod: &&String| {
            let seen = sightings.iter().filter_map(|sighting| sighting.pods.get(*pod));
            seen.fold(0, |all, seen| all | seen.moments) & (1 << moment) != 0
        };
        group.pods.iter().filter(there).count()
    };
    u32::try_from((0..MOMENTS).map(at).max().unwrap_or_default()).unwrap_or(u32::MAX)
}

impl ProposedBreaker {
    fn new(sighting: &MetricSighting, pods: usize, of: usize) -> Self {
        let MetricSighting { convention, namespace_key, pod_key, labels, .. } = sighting;
        let metric = convention.metric;
        let series = |metric: &str, further: &str, window: &str| {
            let matchers = convention.matchers;
            format!(
                "{metric}{{{namespace_key}=\"$namespace\",{pod_key}=~\"$pods\",{matchers}{further}}}[{window}]"
            )
        };
        let (promql, min_deviation, what) = match convention.signal {
            Signal::Failures { labels: known, failed } => {
                let label = known.iter().find(|label| labels.contains(*label)).copied().unwrap_or_default();
                let sum =
                    |further: &str| format!("sum by ({pod_key}) (rate({}))", series(metric, further, WINDOW));
                let (bad, all) = (sum(&format!("{label}=~\"{failed}\"")), sum(""));
                let promql = format!("({bad} or {all} * 0) / ({all} > {FEWEST_REQUESTS})");
                (promql, "0.05", format!("the share of requests whose {label} is {failed}"))
            }
            Signal::Latency(unit) => {
                let buckets = series(metric, "", WINDOW);
                let promql = format!("histogram_quantile(0.95, sum by ({pod_key}, le) (rate({buckets})))");
                let (least, unit) = match unit {
                    LatencyUnit::Seconds => ("0.05", "seconds"),
                    LatencyUnit::Milliseconds => ("50", "milliseconds"),
                };
                (promql, least, format!("the time within which 95 % of the requests are answered, in {unit}"))
            }
            Signal::Restarts => {
                let restarts = series(metric, "", RESTART_WINDOW);
                let promql = format!("sum by ({pod_key}) (increase({restarts}))");
                (promql, "1.5", format!("restarts of containers in {RESTART_WINDOW}"))
            }
        };
        let reason = format!("{what}, from {metric} ({}), which {pods} of {of} pods have", convention.of);
        Self { name: convention.signal.breaker(), promql, pod_key, min_deviation, reason }
    }
}

impl Proposal {
    /// The resource, as YAML.
    pub(super) fn manifest(&self, namespace: &str, server: &ServerName) -> String {
        let (source, address) = match server {
            ServerName::Address(address) => {
                (String::new(), format!("        prometheusService: {address:?}\n"))
            }
            ServerName::Source(source) => (format!("      source: {source:?}\n"), String::new()),
        };
        let (name, peers) = (&self.group.name, PEERS.min(self.at_once - 1).max(FEWEST));
        let mut text = format!(
            "apiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata:\n  name: {name:?}\n  \
             namespace: {namespace:?}\nspec:\n  service: {name:?}\n  dryRun: true\n  panicThreshold: 50\n  \
             defaultActivator: {{mode: periodic, period: 60}}\n  breakers:\n"
        );
        for ProposedBreaker { name, promql, pod_key, min_deviation, reason } in &self.breakers {
            let _infallible = write!(
                text,
                "    # {reason}\n    - name: {name}\n      evaluationPeriod: 30\n      minPodsAvailableRatio: 70\n{source}      \
                 outlier:\n{address}        podNamekey: {pod_key}\n        promQL: >-\n          \
                 {promql}\n        minPeers: {peers}\n        minDeviation: {min_deviation}\n"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{super::conventions::CONVENTIONS, *};
    use crate::api::{self, Context, Detectors};

    const CONTEXT: Context = Context { detectors: Detectors::All, timing: None, sources: &[] };

    fn group(pods: usize) -> PodGroup {
        PodGroup { name: "web".to_owned(), pods: (0..pods).map(|pod| format!("web-{pod}")).collect() }
    }

    /// The metric at `pods` pods, the last of them at the first moment only.
    fn sighting(metric: &str, pods: usize) -> MetricSighting {
        let convention = CONVENTIONS.iter().find(|convention| convention.metric == metric).unwrap();
        let seen = |pod: usize| {
            let moments = if pod + 1 == pods { 1 } else { (1 << MOMENTS) - 1 };
            (format!("web-{pod}"), SeenPod { moments, service: None })
        };
        let labels: BTreeSet<&'static str> = match convention.signal {
            Signal::Failures { labels, .. } => labels.iter().copied().take(1).collect(),
            _ => BTreeSet::new(),
        };
        let pods: BTreeMap<String, SeenPod> = (0..pods).map(seen).collect();
        MetricSighting { convention, namespace_key: "namespace", pod_key: "pod", labels, pods }
    }

    #[test]
    fn the_manifest_of_every_convention_has_no_mistake_and_is_a_dry_run() {
        for convention in CONVENTIONS {
            let proposal = propose(&group(6), &[sighting(convention.metric, 6)]).unwrap();
            let text = proposal.manifest("shop", &ServerName::Address("http://prometheus:9090".into()));
            let manifests =
                api::parse("proposal", &text, CONTEXT).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(manifests.len(), 1);
            assert!(manifests[0].policy.dry_run, "{text}");
            assert_eq!(manifests[0].namespace.as_deref(), Some("shop"));
            let (query, _) = manifests[0].rules[0].detector.query().unwrap();
            assert!(query.promql.contains(convention.metric) && query.promql.contains("$pods"), "{text}");
        }
    }

    #[test]
    fn the_metric_of_the_application_comes_before_that_of_its_proxy_unless_fewer_pods_have_it() {
        let metric = |own: usize| {
            let both = [sighting("http_requests_total", own), sighting("istio_requests_total", 6)];
            propose(&group(6), &both).unwrap().breakers.remove(0).promql.contains("istio")
        };
        assert_eq!((metric(6), metric(4)), (false, true));
        let all = [
            sighting("kube_pod_container_status_restarts_total", 6),
            sighting("http_request_duration_seconds_bucket", 6),
            sighting("http_requests_total", 6),
        ];
        let names: Vec<&str> =
            propose(&group(6), &all).unwrap().breakers.iter().map(|one| one.name).collect();
        assert_eq!(names, ["errors", "latency", "restarts"]);
    }

    #[test]
    fn pods_that_cannot_be_compared_have_no_proposal() {
        let http = |pods| [sighting("http_requests_total", pods)];
        assert_eq!(propose(&group(2), &http(2)), Err(NoProposal::TooFewPods(2)));
        assert_eq!(propose(&group(9), &http(4)), Err(NoProposal::NoUsualMetric));
        let small = propose(&group(4), &http(4)).unwrap();
        assert!(small.manifest("shop", &ServerName::Address("p:1".into())).contains("minPeers: 3"));
    }
}
