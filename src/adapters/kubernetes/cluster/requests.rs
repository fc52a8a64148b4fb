//! Quorum reads from the API server: the LIST that a plan rests on, the owners of its pods, and single objects.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt, TryStreamExt,
    future::{try_join, try_join_all, try_join3},
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
    Cluster, ClusterCache, OwnerKey, Stored,
    state::Origin,
};

/// Objects on a page, which bounds the memory of one response.
const PAGE: u32 = 1000;
/// Owners that are read at a time.
const MAX_CONCURRENT_GETS: usize = 16;
/// A LIST of workloads reads at most so many for each one that is asked for.
const MAX_LISTED_PER_OWNER: usize = 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The pods of a selector, as stored.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Sorted by UID.
    pub pods: Vec<Arc<PodRecord>>,
    /// The resourceVersion of the list.
    pub version: u64,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API server refused, or was not reached.
    #[error("cannot {verb} {resource}")]
    Ask {
        /// The verb, as in RBAC.
        verb: &'static str,
        /// The plural resource name, as in RBAC.
        resource: &'static str,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// No response in time.
    #[error("cannot {verb} {resource}: no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut {
        /// The verb, as in RBAC.
        verb: &'static str,
        /// The plural resource name, as in RBAC.
        resource: &'static str,
    },
    /// The response is older than what was seen before: the API server was restored from a backup.
    #[error(
        "time ran backwards: the {resource} were listed at version {version}, and later ones were seen before"
    )]
    Rewound {
        /// The plural resource name, as in RBAC.
        resource: &'static str,
        /// The resourceVersion of the response.
        version: u64,
    },
}

impl ListError {
    /// The verb and resource that are forbidden, if that is the cause.
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
    /// Lists the selected pods by a quorum read and updates the cache with it: cached pods that are selected and not listed
    /// are removed.
    ///
    /// # Errors
    /// When a page is missing, or the list is older than what was seen before.
    pub async fn list_pods(&self, namespace: &str, selector: &Selector) -> Result<Listed, ListError> {
        let rewinds = self.rewinds();
        let parameters = ListParams::default().labels(&selector.to_query());
        let (pods, version) = self.shared.list::<PodRecord>(Kind::Pods, Some(namespace), parameters).await?;
        let pods: Vec<PodRecord> = pods.into_iter().filter(|pod| selector.matches(pod)).collect();
        let seen: HashSet<_> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let selector = Arc::new(selector.clone());
        self.shared.write(|state| {
            if state.rewinds == rewinds {
                pods.iter().for_each(|pod| state.put(Kind::Pods, pod.clone(), Origin::Answer));
                state.keep_selected(namespace, &selector, &seen, version);
            }
        });
        Ok(Listed { pods: super::by_uid(pods.into_iter().map(Arc::new)), version })
    }

