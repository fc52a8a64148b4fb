//! A real Prometheus that scrapes real targets, and a policy whose breakers query it, from keepalives to the endpoints file.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use crate::{
    fleet::{FILE, Fleet, policy},
    scraper::Prometheus,
    stage::{Stage, get, throughout, until},
};

/// The metrics of a target, which the test sets.
#[derive(Clone, Default)]
pub(crate) struct Target {
    text: Arc<Mutex<String>>,
}

impl Target {
    /// Increase of the counters per scrape, by code, and a latency.
    pub(crate) fn serve(
        ip: Ipv4Addr,
        behaviour: Behaviour,
    ) -> (SocketAddrV4, Arc<Mutex<Behaviour>>, JoinHandle<()>) {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = SocketAddrV4::new(ip, listener.local_addr().unwrap().port());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (shared, target) = (Arc::clone(&behaviour), Self::default());
        let serving = tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (mut good, mut bad) = (0.0, 0.0);
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let Ok(1..) = stream.read(&mut request).await else { continue };
                let now = shared.lock().unwrap().clone();
                (good, bad) = (good + now.good, bad + now.bad);
                *target.text.lock().unwrap() = format!(
                    "requests_total{{code=\"200\"}} {good}\nrequests_total{{code=\"500\"}} {bad}\nlatency {}\n",
                    now.latency
                );
                let body = target.text.lock().unwrap().clone();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _gone = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        (address, behaviour, serving)
    }
}

/// The behaviour of a target.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) good: f64,
    pub(crate) bad: f64,
    pub(crate) latency: f64,
}

/// Waits until the query has `count` series.
async fn sees(prometheus: &Prometheus, query: &str, count: usize) {
    let url = format!("http://{}/api/v1/query?query={query}", prometheus.address);
    until(&format!("{query} has {count} series"), async || {
        let (_, text) = get(&url).await?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        (answer.pointer("/data/result")?.as_array()?.len() == count).then_some(())
    })
    .await;
}

/// Prometheus on an address of the stage, with its targets.
pub(crate) async fn scraping(
    stage: &Stage,
    targets: &[(String, SocketAddrV4)],
    web: Option<&str>,
) -> Prometheus {
    Prometheus::start(stage.directory(), stage.ip(200), targets, web).await
}

const HEALTHY: Behaviour = Behaviour { good: 9.0, bad: 1.0, latency: 0.1 };

/// Five pods with a target each, and a Prometheus that scrapes them.
struct Scraped {
    fleet: Fleet,
    behaviours: Vec<Arc<Mutex<Behaviour>>>,
    prometheus: Prometheus,
}

impl Scraped {
    async fn new() -> Self {
        let fleet = Fleet::new(5);
        let mut targets = Vec::new();
        let mut behaviours = Vec::new();
        for (index, puppet) in fleet.pods.iter().enumerate() {
            // Not all equal: with more than half of equal values there is no spread.
            #[allow(clippy::cast_precision_loss, reason = "five of them")]
            let latency = 0.1 + index as f64 / 1000.0;
            let (address, behaviour, _) = Target::serve(puppet.ip, Behaviour { latency, ..HEALTHY });
            targets.push((puppet.id.clone(), address));
            behaviours.push(behaviour);
        }
        let prometheus = scraping(&fleet.stage, &targets, None).await;
        sees(&prometheus, "rate(latency[3s])", 5).await;
        Self { fleet, behaviours, prometheus }
    }

    fn behave(&self, pod: usize, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviours[pod].lock().unwrap());
    }

    fn service(&self) -> String {
        self.prometheus.address.to_string()
    }
}

#[tokio::test]
async fn codes_of_a_real_prometheus_withhold_the_bad_pod_and_its_outage_withholds_none() {
    let scraped = Scraped::new().await;
    let detector = json!({"discreteValueOutOfList": {
        "prometheusService": scraped.service(), "key": "code", "podNamekey": "pod", "goodValues": ["200"],
        // Far below one per second.
        "promQL": "sum by (pod, code) (rate(requests_total[3s])) / 1000", "tolerance": 50, "minActivity": 0,
    }});
    let master = scraped.fleet.master(&policy(60.0, &detector)).await;
    let (stage, mut pods) = (&scraped.fleet.stage, scraped.fleet.pods());
    crate::stage::keeping_alive(&master, &mut pods, async {
        scraped.fleet.listed(5).await;
        until("it is asked", async || {
            master.metric("kubervisor_detector_queries_total{outcome=\"ok\"}").await
        })
        .await;

        scraped.behave(2, |one| (one.good, one.bad) = (1.0, 9.0));
        until("the bad one is out", async || !scraped.fleet.lists(2)).await;
        assert_eq!(stage.lines(FILE).len(), 4);
        let explained = master.page("explain/test/pod-12").await.to_string();
        assert!(explained.contains("discreteValueOutOfList"), "{explained}");

        // If an outage counted as zeroes, all pods would look bad.
        scraped.prometheus.kill();
        until("the alarm", async || master.alarm_is_up("detector_failing").await).await;
        throughout(Duration::from_millis(1500), "nothing moves", async || stage.lines(FILE).len() == 4).await;
        assert!(master.metric("kubervisor_detector_queries_total{outcome=\"connect\"}").await > Some(0.0));

        scraped.prometheus.launch().await;
        until("the alarm is over", async || !master.alarm_is_up("detector_failing").await).await;
        scraped.behave(4, |one| (one.good, one.bad) = (0.0, 10.0));
        until("the next bad one is out", async || !scraped.fleet.lists(4)).await;
        assert!(!scraped.fleet.lists(2), "its period is not over");
        assert_eq!(stage.lines(FILE).len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_deviation_from_the_mean_and_an_outlier_of_a_real_prometheus_are_withheld() {
    let scraped = Scraped::new().await;
    let service = scraped.service();
    let deviation = json!({"direction": "high", "continuousValueDeviation": {
        "prometheusService": service, "podNamekey": "pod", "maxDeviationPercent": 75,
        "promQL": "latency / scalar(avg(latency))",
    }});
    let outlier = json!({"outlier": {
        "prometheusService": service, "podNamekey": "pod", "promQL": "latency * 10", "minPeers": 3,
        "consecutive": {"of": 3, "bad": 2},
    }});
    let master = scraped.fleet.master(&policy(1.0, &deviation)).await;
    let (stage, mut pods) = (&scraped.fleet.stage, scraped.fleet.pods());
    crate::stage::keeping_alive(&master, &mut pods, async {
        scraped.fleet.listed(5).await;
        scraped.behave(1, |one| one.latency = 0.01);
        scraped.behave(3, |one| one.latency = 0.9);
        until("the slow one is out", async || !scraped.fleet.lists(3)).await;
        assert_eq!(stage.lines(FILE).len(), 4, "faster is not worse");
        scraped.behave(3, |one| one.latency = 0.1);
        until("it is back when it is as fast as the others", async || scraped.fleet.lists(3)).await;

        // The same master with another policy.
        stage.write("policy.yaml", &policy(1.0, &outlier));
        until("the new policy is in force", async || master.log().contains("a new policy is in force")).await;
        scraped.behave(0, |one| one.latency = 0.5);
        until("the outlier is out", async || !scraped.fleet.lists(0)).await;
        assert!(stage.lines(FILE).len() >= 4);
        let explained = until("it is explained", async || {
            let page = master.page("explain/test/pod-10").await.to_string();
            page.contains("outlier").then_some(page)
        })
        .await;
        assert!(explained.contains("median"), "{explained}");
    })
    .await;
}
