//! The store of Leases and ConfigMaps on a real API server, as the user with the documented rights.

use kubervisor::config::{KubernetesConfig, StoreConfig};

use crate::plane::{self, Shared, User};

/// A namespace of a test's own.
pub struct Cluster {
    plane: Shared,
    namespace: String,
}

impl Cluster {
    pub async fn start() -> Self {
        let plane = plane::shared().await;
        let admin = plane.client(User::Admin).await;
        let namespace = plane.namespace(&admin, "store").await;
        Self { plane, namespace }
    }

    pub fn config(&self) -> StoreConfig {
        StoreConfig::Kubernetes(KubernetesConfig {
            namespace: self.namespace.clone(),
            kubeconfig: Some(self.plane.kubeconfig(User::Kubervisor)),
            server: None,
        })
    }
}
