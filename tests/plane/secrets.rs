//! A detector's credentials are read from a Secret for each query; a missing right is named in the error.

use std::error::Error as _;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kubervisor::{
    adapters::{
        kubernetes::secrets::KubernetesSecrets,
        secrets::{SecretError, Secrets as _},
    },
    decide::detect::metric_source::Credential,
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::plane::{self, Component, User};

fn key(name: &str, key: &str) -> Credential {
    Credential::Secret { name: name.into(), key: key.into() }
}

#[tokio::test]
async fn a_key_of_a_secret_is_read_anew_each_time_and_an_error_says_which_one_it_is() {
    let plane = plane::shared().await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "secrets").await;
    let stored = Api::<Secret>::namespaced(admin.clone(), &namespace);
    let secret = json!({"metadata": {"name": "prometheus"}, "stringData": {"token": "sesame"}, "data": {"odd": "/w=="}});
    stored.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let secrets = KubernetesSecrets::new(plane.client(User::Kubervisor).await, &namespace);
    let token = key("prometheus", "token");
    assert_eq!(secrets.read(&token).await.unwrap().expose_secret(), "sesame");

    let rotated = Patch::Merge(json!({"stringData": {"token": "simsim"}}));
    stored.patch("prometheus", &PatchParams::default(), &rotated).await.unwrap();
    assert_eq!(secrets.read(&token).await.unwrap().expose_secret(), "simsim");

    let error = secrets.read(&key("prometheus", "password")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Secret {namespace}/prometheus has no key password, or does not exist")
    );
    let error = secrets.read(&key("prometheus", "odd")).await.unwrap_err();
    assert!(matches!(error, SecretError::NotText { .. }), "{error}");
    stored.delete("prometheus", &DeleteParams::default()).await.unwrap();
    assert!(matches!(secrets.read(&token).await, Err(SecretError::Missing { .. })));
    let maps = Api::<ConfigMap>::namespaced(admin.clone(), &namespace);
    let map = json!({"metadata": {"name": "trust"}, "data": {"ca.crt": "PEM"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let in_map = |key: &str| Credential::ConfigMap { name: "trust".into(), key: key.into() };
    assert_eq!(secrets.read(&in_map("ca.crt")).await.unwrap().expose_secret(), "PEM");
    assert!(matches!(secrets.read(&in_map("tls.crt")).await, Err(SecretError::Missing { .. })));
    // A Secret of another namespace is not read.
    let elsewhere = KubernetesSecrets::new(plane.client(User::Kubervisor).await, "default");
    assert!(matches!(elsewhere.read(&token).await, Err(SecretError::Missing { .. })));
}

#[tokio::test]
async fn a_forbidden_read_names_the_missing_verb() {
    let plane = plane::shared().await;
    let secrets = KubernetesSecrets::new(plane.client(User::Nobody).await, "default");
    let error = secrets.read(&key("prometheus", "token")).await.unwrap_err();
    assert!(matches!(error, SecretError::Forbidden { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("default/prometheus") && text.contains("the verb get on secrets"), "{text}");
}

#[tokio::test]
async fn a_read_from_a_frozen_api_server_times_out() {
    let plane = plane::alone().await;
    let client = plane.client(User::Kubervisor).await;
    let secrets = KubernetesSecrets::new(client, "default");
    assert!(matches!(secrets.read(&key("x", "y")).await, Err(SecretError::Missing { .. })));
    plane.freeze(Component::ApiServer);
    let began = std::time::Instant::now();
    let error = secrets.read(&key("x", "y")).await.unwrap_err();
    plane.thaw(Component::ApiServer);
    let why = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(why.contains("no answer within 3 s"), "{error}: {why}");
    assert!(began.elapsed().as_secs() < 10);
}