    /// A KubervisorService, by a quorum read; `None`: it does not exist.
    ///
    /// # Errors
    /// When it is not known.
    pub async fn fetch_resource(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ResourceRecord>, ListError> {
        self.shared.get(Kind::KubervisorServices, namespace, name).await
    }

    /// A pod, by a quorum read; `None`: it does not exist.
    ///
    /// # Errors
    /// When it is not known.
    pub async fn fetch_pod(&self, namespace: &str, name: &str) -> Result<Option<PodRecord>, ListError> {
        self.shared.get(Kind::Pods, namespace, name).await
    }

    /// Reads these owners and the autoscalers of their namespaces by quorum reads: [`Cluster::desired`] is then no older
    /// than what was listed before.
    ///
    /// # Errors
    /// When one of them cannot be read; one that does not exist is removed from the cache.
    pub async fn refresh_owners(&self, owners: &[OwnerKey]) -> Result<(), ListError> {
        let namespaces: HashSet<&str> = owners.iter().map(|owner| &*owner.namespace).collect();
        let scalers = namespaces.into_iter().map(|it| self.relist::<AutoscalerRecord>(Kind::Autoscalers, it));
        let scales = self.read_scales(owners);
        try_join3(self.refresh_workloads(owners), try_join_all(scalers), scales).await?;
        Ok(())
    }

    async fn refresh_workloads(&self, owners: &[OwnerKey]) -> Result<(), ListError> {
        let (lists, gets) = self.workload_reads(owners);
        let lists = lists.iter().map(|(kind, namespace)| self.relist::<WorkloadRecord>(*kind, namespace));
        try_join(try_join_all(lists), self.get_workloads(gets)).await?;
        Ok(())
    }

    async fn get_workloads(&self, workloads: Vec<CachedWorkload>) -> Result<(), ListError> {
        let rewinds = self.rewinds();
        let reads = workloads.into_iter().map(|(kind, namespace, known)| async move {
            let found = self.shared.get::<WorkloadRecord>(kind, &namespace, &known.name).await?;
            self.shared.write(|state| match found {
                _ if state.rewinds != rewinds => {}
                Some(found) => state.put(kind, found, Origin::Answer),
                None => state.delete(kind, &*known, Origin::Answer),
            });
            Ok::<(), ListError>(())
        });
        stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(MAX_CONCURRENT_GETS).try_collect().await
    }

    /// Lists a kind of a namespace and updates the cache with it.
    async fn relist<R: Stored>(&self, kind: Kind, namespace: &str) -> Result<(), ListError> {
        let rewinds = self.rewinds();
        let parameters = ListParams::default();
        let (records, version) = self.shared.list::<R>(kind, Some(namespace), parameters).await?;
        let seen = records.iter().map(|record| record.uid().into()).collect();
        self.shared.write(|state| {
            if state.rewinds == rewinds {
                records.into_iter().for_each(|record| state.put(kind, record, Origin::Answer));
                state.keep::<R>(kind, Some(namespace), &seen, version);
            }
        });
        Ok(())
    }

    /// The cached workloads to read: the owner, or its ReplicaSets if its kind is not watched. Owners that are not cached are
    /// reported by [`Desired::unknown`].
    ///
    /// Several of one kind and namespace are read by one LIST. No selector narrows it: workloads need not have labels.
    /// Where it would read [`MAX_LISTED_PER_OWNER`] times as many as are asked for, single GETs cost the API server less.
    fn workload_reads(&self, owners: &[OwnerKey]) -> (Vec<(Kind, SharedText)>, Vec<CachedWorkload>) {
        let state = self.shared.read();
        let mut reads = BTreeMap::<(Kind, SharedText), BTreeMap<Arc<str>, Arc<WorkloadRecord>>>::new();
        for OwnerKey { namespace, owner } in owners {
            let kind = match () {
                () if owner.is_apps("Deployment") => Kind::Deployments,
                () if owner.is_apps("StatefulSet") => Kind::StatefulSets,
                () => Kind::ReplicaSets,
            };
            let of_kind = reads.entry((kind, namespace.clone())).or_default();
            let mut add =
                |known: &Arc<WorkloadRecord>| of_kind.insert(Arc::clone(&known.name), Arc::clone(known));
            if kind == Kind::ReplicaSets && !owner.is_apps("ReplicaSet") {
                state.sets_of(namespace, owner).for_each(|set| drop(add(set)));
            } else if let Some(known) = state.workloads(kind).get(namespace, &owner.name) {
                add(known);
            }
        }
        let (mut lists, mut gets) = (Vec::new(), Vec::new());
        for ((kind, namespace), known) in reads {
            let all = state.workloads(kind).of(&namespace).count();
            if known.len() > 1 && all <= known.len() * MAX_LISTED_PER_OWNER {
                lists.push((kind, namespace));
            } else {
                gets.extend(known.into_values().map(|known| (kind, namespace.clone(), known)));
            }
        }
        (lists, gets)
    }
}

/// A workload that is cached, with its kind and namespace.
type CachedWorkload = (Kind, SharedText, Arc<WorkloadRecord>);

impl ClusterCache {
    /// The collection, read page by page, and its resourceVersion.
    pub(in super::super) async fn list<R: CachedObject>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        parameters: ListParams,
    ) -> Result<(Vec<R>, u64), ListError> {
        let mut parameters = parameters.limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.page::<R>(kind, namespace, &parameters).await?;
            all.extend(page.items.into_iter().flatten());
            match page.metadata.more.filter(|next| !next.is_empty()) {
                Some(next) => parameters = parameters.continue_token(&next),
                None => return Ok((all, page.metadata.resource_version)),
            }
        }
    }

    /// One page; the first must not be older than what was seen before the request.
    pub(in super::super) async fn page<R: CachedObject>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        parameters: &ListParams,
    ) -> Result<Page<R>, ListError> {
        let mark = self.mark(kind);
        let request = Request::new(kind.path(namespace)).list(parameters);
        let page: Page<R> = self.ask("list", kind, request, page_of::<R>).await?;
        // Later pages have the version of the first, and newer ones may have been seen since.
        let (version, resource) = (page.metadata.resource_version, kind.resource());
        let first = parameters.continue_token.is_none();
        if first && !self.check_version(&format!("a list of {resource}"), version, mark) {
            return Err(ListError::Rewound { resource, version });
        }
        Ok(page)
    }

    /// One object; `None`: it does not exist.
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
        match timeout(REQUEST_TIMEOUT, send(&self.client, request)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(ListError::TimedOut { verb, resource }),
        }
    }
}

/// Requests a page in the accepted media types and decodes it.
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
