//! A master inside another role's process: its ensemble, joined to a list of pods, is the input of keepalive breakers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use kubervisor::{
    adapters::wire::client::{ClientError, Connection},
    alarms::Alarms,
    api::{self, Context, Detectors, Manifest},
    clock::Clock,
    config::{Config, Dialect, MasterTarget, environment::Environment, hosted},
    decide::{
        detect::{
            Observation,
            listed::FleetScope,
            members::{ListedPod, ReportHistory},
        },
        verdict::{Judgement, Opinion, Source},
    },
    metrics::Metrics,
    roles::{
        breaker::{Asker, BreakerHost, Superseded, run_breakers},
        master::{HostedMaster, LiveEnsemble},
    },
    runtime::Runtime,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    login::asker,
    stage::{Puppet, Stage, TTL, until},
};

const PATIENCE: Duration = Duration::from_secs(5);

fn config(stage: &Stage) -> (Config, MasterTarget) {
    let ip = stage.ip(1);
    let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
    let store = format!("embedded:{}", stage.file("store").display());
    let env: Environment =
        [("KUBERVISOR_STORE", store), ("KONTROL_TTL", TTL.to_string())].into_iter().collect();
    let config = hosted::read(&env, SocketAddrV4::new(ip, port), false, None).unwrap();
    (config, MasterTarget { host: ip.to_string(), port, dialect: Dialect::ZeroRpc })
}

async fn start(config: &Config) -> (HostedMaster, Clock) {
    let clock = Clock::start();
    let alarms = Alarms::new(clock);
    let metrics = Metrics::new(&alarms);
    let process = Runtime { clock, alarms, metrics };
    (HostedMaster::start(config, &process, &CancellationToken::new()).await.unwrap(), clock)
}

/// Sends a keepalive of the puppet from `from`.
async fn say(puppet: &Puppet, master: &MasterTarget, from: Ipv4Addr) -> Result<(), ClientError> {
    let connection = Connection::connect(master, Some(from), PATIENCE).await?;
    connection.ping(&puppet.keepalive().to_string(), PATIENCE).await
}

fn listed(puppet: &Puppet) -> ListedPod {
    ListedPod {
        uid: format!("uid-of-{}", puppet.id).into(),
        name: puppet.id.clone(),
        address: Some(puppet.ip),
        shares_address: false,
        reusable_name: false,
        age: Duration::MAX,
        withheld: false,
    }
}

/// Two breakers over the pods of a list: one by silence, one by payload.
struct Host {
    clock: Clock,
    asker: Arc<Asker>,
    live: LiveEnsemble,
    pods: Vec<ListedPod>,
    attendance: Mutex<ReportHistory>,
    said: watch::Sender<BTreeMap<String, Value>>,
}

impl BreakerHost for Host {
    fn clock(&self) -> Clock {
        self.clock
    }

    fn asker(&self) -> &Arc<Asker> {
        &self.asker
    }

    fn observations(&self) -> Vec<Observation> {
        let members = self.live.members().unwrap_or_default();
        let mut attendance = self.attendance.lock().unwrap();
        members.join("test", &self.pods, self.clock.now(), &mut attendance).observations
    }

    fn receives_keepalives(&self) -> bool {
        self.live.members().is_some()
    }

    fn scope(&self) -> FleetScope {
        FleetScope { namespace: "test".into(), by_uid: true }
    }

    fn publish(&self, source: Source) {
        let word = |opinion: &Opinion| match opinion {
            Opinion::Judged(Judgement::Bad { .. }) => "bad",
            Opinion::Judged(Judgement::Good) => "good",
            Opinion::Judged(Judgement::None(_)) => "no data",
            _ => "other",
        };
        let words =
            source.opinions().iter().map(|(uid, opinion)| (uid.to_string(), json!(word(opinion)))).collect();
        self.said.send_modify(|said| _ = said.insert(source.name.clone(), Value::Object(words)));
    }

    fn retain_breakers(&self, _left: &BTreeSet<&str>) {}

    fn publish_failures(&self, _failures: &BTreeMap<String, String>) {}

