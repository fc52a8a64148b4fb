//! The queries of all policies, each once.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    history_query::HistoryQuery,
    model::{BreakerReport, LeftOut},
    variants::PolicyVariant,
};
use crate::{
    api::{Manifest, OperatorSources},
    decide::detect::{MetricSource, Rule, queried::QueryVariables},
    exit::Exit,
};

/// Stands for every pod, where their names are not known before the query.
const ANY_POD: &str = ".+";
/// A longer list of names makes the query too long for some servers.
const LONGEST_LIST: usize = 64 << 10;

/// The queries, and which breaker of which policy reads which.
#[derive(Debug, Default)]
pub(super) struct QueryPlan {
    pub(super) queries: Vec<HistoryQuery>,
    /// For each policy: its breakers with the index of their query.
    pub(super) readers: Vec<Vec<(String, usize)>>,
}

/// Where the queries go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Servers<'a> {
    /// `--prometheus`.
    pub(super) only: Option<&'a Arc<MetricSource>>,
    /// Of `--sources`: they are kept, because the operator gave their credentials.
    pub(super) operator: OperatorSources,
}

impl QueryPlan {
    /// The queries of `variants`; `pods` are all names of the fleet, if they are known.
    pub(super) fn new(
        variants: &[PolicyVariant],
        namespace: &str,
        servers: Servers<'_>,
        pods: Option<&BTreeSet<String>>,
    ) -> Self {
        let mut plan = Self::default();
        for PolicyVariant { manifest, .. } in variants {
            let readers = manifest.rules.iter().filter_map(|rule| {
                let query = history_query(rule, manifest, namespace, servers, pods)?;
                let known = plan.queries.iter().position(|other| other.is_same(&query));
                let index = known.unwrap_or_else(|| {
                    plan.queries.push(query);
                    plan.queries.len() - 1
                });
                Some((rule.breaker.clone(), index))
            });
            let readers = readers.collect();
            plan.readers.push(readers);
        }
        plan
    }

    /// The breakers of a policy, without evaluations yet.
    pub(super) fn breakers(
        &self,
        variant: &PolicyVariant,
        readers: &[(String, usize)],
    ) -> Vec<BreakerReport> {
        let report = |(breaker, index): &(String, usize)| {
            let query = self.queries.get(*index)?;
            let rule = variant.manifest.rules.iter().find(|rule| rule.breaker == *breaker)?;
            Some(BreakerReport {
                name: breaker.clone(),
                detector: rule.detector.field(),
                promql: query.promql.clone(),
                server: query.query.source.url.clone(),
                evaluations: 0,
                unanswered: 0,
                strange: 0,
                bad: 0,
            })
        };
        readers.iter().filter_map(report).collect()
    }
}

fn history_query(
    rule: &Rule,
    manifest: &Manifest,
    namespace: &str,
    servers: Servers<'_>,
    pods: Option<&BTreeSet<String>>,
) -> Option<HistoryQuery> {
    let (query, key) = rule.detector.query()?;
    let mut query = query.clone();
    let operators = servers.operator.iter().any(|(_, source)| *source == query.source);
    if let Some(only) = servers.only.filter(|_| !operators) {
        query.source = Arc::clone(only);
    }
    let names = pods.filter(|pods| pods.iter().map(|pod| pod.len() + 1).sum::<usize>() <= LONGEST_LIST);
    let variables = QueryVariables {
        namespace: namespace.to_owned(),
        service: manifest.policy.service.clone(),
        pods: names.into_iter().flatten().cloned().collect(),
    };
    let promql = match names {
        Some(_) => variables.in_query(&query.promql).into_owned(),
        None => variables.in_query(&query.promql.replace("$pods", ANY_POD)).into_owned(),
    };
    Some(HistoryQuery { query, promql, key: key.map(str::to_owned), step: rule.every })
}

/// The breakers without a query, and why they are left out.
pub(super) fn left_out(manifest: &Manifest) -> Vec<LeftOut> {
    let without = manifest.rules.iter().filter(|rule| rule.detector.query().is_none());
    let why = |rule: &Rule| match rule.detector.custom() {
        Some(_) => "a custom service answers for now only, so there is no history",
        None => "keepalives are not stored, so there is no history",
    };
    without.map(|rule| LeftOut { breaker: rule.breaker.clone(), why: why(rule).to_owned() }).collect()
}

/// The namespace that all policies are of, which are of one Service.
///
/// # Errors
/// 2 when none has a breaker with a history.
pub(super) fn namespace_of(variants: &[PolicyVariant], flag: Option<&str>) -> Result<String, Exit> {
    let mut rules = variants.iter().flat_map(|variant| &variant.manifest.rules);
    if !rules.any(|rule| rule.detector.query().is_some()) {
        return Err(Exit::Usage(
            "no breaker has a query to Prometheus; keepalive and customService have no history that could be replayed"
                .to_owned(),
        ));
    }
    let first =
        variants.first().ok_or_else(|| Exit::Usage("there is no policy; write -f FILE".to_owned()))?;
    Ok(first.service(flag).0.to_owned())
}
