//! Certificates, users and passwords: what works, and what each mistake is called.

use std::time::{Duration, Instant};

use kubervisor::{
    adapters::store::{Leadership, RecordKey, Store, Term},
    config::{EtcdConfig, StoreConfig},
};

use crate::{
    etcd_server::{Etcd, Options, USER},
    fixture::{leading, open, put},
};

const TLS: Options = Options { tls: true, quota: None, token_ttl: None, jwt: false };

async fn refusal(config: EtcdConfig) -> String {
    match open(&StoreConfig::Etcd(config), "a").await {
        Ok(_) => panic!("it was let in"),
        Err(error) => {
            assert_eq!(error.category(), "unusable", "{error}");
            error.to_string()
        }
    }
}

/// With TLS 1.3 a server refuses a client certificate by closing the connection, as it does when it stops: the
/// store goes on trying, and says what may be wrong.
async fn unconnected(config: EtcdConfig) -> String {
    let store = match open(&StoreConfig::Etcd(config), "a").await {
        Ok(store) => store,
        Err(error) => return error.to_string(),
    };
    store.load().await.unwrap_err().to_string()
}

#[tokio::test]
async fn tls_with_a_client_certificate_and_a_login_works() {
    let mut etcd = Etcd::start_with(TLS).await;
    etcd.enable_login().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "secret")).await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 1);
}

#[tokio::test]
async fn mistakes_with_certificates_are_named() {
    let etcd = Etcd::start_with(TLS).await;
    let other = Etcd::prepare(TLS);
    let right = etcd.etcd_config();

    let unnamed = unconnected(EtcdConfig { client: None, ..right.clone() }).await;
    assert!(unnamed.contains("KUBERVISOR_ETCD_CERT_FILE"), "{unnamed}");

    let stranger = refusal(EtcdConfig { ca: other.etcd_config().ca, ..right.clone() }).await;
    assert!(stranger.contains("KUBERVISOR_ETCD_CA_FILE"), "{stranger}");

    let forged = unconnected(EtcdConfig { client: other.etcd_config().client, ..right.clone() }).await;
    assert!(forged.contains("KUBERVISOR_ETCD_CERT_FILE"), "{forged}");

    let missing = refusal(EtcdConfig { ca: Some("/nowhere/ca.pem".into()), ..right.clone() }).await;
    assert!(missing.contains("/nowhere/ca.pem"), "{missing}");

    let no_ca = refusal(EtcdConfig { ca: None, client: None, ..right.clone() }).await;
    assert!(no_ca.contains("KUBERVISOR_ETCD_CA_FILE"), "{no_ca}");

    let plain = vec![format!("http://{}", etcd.endpoint())];
    let unencrypted = refusal(EtcdConfig { endpoints: plain, ..right }).await;
    assert!(unencrypted.contains("https://"), "{unencrypted}");
}

#[tokio::test]
async fn a_certificate_that_is_exchanged_in_its_file_is_read_again() {
    let mut etcd = Etcd::start_with(TLS).await;
    let (right, other) = (etcd.etcd_config(), Etcd::prepare(TLS));
    let folder = tempfile::tempdir().unwrap();
    let files = (folder.path().join("client.pem"), folder.path().join("client.key"));
    let exchange = |config: &EtcdConfig| {
        let (certificate, key) = config.client.as_ref().unwrap();
        std::fs::copy(certificate, &files.0).unwrap();
        std::fs::copy(key, &files.1).unwrap();
    };
    exchange(&right);
    let config = EtcdConfig { client: Some(files.clone()), ..right.clone() };
    let store = open(&StoreConfig::Etcd(config), "a").await.unwrap();
    leading(&*store).await;
    // Every connection ends, and the next one is refused.
    exchange(&other.etcd_config());
    etcd.kill();
    etcd.launch().await;
    let refused = store.load().await.unwrap_err().to_string();
    assert!(refused.contains("KUBERVISOR_ETCD_CERT_FILE"), "{refused}");
    exchange(&right);
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "x")).await.unwrap();
}

#[tokio::test]
async fn mistakes_with_logins_are_named() {
    let mut etcd = Etcd::start().await;
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "wrong").unwrap();
    let with_wrong = Some((USER.to_owned(), password.path().to_owned()));
    let early = EtcdConfig { login: with_wrong.clone(), ..etcd.etcd_config() };
    let early = refusal(early).await;
    assert!(early.contains("unset KUBERVISOR_ETCD_USER"), "{early}");

    etcd.enable_login().await;
    let right = etcd.etcd_config();
    let wrong = EtcdConfig { login: with_wrong, ..right.clone() };
    let wrong = refusal(wrong).await;
    assert!(wrong.contains("KUBERVISOR_ETCD_PASSWORD_FILE"), "{wrong}");
    assert!(!wrong.contains("wrong\""), "no password in a message: {wrong}");

    let nobody = refusal(EtcdConfig { login: None, ..right }).await;
    assert!(nobody.contains("set KUBERVISOR_ETCD_USER"), "{nobody}");
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed() {
    let options = Options { token_ttl: Some(1), ..Options::default() };
    let mut etcd = Etcd::start_with(options).await;
    etcd.enable_login().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        store.commit(term, put(RecordKey::State, "x")).await.unwrap();
        assert_eq!(leading(&*store).await, term);
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
}

/// Commits until it succeeds, at most this often.
async fn committed(store: &dyn Store, term: Term, value: &str) -> bool {
    for _ in 0..100 {
        match store.commit(term, put(RecordKey::State, value)).await {
            Ok(()) => return true,
            Err(error) => println!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn a_token_that_a_change_of_users_made_invalid_is_replaced_at_once() {
    let mut etcd = Etcd::start_with(Options { jwt: true, ..Options::default() }).await;
    etcd.enable_login().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let mut root = etcd.connect().await.unwrap();
    root.user_add("somebody", "x", None).await.unwrap();
    assert!(committed(&*store, term, "after").await, "within 2 s");
    assert!(store.may_act(term), "the leadership is the same");
}

#[tokio::test]
async fn a_new_password_is_taken_from_its_file_and_a_wrong_one_ends_the_leadership() {
    let mut etcd = Etcd::start_with(Options { jwt: true, ..Options::default() }).await;
    etcd.enable_login().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let mut root = etcd.connect().await.unwrap();
    root.user_change_password(USER, "rotated").await.unwrap();
    // The file has the old one still.
    let refused = store.commit(term, put(RecordKey::State, "x")).await.unwrap_err();
    assert!(!refused.to_string().contains("rotated"), "{refused}");
    let mut leadership = store.leadership();
    let stepped_down = leadership.wait_for(|now| matches!(now, Leadership::Follower { .. }));
    tokio::time::timeout(Duration::from_secs(5), stepped_down).await.unwrap().unwrap();
    etcd.set_password_file("rotated");
    let back = leading(&*store).await;
    assert!(committed(&*store, back, "again").await);
}
