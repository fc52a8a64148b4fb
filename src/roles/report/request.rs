//! What a report is about: policies, range, server, and the labels of the fleet's pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::{labels::IncidentLabels, time_range::TimeRange, variants::PolicyVariant};
use crate::{
    api::{self, OperatorSources},
    exit::Exit,
};

/// What a report is about.
#[derive(Clone, Debug)]
pub struct ReportRequest {
    /// The policies.
    pub variants: Vec<PolicyVariant>,
    /// The names of the fleet's pods, where they are known beforehand.
    pub pods: Option<BTreeSet<String>>,
    /// Writes each query to stderr before it is first sent.
    pub show_queries: bool,
    /// The range of time.
    pub range: TimeRange,
    /// The namespace, instead of the manifests'.
    pub namespace: Option<String>,
    /// The server, instead of the manifests'.
    pub prometheus: Option<String>,
    /// Sources that the operator gave.
    pub sources: OperatorSources,
    /// The labels of the fleet's pods, as in the Service's selector.
    pub selector: Option<BTreeMap<String, String>>,
    /// A query that gives the fleet.
    pub fleet_query: Option<String>,
    /// Known incidents.
    pub labels: Option<IncidentLabels>,
}

impl ReportRequest {
    /// A request for each Service, in the order of the manifests: policies of one Service are compared, those of several
    /// are replayed in turn.
    ///
    /// # Errors
    /// 2 when the fleet of several Services is given, which is that of one.
    pub(super) fn by_service(mut self) -> Result<Vec<Self>, Exit> {
        let mut groups: Vec<Vec<PolicyVariant>> = Vec::new();
        for variant in std::mem::take(&mut self.variants) {
            let flag = self.namespace.as_deref();
            let service = variant.service(flag);
            let same = |group: &&mut Vec<PolicyVariant>| {
                group.first().is_some_and(|first| first.service(flag) == service)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(variant),
                None => groups.push(vec![variant]),
            }
        }
        if groups.len() > 1 && (self.selector.is_some() || self.fleet_query.is_some()) {
            return Err(Exit::Usage(format!(
                "--selector, --service-file and --fleet-query give the pods of one Service, and the manifests are of {}; \
                 write the manifests of one Service",
                groups.len()
            )));
        }
        Ok(groups.into_iter().map(|variants| Self { variants, ..self.clone() }).collect())
    }

    /// The resources that it is about.
    pub(super) fn resources(&self) -> String {
        let names = self.variants.iter().map(|variant| {
            let (namespace, _) = variant.service(self.namespace.as_deref());
            format!("{namespace}/{}", variant.manifest.policy.name)
        });
        names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// `app=web,tier=front`, without the switch.
///
/// # Errors
/// 2 for what are no labels.
pub(super) fn selector(text: &str) -> Result<BTreeMap<String, String>, Exit> {
    let wrong = || Exit::Usage(format!("--selector is {text:?}; write labels such as app=web,tier=front"));
    let pair = |pair: &str| {
        pair.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
    };
    let all: Option<BTreeMap<String, String>> = text.split(',').map(pair).collect();
    without_switch(all.ok_or_else(wrong)?).ok_or_else(wrong)
}

/// The selector of the Service in a file.
///
/// # Errors
/// 2 when there is none.
pub(super) fn service_selector(file: &Path) -> Result<BTreeMap<String, String>, Exit> {
    let name = file.display();
    let text = api::text_of(file).map_err(|problems| Exit::Usage(problems.to_string()))?;
    let wrong = |what: String| Exit::Usage(format!("{name}: {what}; write a Service with a selector"));
    let documents = api::located::read(&text)
        .map_err(|error| wrong(format!("line {}: {}", error.line, error.message)))?;
    let service = documents.iter().map(|document| &document.value).find(|value| value["kind"] == "Service");
    let found = service.and_then(|service| service.pointer("/spec/selector")).and_then(Value::as_object);
    let labels = found.into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    without_switch(labels).ok_or_else(|| wrong("holds no Service with a selector".to_owned()))
}

/// A pod that is withheld is of the fleet, too.
fn without_switch(mut labels: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    labels.remove(api::keys::TRAFFIC);
    (!labels.is_empty() && labels.keys().all(|key| !key.is_empty())).then_some(labels)
}
