//! What a request asks for, in the words of Kubernetes' own access rules.

use std::{collections::BTreeMap, fmt, time::Duration};

use axum::http::{Method, Request};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Since the proxy's start.
    pub at: Duration,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'static str,
    /// With its subresource, such as `pods` or `kubervisorservices/status`; else the path.
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub query: String,
    /// What was answered; `None`: nothing, or not yet.
    pub code: Option<u16>,
}

impl Asked {
    pub(super) fn of<T>(request: &Request<T>, at: Duration) -> Self {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let place = Place::of(request.uri().path());
        let watches = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        let verb = match (request.method(), place.name.is_some()) {
            (&Method::GET, _) if watches => "watch",
            (&Method::GET, true) => "get",
            (&Method::GET, false) if place.known => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "delete",
            (&Method::DELETE, false) => "deletecollection",
            _ => "get",
        };
        let Place { resource, namespace, name, .. } = place;
        Self { at, verb, resource, namespace, name, query, code: None }
    }

    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb)
    }

    /// Whether it only tells people something.
    pub fn is_event(&self) -> bool {
        self.resource == "events"
    }

    /// A list that the API server answers from its store: no resourceVersion asked for.
    pub fn is_quorum_list(&self) -> bool {
        self.verb == "list" && !self.query.split('&').any(|pair| pair.starts_with("resourceVersion="))
    }
}

struct Place {
    known: bool,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Place {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let rest = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            _ => (None, rest),
        };
        let (resource, name) = match rest {
            [] => (path.to_owned(), None),
            [resource] => ((*resource).to_owned(), None),
            [resource, name] => ((*resource).to_owned(), Some((*name).to_owned())),
            [resource, name, sub @ ..] => (format!("{resource}/{}", sub.join("/")), Some((*name).to_owned())),
        };
        Self { known: !rest.is_empty(), resource, namespace, name }
    }
}

/// Requests by verb and resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count(pub BTreeMap<(&'static str, String), usize>);

impl Count {
    /// Counts them.
    pub fn of(asked: &[Asked]) -> Self {
        let mut count = BTreeMap::new();
        for asked in asked {
            *count.entry((asked.verb, asked.resource.clone())).or_insert(0) += 1;
        }
        Self(count)
    }

    /// How many of one kind.
    pub fn get(&self, verb: &'static str, resource: &str) -> usize {
        self.0.get(&(verb, resource.to_owned())).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((verb, resource), count)) in self.0.iter().enumerate() {
            let plus = if index == 0 { "" } else { " + " };
            write!(f, "{plus}{count} {} {resource}", verb.to_uppercase())?;
        }
        Ok(())
    }
}
