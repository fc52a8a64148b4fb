//! A `KubervisorService` over the application, and the sources of its verdicts.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use axum::{Json, Router, routing::get};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    cluster::{ADDRESS, apply, shell},
    load::Shared,
};

/// A custom service that names the pods whose answers failed a client in the last second, and those that a test names.
pub(crate) struct Detector {
    /// Where it is asked, for `customService`.
    pub(crate) address: SocketAddr,
    named: Arc<Mutex<BTreeSet<String>>>,
    server: JoinHandle<()>,
}

impl Detector {
    /// Judges by these answers.
    pub(crate) async fn start(answers: Shared) -> Self {
        let named = Arc::<Mutex<BTreeSet<String>>>::default();
        let bad = Arc::clone(&named);
        let answer = move || async move {
            let failing = &answers.lock().failing() | &bad.lock();
            let row = |pod: &String| json!({"name": pod, "bad": true, "reason": "answers with 500"});
            Json(json!({"pods": failing.iter().map(row).collect::<Vec<Value>>()}))
        };
        let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(get(answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, named, server }
    }

    /// Names these, whatever their answers are.
    pub(crate) fn name(&self, pods: &[&str]) {
        *self.named.lock() = pods.iter().map(|pod| (*pod).to_owned()).collect();
    }

    /// Its breaker.
    pub(crate) fn breaker(&self) -> Value {
        json!({
            "name": "errors", "customService": self.address.to_string(), "evaluationPeriod": 0.5,
            "minPodsAvailableRatio": 50,
        })
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Applies the resource `shop` with this breaker and these further fields of the spec, waits until it is Ready, and puts
/// the switch into the Service's selector.
pub(crate) fn gate(namespace: &str, breaker: &Value, further: &Value) {
    declare(namespace, breaker, further);
    shell(&format!("kubectl -n {namespace} wait --for=condition=Ready kvs/shop --timeout=30s"));
    shell(&format!("{} -n {namespace} enable shop", env!("CARGO_BIN_EXE_kubectl-kubervisor")));
}

/// Applies the resource only.
pub(crate) fn declare(namespace: &str, breaker: &Value, further: &Value) {
    let mut spec = json!({"service": "shop", "breakers": [breaker]});
    for (field, value) in further.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let metadata = json!({"name": "shop", "namespace": namespace});
    let resource = json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": metadata, "spec": spec,
    });
    apply(&resource.to_string());
}
