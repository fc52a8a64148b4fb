//! Requests to the API server, each under the store's deadline and on this store's own client: a busy client of the
//! other parts costs no leadership.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::coordination::v1::Lease, api::core::v1::ConfigMap};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::ObjectList,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::adapters::store::{Operation, StoreError, StoreMetrics};

/// Objects on a page: a chunk may have 512 KiB.
const PAGE: u32 = 16;

/// An object of this store.
pub(super) trait StoredObject:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
    /// As in RBAC.
    const PLURAL: &'static str;
}

impl StoredObject for Lease {
    const PLURAL: &'static str = "leases.coordination.k8s.io";
}

impl StoredObject for ConfigMap {
    const PLURAL: &'static str = "configmaps";
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum RequestFailure {
    /// The object has changed, exists already, or no longer exists.
    Conflict,
    /// Another reason; whether a write happened is unknown unless it was refused.
    Failed(StoreError),
}

impl From<StoreError> for RequestFailure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<RequestFailure> for StoreError {
    fn from(refusal: RequestFailure) -> Self {
        match refusal {
            RequestFailure::Conflict => {
                Self::Unavailable("Kubernetes: the object has changed meanwhile".to_owned())
            }
            RequestFailure::Failed(error) => error,
        }
    }
}

/// Makes the requests.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) deadline: Duration,
    pub(super) metrics: StoreMetrics,
}

impl Requests {
    pub(super) fn api<K: StoredObject>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object, by a quorum read.
    pub(super) async fn get<K: StoredObject>(&self, name: &str) -> Result<Option<K>, RequestFailure> {
        self.ask::<K, _>("get", Operation::Follow, self.api::<K>().get_opt(name)).await
    }

    /// All selected objects and the version of the list, by quorum reads in pages.
    pub(super) async fn list<K: StoredObject>(
        &self,
        selector: &str,
    ) -> Result<(Vec<K>, String), RequestFailure> {
        let (api, mut found) = (self.api::<K>(), Vec::new());
        let mut page = ListParams::default().labels(selector).limit(PAGE);
        loop {
            let listed: ObjectList<K> = self.ask::<K, _>("list", Operation::Load, api.list(&page)).await?;
            found.extend(listed.items);
            let version = listed.metadata.resource_version.unwrap_or_default();
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok((found, version)),
            }
        }
    }

    /// Creates the object, or replaces the version that it names.
    pub(super) async fn put<K: StoredObject>(
        &self,
        operation: Operation,
        object: &K,
    ) -> Result<K, RequestFailure> {
        let (api, parameters) = (self.api::<K>(), PostParams::default());
        let name = object.meta().name.as_deref().unwrap_or_default();
        match object.meta().resource_version {
            None => self.ask::<K, _>("create", operation, api.create(&parameters, object)).await,
            Some(_) => self.ask::<K, _>("update", operation, api.replace(name, &parameters, object)).await,
        }
    }

    /// Sends a merge patch, which names the version that it changes.
    pub(super) async fn patch<K: StoredObject>(
        &self,
        name: &str,
        patch: &Value,
    ) -> Result<K, RequestFailure> {
        let (api, parameters) = (self.api::<K>(), PatchParams::default());
        let patch = Patch::Merge(patch);
        self.ask::<K, _>("patch", Operation::Commit, api.patch(name, &parameters, &patch)).await
    }

    /// Deletes exactly this version of the object.
    pub(super) async fn delete<K: StoredObject>(&self, object: &K) -> Result<(), RequestFailure> {
        let meta = object.meta();
        let preconditions =
            Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let (api, name) = (self.api::<K>(), meta.name.as_deref().unwrap_or_default());
        self.ask::<K, _>("delete", Operation::Commit, api.delete(name, &parameters)).await.map(drop)
    }

    pub(super) async fn ask<K: StoredObject, T>(
        &self,
        verb: &'static str,
        operation: Operation,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, RequestFailure> {
        self.metrics.asked(operation);
        match tokio::time::timeout(self.deadline, request).await {
            Ok(answer) => answer.map_err(|error| self.explain(verb, K::PLURAL, error)),
            Err(_) => {
                let waited = self.deadline.as_millis();
                let text = format!("Kubernetes: {verb} {}: no answer within {waited} ms", K::PLURAL);
                Err(StoreError::Unavailable(text).into())
            }
        }
    }

    pub(super) fn explain(&self, verb: &str, plural: &str, error: kube::Error) -> RequestFailure {
        let kube::Error::Api(status) = error else {
            return StoreError::Unavailable(format!("Kubernetes: {verb} {plural}: {error}")).into();
        };
        let (namespace, why) = (&self.namespace, &status.message);
        match status.code {
            // A merge patch or a deletion of what is gone.
            404 if verb != "get" && !why.contains("namespaces ") => RequestFailure::Conflict,
            409 => RequestFailure::Conflict,
            401 | 403 => StoreError::Unusable(format!(
                "Kubernetes refuses: {why}; the store needs get, list, watch, create, update, patch and delete of leases and \
                 configmaps in namespace {namespace} (examples/kubernetes/rbac.yaml)"
            ))
            .into(),
            404 => StoreError::Unusable(format!(
                "Kubernetes: {verb} {plural} in namespace {namespace}: {why}; create that namespace, or name another store"
            ))
            .into(),
            413 | 422 => StoreError::Unusable(format!("Kubernetes: {verb} {plural}: {why}")).into(),
            507 => StoreError::NoSpace(format!("Kubernetes: {verb} {plural}: {why}")).into(),
            _ if why.contains("database space exceeded") => {
                StoreError::NoSpace(format!("Kubernetes: {verb} {plural}: {why}")).into()
            }
            _ => StoreError::Unavailable(format!("Kubernetes: {verb} {plural}: {why}")).into(),
        }
    }
}
