//! The store of Leases and records on a real API server, as the user with the documented rights.

use std::{collections::BTreeMap, ops::Deref, path::PathBuf};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kubervisor::{
    adapters::store,
    config::{KubernetesConfig, StoreConfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    fixture::eventually,
    plane::{self, Alone, Plane, Shared, User},
    proxy::Proxy,
};

/// The annotation with the key that an object's name was made from.
pub const ORIGINAL_KEY: &str = "kubervisor.k8s.io/original-key";
/// The annotation with the schema of an object.
pub const SCHEMA: &str = "kubervisor.k8s.io/schema";
/// The key of the leader's Lease, below the prefix.
pub const LEADER: &str = "election/leader";
/// The key of the ConfigMap with the small records, below the prefix.
pub const HEAD: &str = "records/head";

enum Turn {
    Shared(Shared),
    Alone(Alone),
}

impl Deref for Turn {
    type Target = Plane;

    fn deref(&self) -> &Plane {
        match self {
            Self::Shared(plane) => plane,
            Self::Alone(plane) => plane,
        }
    }
}

/// A namespace of a test's own.
pub struct Cluster {
    plane: Turn,
    client: Client,
    pub namespace: String,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::on(Turn::Shared(plane::shared().await)).await
    }

    /// For a test that harms the plane.
    pub async fn alone() -> Self {
        Self::on(Turn::Alone(plane::alone().await)).await
    }

    async fn on(plane: Turn) -> Self {
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "store").await;
        Self { plane, client, namespace }
    }

    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    pub fn config(&self) -> StoreConfig {
        self.config_of(self.plane.kubeconfig(User::Kubervisor))
    }

    /// As another user, or through a proxy.
    pub fn config_of(&self, kubeconfig: PathBuf) -> StoreConfig {
        StoreConfig::Kubernetes(KubernetesConfig {
            namespace: self.namespace.clone(),
            kubeconfig: Some(kubeconfig),
            server: None,
        })
    }

    /// A proxy that forwards as the user with the documented rights.
    pub fn proxy(&self) -> Proxy {
        Proxy::start(&self.plane.kubeconfig(User::Kubervisor))
    }

    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of this kind that the store has made, by the key below the test's prefix.
    pub async fn stored<K>(api: &Api<K>) -> Vec<(String, K)>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let prefix = store::prefix("default", "test");
        let all = api.list(&ListParams::default()).await.unwrap();
        let keyed = all.into_iter().filter_map(|object| {
            let key = object.annotations().get(ORIGINAL_KEY)?.strip_prefix(&prefix)?.to_owned();
            Some((key, object))
        });
        keyed.collect()
    }

    /// The object with this key below the test's prefix; waits until it is there.
    pub async fn object<K>(api: &Api<K>, key: &str) -> K
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        eventually(key, || async { Self::stored(api).await.iter().any(|(found, _)| found == key) }).await;
        let all = Self::stored(api).await;
        all.into_iter().find(|(found, _)| found == key).map(|(_, object)| object).unwrap()
    }

    /// The Lease with this key below the test's prefix.
    pub async fn lease(&self, key: &str) -> Lease {
        Self::object(&self.leases(), key).await
    }

    /// The ConfigMap with this key below the test's prefix.
    pub async fn map(&self, key: &str) -> ConfigMap {
        Self::object(&self.maps(), key).await
    }

    /// The version of each stored ConfigMap, by its key.
    pub async fn versions(&self) -> BTreeMap<String, Option<String>> {
        let stored = Self::stored(&self.maps()).await;
        stored.into_iter().map(|(key, map)| (key, map.resource_version())).collect()
    }
}

/// Changes an object as a person with `kubectl edit` does.
pub async fn edit<K>(api: &Api<K>, object: &K, change: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(change)).await.unwrap()
}

pub async fn delete<K>(api: &Api<K>, object: &K)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    api.delete(&object.name_any(), &DeleteParams::default()).await.unwrap();
}

/// Makes an object under another name, with the labels, annotations and content of this one.
pub async fn copy<K>(api: &Api<K>, object: &K, name: &str) -> K
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let mut copy = object.clone();
    let meta = copy.meta_mut();
    meta.name = Some(name.to_owned());
    (meta.uid, meta.resource_version, meta.managed_fields) = (None, None, None);
    api.create(&PostParams::default(), &copy).await.unwrap()
}
