//! What is asked of the API server itself, since a cache proves nothing: the LIST that a plan rests on, and
//! the owners' wishes as they are now.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{
    StreamExt, TryStreamExt,
    future::{try_join, try_join_all},
    stream,
};
use http_body_util::BodyExt;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use kube::{
    Client,
    api::{GetParams, ListParams},
    client::Body,
    core::Request,
};
use tokio::time::timeout;

use super::{
    super::objects::{
        AutoscalerRecord, CachedObject, Kind, Page, PodRecord, ResourceRecord, Selector, SharedText,
        WorkloadRecord, refusal,
    },
    super::rights,
    Cluster, ClusterCache, OwnerKey,
    state::Origin,
};

/// Objects on a page: what is in flight stays small.
const PAGE: u32 = 1000;
/// Owners that are asked for at a time.
const AT_ONCE: usize = 16;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pods of a selector as they are stored.
#[derive(Clone, Debug)]
pub struct Listed {
    /// In order of their UIDs.
    pub pods: Vec<Arc<PodRecord>>,
    /// The moment of the cluster that this is.
    pub version: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API server refuses, or was not reached.
    #[error("cannot {verb} {resource}")]
    Ask {
        /// As RBAC calls it.
        verb: &'static str,
        /// As RBAC calls it.
        resource: &'static str,
        /// What came of it.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("cannot {verb} {resource}: no answer within {} s", PATIENCE.as_secs())]
    TimedOut {
        /// As RBAC calls it.
        verb: &'static str,
        /// As RBAC calls it.
        resource: &'static str,
    },
    /// The answer is of the past: the API server was restored from a backup.
    #[error(
        "time ran backwards: the {resource} were listed at version {version}, and later ones were seen before"
    )]
    Rewound {
        /// As RBAC calls it.
        resource: &'static str,
        /// What the answer said.
        version: u64,
    },
}

impl ListError {
    /// A word for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Ask { .. } => "ask",
            Self::TimedOut { .. } => "timed_out",
            Self::Rewound { .. } => "rewound",
        }
    }
}