    async fn persist(&self, _windows: Bytes) -> Result<(), Superseded> {
        Ok(())
    }
}

fn manifest(timing: api::Timing) -> Arc<Manifest> {
    let breaker =
        |name: &str, keepalive: Value| json!({"name": name, "evaluationPeriod": 0.1, "keepalive": keepalive});
    let manifest = json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
        "spec": {"service": "shop", "breakers": [
            breaker("silent", json!({"silentAfter": 2})), breaker("errors", json!({"pointer": "/errors", "max": 0.5})),
        ]},
    });
    let context = Context { detectors: Detectors::All, timing: Some(timing), sources: &[] };
    Arc::new(api::parse("policy", &manifest.to_string(), context).unwrap().remove(0))
}

#[tokio::test]
async fn keepalives_judge_listed_pods_and_a_pod_without_any_has_no_verdict() {
    let stage = Stage::new();
    let (config, target) = config(&stage);
    let (master, clock) = start(&config).await;
    let puppet = |host: u8, errors: f64| Puppet::new(&stage, host).paying(json!({"errors": errors}));
    let (good, bad, hushed, mute) = (puppet(10, 0.1), puppet(11, 0.9), puppet(12, 0.1), puppet(13, 0.1));
    let live = master.live();
    let mut changes = live.changes();
    let host = Arc::new(Host {
        clock,
        asker: Arc::new(asker()),
        live: live.clone(),
        pods: [&good, &bad, &hushed, &mute].map(listed).into(),
        attendance: Mutex::default(),
        said: watch::Sender::new(BTreeMap::new()),
    });
    let mut said = host.said.subscribe();
    let stop = CancellationToken::new();
    let policies = watch::Sender::new(Some(manifest(master.timing())));
    let running = tokio::spawn({
        let (host, policy, stop) = (Arc::clone(&host), policies.subscribe(), stop.clone());
        async move { run_breakers(host, policy, None, &stop).await }
    });
    say(&hushed, &target, hushed.ip).await.unwrap();
    tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    let pinging = async {
        loop {
            for puppet in [&good, &bad] {
                say(puppet, &target, puppet.ip).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs_f64(TTL / 5.0)).await;
        }
    };
    let expected = |of_hushed: &str, errors_of_hushed: &str| {
        let words = |words: [&str; 4]| -> Value {
            let pods = [&good, &bad, &hushed, &mute].into_iter().zip(words);
            pods.map(|(pod, word)| (listed(pod).uid.to_string(), json!(word)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let silent = words(["good", "good", of_hushed, "no data"]);
        BTreeMap::from([
            ("silent".to_owned(), silent),
            ("errors".to_owned(), words(["good", "bad", errors_of_hushed, "no data"])),
        ])
    };
    let judged = async {
        for wanted in [expected("good", "good"), expected("bad", "no data")] {
            let seen = tokio::time::timeout(PATIENCE * 2, said.wait_for(|said| *said == wanted)).await;
            assert!(seen.is_ok(), "{wanted:?} and not {:?}", host.said.borrow());
        }
    };
    tokio::select! {
        () = judged => {}
        () = pinging => unreachable!("it never ends"),
    }
    stop.cancel();
    running.await.unwrap();
    master.stop().await;
    until("nothing is heard any more", async || live.members().is_none()).await;
    assert!(say(&good, &target, good.ip).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_pod_reports_itself_only_and_the_ensemble_survives_its_master() {
    let stage = Stage::new();
    let (config, target) = config(&stage);
    let (master, _) = start(&config).await;
    let (honest, liar) = (Puppet::new(&stage, 10), Puppet::new(&stage, 11));
    // Over HTTP the refusal is reported.
    let told = MasterTarget { dialect: Dialect::Http, ..target.clone() };
    let refused = say(&honest, &told, liar.ip).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
    say(&honest, &target, honest.ip).await.unwrap();
    let count = |master: &HostedMaster| master.live().members().map_or(0, |members| members.len());
    until("it is stored", async || count(&master) == 1).await;
    master.stop().await;

    let (master, _) = start(&config).await;
    until("it is there again", async || count(&master) == 1).await;
    master.stop().await;
}
