//! Sources: path, headers, TLS, credentials, tenants and rate limits, with a real Prometheus where it has the feature.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use kubervisor::decide::detect::{
    MetricSource,
    metric_source::{SourceAuth, SourceHeader, SourceText, SourceTls},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    login::{asked, asker, question_to, secret},
    scraper::Prometheus,
    stage::{Stage, until},
};

const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// A server that records the requests and gives each of these answers in turn, the last one for ever.
struct Recorder {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    async fn start(stage: &Stage, host: u8, answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((stage.ip(host), 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let recorded = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut answers = answers.into_iter().peekable();
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answers.peek().cloned().unwrap_or_default();
                if answers.len() > 1 {
                    answers.next();
                }
                let mut request = vec![0; 1 << 16];
                let size = stream.read(&mut request).await.unwrap_or(0);
                recorded.lock().unwrap().push(String::from_utf8_lossy(&request[..size]).into_owned());
                let _gone = stream.write_all(&answer).await;
                let _end = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut request)).await;
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn source(&self) -> MetricSource {
        MetricSource::at(self.address.clone())
    }
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{fields}\r\n");
    [head.into_bytes(), body.to_vec()].concat()
}

fn from_secret(name: &str, value: &str) -> SourceHeader {
    SourceHeader { name: name.into(), value: SourceText::From(secret(value)) }
}

#[tokio::test]
async fn a_prometheus_below_a_path_with_a_private_authority_a_client_certificate_and_a_password() {
    let stage = Stage::new();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let issue = |name: &str, days_ago: Option<i64>| {
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if let Some(days) = days_ago {
            let at = |days: i64| {
                rcgen::date_time_ymd(2020, 1, 1)
                    - std::time::Duration::from_secs(86_400) * u32::try_from(days).unwrap()
            };
            (parameters.not_before, parameters.not_after) = (at(days + 1), at(days));
        }
        let key = rcgen::KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("prometheus.internal", None);
    let file = |name: &str, text: &str| stage.write(name, text).display().to_string();
    let web = json!({
        "tls_server_config": {
            "cert_file": file("cert.pem", &certificate), "key_file": file("key.pem", &key),
            "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": file("ca.pem", &ca),
        },
        "basic_auth_users": {"ali": "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"},
    });
    let further = ["--web.route-prefix=/metrics-of/shop"];
    let prometheus =
        Prometheus::start_with(stage.directory(), stage.ip(200), &[], Some(&web.to_string()), &further).await;
    let (own, own_key) = issue("kubervisor", None);
    let good = MetricSource {
        url: format!("https://{}/metrics-of/shop/", prometheus.address),
        tls: SourceTls {
            ca: Some(secret(&ca)),
            identity: Some((secret(&own), secret(&own_key))),
            server_name: Some("prometheus.internal".into()),
        },
        auth: Some(SourceAuth::BasicPair(secret("ali"), secret("open sesame\n"))),
        ..MetricSource::default()
    };
    let asker = asker();
    let ask = async |source: MetricSource| asked(&asker, &question_to(source, "vector(1)")).await.map(drop);
    until("it is ready", async || ask(good.clone()).await.ok()).await;

    let with = |change: &dyn Fn(&mut MetricSource)| {
        let mut source = good.clone();
        change(&mut source);
        source
    };
    let (old, old_key) = issue("kubervisor", Some(1));
    let wrong = [
        (with(&|source| source.tls.ca = None), "connect"),
        (with(&|source| source.tls.server_name = Some("other.internal".into())), "connect"),
        (with(&|source| source.tls.ca = Some(secret("no PEM"))), "set_up"),
        (with(&|source| source.auth = None), "log_in"),
        (with(&|source| source.url = format!("https://{}/", prometheus.address)), "status"),
    ];
    for (source, expected) in wrong {
        assert_eq!(ask(source.clone()).await, Err(expected), "{source:?}");
    }
    // TLS 1.3 refuses a client's certificate after the handshake.
    for identity in [None, Some((secret(&old), secret(&old_key)))] {
        let outcome = ask(with(&|source| source.tls.identity.clone_from(&identity))).await;
        assert!(matches!(outcome, Err("connect" | "exchange")), "{outcome:?}");
    }
}

#[tokio::test]
async fn headers_name_the_tenant_and_a_wrong_one_is_denied() {
    let stage = Stage::new();
    let answers = vec![
        answer("200 OK", "", EMPTY.as_bytes()),
        answer("401 Unauthorized", "", b"no org id"),
        answer("403 Forbidden", "", b"wrong tenant"),
    ];
    let server = Recorder::start(&stage, 2, answers).await;
    let asker = asker();
    let source = MetricSource {
        url: format!("{}/api/prom?shard=1", server.address),
        headers: vec![
            SourceHeader { name: "X-Scope-OrgID".into(), value: SourceText::Plain("shop".into()) },
            from_secret("X-Key", "sesame\n"),
        ],
        ..MetricSource::default()
    };
    assert!(asked(&asker, &question_to(source.clone(), "up")).await.is_ok());
    let request = server.requests().remove(0).to_lowercase();
    assert!(request.starts_with("get /api/prom/api/v1/query?shard=1&query=up&"), "{request}");
    assert!(request.contains("x-scope-orgid: shop") && request.contains("x-key: sesame\r\n"), "{request}");
    assert_eq!(asked(&asker, &question_to(source.clone(), "up")).await, Err("log_in"));
    assert_eq!(asked(&asker, &question_to(source.clone(), "up")).await, Err("log_in"));
    let broken = MetricSource { headers: vec![from_secret("X-Key", "two\nlines")], ..source };
    assert_eq!(asked(&asker, &question_to(broken, "up")).await, Err("secret"));
    assert_eq!(server.requests().len(), 3, "nothing is sent with a header that HTTP forbids");
}

#[tokio::test]
async fn a_long_query_is_posted_and_gzip_is_decoded_and_another_encoding_refused() {
    let stage = Stage::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(EMPTY.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    let answers = vec![
        answer("200 OK", "Content-Encoding: gzip\r\n", &gzip),
        answer("200 OK", "Content-Encoding: br\r\n", b"x"),
    ];
    let server = Recorder::start(&stage, 2, answers).await;
    let asker = asker();
    let long = format!("up{{pod=~\"{}\"}}", "x".repeat(3000));
    assert!(asked(&asker, &question_to(server.source(), &long)).await.is_ok());
    assert!(server.requests()[0].starts_with("POST /api/v1/query HTTP"), "{}", server.requests()[0]);
    assert_eq!(asked(&asker, &question_to(server.source(), "up")).await, Err("format"));
}

#[tokio::test]
async fn a_service_that_asks_for_a_pause_is_left_alone_for_that_time() {
    let stage = Stage::new();
    let answers = vec![
        answer("429 Too Many Requests", "Retry-After: 1\r\n", b"slow down"),
        answer("200 OK", "", EMPTY.as_bytes()),
    ];
    let server = Recorder::start(&stage, 2, answers).await;
    let asker = asker();
    let question = question_to(server.source(), "up");
    assert_eq!(asked(&asker, &question).await, Err("status"));
    assert_eq!(asked(&asker, &question).await, Err("resting"));
    assert_eq!(server.requests().len(), 1);
    until("the pause is over", async || asked(&asker, &question).await.ok()).await;
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn client_credentials_fetch_a_token_once_and_again_after_a_refusal() {
    let stage = Stage::new();
    let token = |text: &str| {
        let body = json!({"access_token": text, "token_type": "bearer", "expires_in": 3600});
        answer("200 OK", "Content-Type: application/json\r\n", body.to_string().as_bytes())
    };
    let issuer = Recorder::start(&stage, 3, vec![token("first"), token("second")]).await;
    let ok = answer("200 OK", "", EMPTY.as_bytes());
    let answers = vec![ok.clone(), ok.clone(), answer("401 Unauthorized", "", b""), ok];
    let server = Recorder::start(&stage, 2, answers).await;
    let auth = SourceAuth::OAuth2 {
        token_url: format!("http://{}/token", issuer.address),
        client_id: "kubervisor".into(),
        client_secret: secret("sesame"),
        scopes: vec!["metrics".into()],
    };
    let question = question_to(MetricSource { auth: Some(auth), ..server.source() }, "up");
    let asker = asker();
    let outcomes = [
        asked(&asker, &question).await.map(drop),
        asked(&asker, &question).await.map(drop),
        asked(&asker, &question).await.map(drop),
        asked(&asker, &question).await.map(drop),
    ];
    assert_eq!(outcomes, [Ok(()), Ok(()), Err("log_in"), Ok(())]);
    let with = |text: &str| server.requests().iter().filter(|request| request.contains(text)).count();
    assert_eq!((with("Bearer first"), with("Bearer second")), (3, 1));
    let asked_for = issuer.requests();
    assert_eq!(asked_for.len(), 2);
    assert!(asked_for[0].contains("grant_type=client_credentials&scope=metrics"), "{}", asked_for[0]);
    // kubervisor:sesame
    assert!(asked_for[0].contains("Basic a3ViZXJ2aXNvcjpzZXNhbWU="), "{}", asked_for[0]);
}