impl ListError {
    /// The verb and resource that the role lacks, if that is why.
    #[must_use]
    pub fn missing_right(&self) -> Option<String> {
        match self {
            Self::Ask { source, .. } => match &**source {
                kube::Error::Api(status) => rights::missing(&status.message),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Cluster {
    /// Lists the pods as they are stored now, and takes them into the cache: what is selected there and is
    /// not in the list is gone.
    ///
    /// # Errors
    /// When there is no complete answer, or it is of the past.
    pub async fn list_pods(&self, namespace: &str, selector: &Selector) -> Result<Listed, ListError> {
        let world = self.rewinds();
        let asked = ListParams::default().labels(&selector.to_query());
        let (pods, version) = self.shared.list::<PodRecord>(Kind::Pods, Some(namespace), asked).await?;
        let pods: Vec<PodRecord> = pods.into_iter().filter(|pod| selector.matches(pod)).collect();
        let seen: HashSet<_> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let selector = Arc::new(selector.clone());
        self.shared.write(|state| {
            if state.rewinds == world {
                pods.iter().for_each(|pod| state.put(Kind::Pods, pod.clone(), Origin::Answer));
                state.keep_selected(namespace, &selector, &seen, version);
            }
        });
        let mut pods: Vec<Arc<PodRecord>> = pods.into_iter().map(Arc::new).collect();
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        Ok(Listed { pods, version })
    }

    /// One KubervisorService as it is stored now; `None`: it does not exist.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn fetch_resource(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ResourceRecord>, ListError> {
        self.shared.get(Kind::KubervisorServices, namespace, name).await
    }

    /// One pod as it is stored now; `None`: it does not exist.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn fetch_pod(&self, namespace: &str, name: &str) -> Result<Option<PodRecord>, ListError> {
        self.shared.get(Kind::Pods, namespace, name).await
    }

    /// Asks for the wishes of these owners as they are now, and for the autoscalers of their namespaces:
    /// [`Cluster::desired`] is then no older than whatever was listed before.
    ///
    /// # Errors
    /// When one of them cannot be asked for; one that does not exist is forgotten.
    pub async fn refresh_owners(&self, owners: &[OwnerKey]) -> Result<(), ListError> {
        let namespaces: HashSet<&str> = owners.iter().map(|owner| &*owner.namespace).collect();
        let scalers = namespaces.into_iter().map(|namespace| self.refresh_autoscalers(namespace));
        try_join(self.refresh_workloads(owners), try_join_all(scalers)).await?;
        Ok(())
    }

    async fn refresh_workloads(&self, owners: &[OwnerKey]) -> Result<(), ListError> {
        let world = self.rewinds();
        let asked = self.to_ask(owners).into_iter().map(|(kind, namespace, known)| async move {
            let found = self.shared.get::<WorkloadRecord>(kind, &namespace, &known.name).await?;
            self.shared.write(|state| match found {
                _ if state.rewinds != world => {}
                Some(found) => state.put(kind, found, Origin::Answer),
                None => state.delete(kind, &*known, Origin::Answer),
            });
            Ok::<(), ListError>(())
        });
        stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn refresh_autoscalers(&self, namespace: &str) -> Result<(), ListError> {
        let world = self.rewinds();
        let asked = ListParams::default();
        let (scalers, version) =
            self.shared.list::<AutoscalerRecord>(Kind::Autoscalers, Some(namespace), asked).await?;
        let seen = scalers.iter().map(|scaler| scaler.uid().into()).collect();
        self.shared.write(|state| {
            if state.rewinds == world {
                scalers.into_iter().for_each(|scaler| state.put(Kind::Autoscalers, scaler, Origin::Answer));
                state.keep::<AutoscalerRecord>(Kind::Autoscalers, Some(namespace), &seen, version);
            }
        });
        Ok(())
    }

    /// What to ask for: an owner of a kind that we do not know speaks through its ReplicaSets. What is not
    /// in the cache is reported as unknown anyway.
    fn to_ask(&self, owners: &[OwnerKey]) -> Vec<(Kind, SharedText, Arc<WorkloadRecord>)> {
        let state = self.shared.read();
        let mut asked = Vec::new();
        for OwnerKey { namespace, owner } in owners {
            let (kind, table) = match () {
                () if owner.is_apps("Deployment") => (Kind::Deployments, &state.deployments),
                () if owner.is_apps("ReplicaSet") => (Kind::ReplicaSets, &state.replica_sets),
                () if owner.is_apps("StatefulSet") => (Kind::StatefulSets, &state.stateful_sets),
                () => {
                    let sets = state.sets_of(namespace, owner).cloned();
                    asked.extend(sets.map(|set| (Kind::ReplicaSets, namespace.clone(), set)));
                    continue;
                }
            };
            let known = table.get(namespace, &owner.name).cloned();
            asked.extend(known.map(|known| (kind, namespace.clone(), known)));
        }
        asked
    }
}

impl ClusterCache {
    /// The collection as it is stored now, page by page, and which moment that is.
    pub(in super::super) async fn list<R: CachedObject>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        asked: ListParams,
    ) -> Result<(Vec<R>, u64), ListError> {
        let mut asked = asked.limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.page::<R>(kind, namespace, &asked).await?;
            all.extend(page.items.into_iter().flatten());
            match page.metadata.more.filter(|more| !more.is_empty()) {
                Some(more) => asked = asked.continue_token(&more),
                None => return Ok((all, page.metadata.resource_version)),
            }
        }
    }

    /// One page; it must not be of a time before the request.
    pub(in super::super) async fn page<R: CachedObject>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        asked: &ListParams,
    ) -> Result<Page<R>, ListError> {
        let mark = self.mark(kind);
        let request = Request::new(kind.path(namespace)).list(asked);
        let page: Page<R> = self.ask("list", kind, request, page_of::<R>).await?;
        // Later pages are of the moment of the first, which others may have seen pass.
        let (version, resource) = (page.metadata.resource_version, kind.resource());
        let first = asked.continue_token.is_none();
        if first && !self.witness(&format!("a list of {resource}"), version, mark) {
            return Err(ListError::Rewound { resource, version });
        }
        Ok(page)
    }

    /// One object; `None` if there is none.
    async fn get<R: CachedObject>(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<R>, ListError> {
        let request = Request::new(kind.path(Some(namespace))).get(name, &GetParams::default());
        let one = async |client: &Client, request| client.request(request).await;
        match self.ask("get", kind, request, one).await {
            Ok(found) => Ok(Some(found)),
            Err(ListError::Ask { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 404) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        kind: Kind,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
        send: impl AsyncFnOnce(&Client, hyper::Request<Vec<u8>>) -> Result<T, kube::Error>,
    ) -> Result<T, ListError> {
        let resource = kind.resource();
        let failed = |source| ListError::Ask { verb, resource, source: Box::new(source) };
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        match timeout(PATIENCE, send(&self.client, request)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(ListError::TimedOut { verb, resource }),
        }
    }
}

/// A page in whichever of its forms comes.
async fn page_of<R: CachedObject>(
    client: &Client,
    mut request: hyper::Request<Vec<u8>>,
) -> Result<Page<R>, kube::Error> {
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(R::ACCEPT));
    let answer = client.send(request.map(Body::from)).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let form = head.headers.get(CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or_default();
    let form = form.split(';').next().unwrap_or_default();
    if !head.status.is_success() {
        return Err(kube::Error::Api(refusal(form, head.status.as_u16(), &body).boxed()));
    }
    R::page(form, &body).map_err(kube::Error::SerdeError)
}
