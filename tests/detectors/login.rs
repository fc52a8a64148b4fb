//! Credentials and TLS, with a real Prometheus that requires both.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kubervisor::{
    adapters::secrets::{SecretError, Secrets},
    clock::Clock,
    decide::detect::{
        Detector, Deviation, Direction, MetricSource, Query,
        metric_source::{Credential, SourceAuth as Auth},
        queried::{QueryAnswer, QueryVariables},
    },
    roles::breaker::{Asker, AskerMetrics},
};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use serde_json::json;

use crate::{
    fleet::{Fleet, policy},
    prometheus::scraping,
    stage::{Stage, keeping_alive, said, until},
};

/// bcrypt of "open sesame", at the lowest cost.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";

/// Secrets whose value is their name.
struct Keyring;

#[async_trait]
impl Secrets for Keyring {
    async fn read(&self, credential: &Credential) -> Result<SecretString, SecretError> {
        let Credential::Secret { name, key } = credential else { panic!("{credential}") };
        match name.as_str() {
            "missing" => Err(SecretError::Missing { what: credential.to_string(), key: key.clone() }),
            "hanging" => std::future::pending().await,
            text => Ok(text.into()),
        }
    }
}

/// An asker with these secrets.
pub(crate) fn asker() -> Asker {
    Asker::new(Arc::new(Keyring), Clock::start(), AskerMetrics::register(&mut Registry::default())).unwrap()
}

/// A query to `service`.
pub(crate) fn question(service: String, promql: &str, auth: Option<Auth>) -> Detector {
    question_to(MetricSource { auth, ..MetricSource::at(service) }, promql)
}

pub(crate) fn question_to(source: MetricSource, promql: &str) -> Detector {
    let query = Query {
        source: Arc::new(source),
        promql: promql.into(),
        pod_name_key: "pod".into(),
        namespace_key: "namespace".into(),
        min_pod_age: Duration::ZERO,
        max_sample_age: Duration::from_secs(60),
        timeout: Duration::from_secs(2),
    };
    Detector::Deviation(Deviation { query, max_percent: 75.0, direction: Direction::Both })
}

/// The answer to `detector`, or the category of the error.
pub(crate) async fn asked(asker: &Asker, detector: &Detector) -> Result<QueryAnswer, &'static str> {
    asker.ask(detector, &QueryVariables::default()).await.map_err(|error| error.category())
}

pub(crate) fn secret(name: &str) -> Credential {
    Credential::Secret { name: name.into(), key: "key".into() }
}

#[tokio::test]
async fn basic_credentials_come_from_the_secret_and_wrong_ones_have_their_own_category() {
    let stage = Stage::new();
    let web = json!({"basic_auth_users": {"ali": HASH}}).to_string();
    let prometheus = scraping(&stage, &[], Some(&web)).await;
    let asker = asker();
    let ask = async |promql: &str, auth: Option<Auth>| {
        asked(&asker, &question(prometheus.address.to_string(), promql, auth)).await
    };
    let ali = || Some(Auth::Basic(secret("ali:open sesame\n")));
    let vector = until("it is ready", async || {
        ask("label_replace(vector(7), \"pod\", \"a\", \"\", \"\")", ali()).await.ok()
    })
    .await;
    let QueryAnswer::Vector(vector) = vector else { panic!("{vector:?}") };
    assert_eq!((vector.elements[0].pod.as_deref(), vector.elements[0].value), (Some("a"), Some(7.0)));
    assert!(vector.elements[0].at.unix_millis() > 1_600_000_000_000);

    assert_eq!(ask("vector(1)", None).await, Err("log_in"));
    assert_eq!(ask("vector(1)", Some(Auth::Basic(secret("ali:wrong")))).await, Err("log_in"));
    assert_eq!(ask("vector(1)", Some(Auth::Bearer(secret("token")))).await, Err("log_in"));
    assert_eq!(ask("vector(1)", Some(Auth::Basic(secret("no colon")))).await, Err("secret"));
    assert_eq!(ask("vector(1)", Some(Auth::Basic(secret("missing")))).await, Err("secret"));
    assert_eq!(ask("vector(1)", Some(Auth::Basic(secret("hanging")))).await, Err("timeout"));
    // The errors of a real Prometheus for wrong queries.
    assert_eq!(ask("vector(", ali()).await, Err("status"));
    assert_eq!(ask("1", ali()).await, Err("not_a_vector"));
    assert_eq!(ask("\"text\"", ali()).await, Err("not_a_vector"));
    assert_eq!(ask("vector(1)[5m:1m]", ali()).await, Err("not_a_vector"));
    let odd = ask("vector(NaN)", ali()).await.unwrap();
    assert!(matches!(odd, QueryAnswer::Vector(vector) if vector.elements[0].value.is_some_and(f64::is_nan)));
}

#[tokio::test]
async fn https_trusts_only_the_configured_certificate_authorities() {
    let fleet = Fleet::new(2);
    let ip = fleet.stage.ip(200).to_string();
    let made = rcgen::generate_simple_self_signed(vec![ip]).unwrap();
    let certificate = fleet.stage.write("cert.pem", &made.cert.pem());
    let key = fleet.stage.write("key.pem", &made.signing_key.serialize_pem());
    let web = json!({"tls_server_config": {"cert_file": certificate, "key_file": key}}).to_string();
    let prometheus = scraping(&fleet.stage, &[], Some(&web)).await;
    let detector = json!({"continuousValueDeviation": {
        "prometheusService": format!("https://{}", prometheus.address), "podNamekey": "pod", "promQL": "vector(1)",
    }});
    let policy = policy(1.0, &detector);
    let mut master = fleet.node(&policy).start().await;
    let mut pods = fleet.pods();
    keeping_alive(&master, &mut pods, async {
        let outcome = "kubervisor_detector_queries_total{outcome=\"connect\"}";
        until("it is not trusted", async || master.metric(outcome).await).await;
        until("both are listed", async || fleet.stage.lines(crate::fleet::FILE).len() == 2).await;
    })
    .await;
    master.kill();
    let master = fleet.node(&policy).env("SSL_CERT_FILE", certificate.display()).start().await;
    keeping_alive(&master, &mut pods, async {
        let outcome = "kubervisor_detector_queries_total{outcome=\"ok\"}";
        until("it is trusted", async || master.metric(outcome).await).await;
        until("it names none of our pods", async || master.alarm_is_up("detector_failing").await).await;
        let alarms = master.page("services").await.to_string();
        assert!(alarms.contains("check podNamekey"), "{alarms}");
        assert_eq!(fleet.stage.lines(crate::fleet::FILE).len(), 2, "nobody is withheld for it");
    })
    .await;
}

#[tokio::test]
async fn without_kubernetes_a_policy_that_needs_a_secret_is_refused_with_the_field_to_change() {
    let fleet = Fleet::new(1);
    let detector = json!({
        "auth": {"bearerSecret": {"name": "prometheus", "key": "token"}},
        "continuousValueDeviation": {"prometheusService": "p:9090", "podNamekey": "pod", "promQL": "x"},
    });
    let output = fleet.node(&policy(1.0, &detector)).output();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("spec.breakers[0].auth: needs a Secret"), "{}", said(&output));
}
