//! The roster gate with a store and its file: what is committed is written, on leaders and followers, through cut networks,
//! lost stores, lost responses and lost leadership. Time is virtual; the files are real.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use kubervisor::{
    adapters::sink::roster::RosterSettings,
    alarms::Alarms,
    clock::Clock,
    config::EndpointsFormat,
    decide::{
        alarm_reason::AlarmReason,
        ensemble::LifeStatus,
        key::Key,
        policy::Policy,
        roster::{EnsembleRow, FleetRules},
        time::Timestamp,
        verdict,
    },
    metrics::Metrics,
    roles::gate::{RosterGate, RosterGateDeps, metrics::GateMetrics, snapshot::GateMode},
};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{memory::MemoryStore, stage::config};

const TTL: Duration = Duration::from_secs(6);

/// The last keepalive of each pod (`None`: it reports all the time), and its state.
type PodStates = BTreeMap<u8, (Option<Timestamp>, LifeStatus)>;

/// The pods of a master's ensemble.
#[derive(Clone)]
struct Pods {
    clock: Clock,
    rows: Arc<Mutex<PodStates>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Pods {
    /// `count` pods that report all the time.
    fn new(clock: Clock, count: u8) -> Self {
        let rows = (1..=count).map(|n| (n, (None, LifeStatus::Live))).collect();
        Self { clock, rows: Arc::new(Mutex::new(rows)), changes: Arc::new(watch::Sender::new(0)) }
    }

    /// Sets the state of these pods; the last keepalive of one that is not live is now.
    fn set(&self, pods: impl IntoIterator<Item = u8>, state: LifeStatus) {
        let heard = (state != LifeStatus::Live).then(|| self.clock.wall());
        let mut rows = self.rows.lock().unwrap();
        for n in pods {
            rows.insert(n, (heard, state));
        }
        drop(rows);
        self.changes.send_modify(|count| *count += 1);
    }

    /// From now on no keepalive arrives; no pod has expired yet.
    fn cut(&self) {
        let now = self.clock.wall();
        self.rows.lock().unwrap().values_mut().for_each(|(heard, _)| *heard = Some(now));
    }

    fn rows(&self) -> Vec<EnsembleRow> {
        let rows = self.rows.lock().unwrap();
        let row = |(&n, &(heard, state)): (&u8, &(Option<Timestamp>, LifeStatus))| EnsembleRow {
            key: Key::of(Ipv4Addr::new(10, 0, 0, n)),
            id: format!("web-{n}"),
            nonce: Some("first".into()),
            role: "app".into(),
            port: Some(80),
            heard: heard.unwrap_or_else(|| self.clock.wall()),
            state,
        };
        rows.iter().map(row).collect()
    }
}

/// One master process.
struct Master {
    keeper: Arc<RosterGate>,
    alarms: Alarms,
    metrics: Metrics,
    path: PathBuf,
}

impl Master {
    fn start(store: &Arc<MemoryStore>, pods: &Pods, path: &Path, dry_run: bool) -> Self {
        let clock = pods.clock;
        let alarms = Alarms::new(clock);
        let metrics = Metrics::new(&alarms);
        // As without a policy file: no other policy will be sent.
        let (_, policy) = watch::channel(Arc::new(Policy::without_manifest("web")));
        let source = pods.clone();
        let keeper = RosterGate::start(RosterGateDeps {
            store: store.clone(),
            ensemble: Arc::new(move || Some(source.rows())),
            changes: pods.changes.subscribe(),
            policy,
            roster: RosterSettings {
                of: "default/web".into(),
                rules: FleetRules::default(),
                ttl: TTL,
                started: clock.wall(),
                endpoints: Some(config(path, EndpointsFormat::Plain, None)),
                dry_run,
            },
            namespace: "default".into(),
            clock,
            alarms: alarms.clone(),
            metrics: metrics.with_registry(GateMetrics::register),
        });
        Self { keeper, alarms, metrics, path: path.to_owned() }
    }

    fn run(&self, store: &MemoryStore) -> JoinHandle<()> {
        let (keeper, term) = (self.keeper.clone(), store.elect());
        tokio::spawn(async move { keeper.run(term, CancellationToken::new()).await })
    }

    fn object(&self, ids: &[&str]) {
        let said: Vec<_> =
            ids.iter().map(|id| json!({"id": id, "verdict": "withhold", "reason": "bad"})).collect();
        let (verdicts, warnings) = verdict::parse_traffic(&json!(said));
        assert_eq!(warnings, vec![]);
        self.keeper.reconciler().set_callback_verdicts(verdicts);
    }

    fn listed(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines()
            .map(|line| line.trim_start_matches("10.0.0.").trim_end_matches(":80").to_owned())
            .collect()
    }

    fn alarmed(&self, reason: AlarmReason) -> bool {
        self.alarms.up().iter().any(|alarm| alarm.reason == reason)
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|found| found == line)
    }
}

fn numbers(pods: impl IntoIterator<Item = u8>) -> Vec<String> {
    pods.into_iter().map(|n| n.to_string()).collect()
}

/// Advances virtual time and lets the files follow.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

struct Stage {
    directory: tempfile::TempDir,
    store: Arc<MemoryStore>,
    pods: Pods,
}

impl Stage {
    fn new(count: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, store: Arc::new(MemoryStore::new()), pods: Pods::new(Clock::start(), count) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A leader whose first TTL has passed.
    async fn leader(&self) -> (Master, JoinHandle<()>) {
        let master = Master::start(&self.store, &self.pods, &self.path("leader"), false);
        let term = master.run(&self.store);
        pass(TTL + Duration::from_secs(1)).await;
        (master, term)
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_committed_then_projected_by_leader_and_follower_alike() {
    let stage = Stage::new(8);
    let (leader, _term) = stage.leader().await;
    let follower = Master::start(&stage.store, &stage.pods, &stage.path("follower"), false);
    pass(Duration::from_secs(1)).await;
    assert_eq!(leader.listed(), numbers(1..=8));
    assert_eq!(follower.listed(), numbers(1..=8));

    leader.object(&["web-2", "web-5", "nobody"]);
    pass(Duration::from_secs(1)).await;
    let rest = numbers([1, 3, 4, 6, 7, 8]);
    assert_eq!((leader.listed(), follower.listed()), (rest.clone(), rest));
    assert_eq!(follower.keeper.snapshot().part, GateMode::Following);
    let view = leader.keeper.snapshot();
    assert_eq!((view.part, view.unknown_verdicts), (GateMode::Leading, 1));
    assert_eq!(view.floor.budget.floor, 4);

    let page = leader.keeper.snapshot().explain("web-2").unwrap();
    assert_eq!(page["pod"]["traffic"], "no");
    assert_eq!(page["pod"]["address"], "10.0.0.2:80");
    assert_eq!(page["floor"]["desired"], 8);
    let history = page["pod"]["history"].to_string();
    assert!(history.contains("joined the fleet") && history.contains("withheld"), "{history}");
    assert!(leader.keeper.snapshot().explain("web-9").is_none());
    for line in [
        "kubervisor_breaker_gauge{name=\"web\",namespace=\"default\",type=\"managed\"} 8",
        "kubervisor_breaker_gauge{name=\"web\",namespace=\"default\",type=\"breaked\"} 2",
        "kubervisor_item_gauge{namespace=\"default\"} 1",
        "kubervisor_breaker_count{breaker=\"callback\",namespace=\"default\",type=\"break\"} 2",
        "kubervisor_gate_floor{name=\"web\",namespace=\"default\"} 4",
    ] {
        assert!(leader.metric(line), "{line}\n{}", leader.metrics.text().unwrap());
    }

    leader.object(&[]);
    pass(Duration::from_secs(60)).await;
    assert_eq!((leader.listed(), follower.listed()), (numbers(1..=8), numbers(1..=8)));
}

#[tokio::test(start_paused = true)]
async fn a_cut_network_leaves_the_file_alone_and_raises_an_alarm() {
    let stage = Stage::new(8);
    let (leader, _term) = stage.leader().await;
    stage.pods.cut();
    pass(TTL * 2 / 3).await;
    // The pod with the oldest keepalive expires first.
    for n in 1..=8 {
        stage.pods.set([n], LifeStatus::Expired);
        pass(Duration::from_millis(300)).await;
        assert_eq!(leader.listed(), numbers(1..=8), "after {n} fell silent");
    }
    pass(TTL * 20).await;
    assert_eq!(leader.listed(), numbers(1..=8));
    assert!(leader.alarmed(AlarmReason::SilentListed), "{:?}", leader.alarms.up());
    assert_eq!(leader.keeper.snapshot().silent_listed(), 8);
    assert!(leader.metric("kubervisor_gate_silent_listed{name=\"web\",namespace=\"default\"} 8"));
    let page = leader.keeper.snapshot().explain("web-3").unwrap().to_string();
    assert!(page.contains("stays listed"), "{page}");
    stage.pods.set(1..=8, LifeStatus::Live);
    pass(Duration::from_secs(1)).await;
    assert!(!leader.alarmed(AlarmReason::SilentListed));
}

#[tokio::test(start_paused = true)]
async fn one_dead_pod_leaves_the_file_and_a_down_keepalive_needs_no_budget() {
    let stage = Stage::new(4);
    let (leader, _term) = stage.leader().await;
    stage.pods.set([3], LifeStatus::Expired);
    pass(Duration::from_secs(2)).await;
    assert_eq!(leader.listed(), numbers([1, 2, 4]));
    stage.pods.set([1, 2], LifeStatus::Down);
    pass(Duration::from_secs(1)).await;
    assert!(leader.listed().contains(&"4".to_owned()), "{:?}", leader.listed());
    assert!(!leader.listed().contains(&"1".to_owned()));
    stage.pods.set(1..=4, LifeStatus::Down);
    pass(Duration::from_secs(1)).await;
    assert!(leader.listed().is_empty(), "all said down: {:?}", leader.listed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_roster_is_rebuilt_from_the_file_and_no_pod_loses_traffic() {
    let stage = Stage::new(6);
    let (leader, term) = stage.leader().await;
    leader.keeper.stop().await;
    term.abort();
    let before = fs::read(stage.path("leader")).unwrap();

    // A new process, a new store, and a network that is cut at first.
    stage.pods.set(1..=6, LifeStatus::Expired);
    let empty = Arc::new(MemoryStore::new());
    let again = Master::start(&empty, &stage.pods, &stage.path("leader"), false);
    let _term = again.run(&empty);
    pass(TTL * 10).await;
    assert_eq!(fs::read(stage.path("leader")).unwrap(), before);
    assert_eq!(empty.roster().unwrap()["pods"].as_object().unwrap().len(), 6);
    stage.pods.set([2], LifeStatus::Live);
    pass(TTL * 10).await;
    assert_eq!(fs::read(stage.path("leader")).unwrap(), before, "one report does not make the others dead");
    stage.pods.set(1..=6, LifeStatus::Live);
    pass(TTL * 10).await;
    assert_eq!(fs::read(stage.path("leader")).unwrap(), before);
    assert!(again.alarms.up().is_empty(), "{:?}", again.alarms.up());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_unreachable_the_file_stays_and_afterwards_it_follows() {
    let stage = Stage::new(6);
    let (leader, _term) = stage.leader().await;
    stage.store.set_away(true);
    leader.object(&["web-1"]);
    pass(Duration::from_secs(30)).await;
    assert_eq!(leader.listed(), numbers(1..=6), "nothing is written that is not committed");
    assert!(leader.alarmed(AlarmReason::GateFrozen));
    assert_eq!(leader.keeper.snapshot().part, GateMode::Frozen);
    stage.store.set_away(false);
    pass(Duration::from_secs(3)).await;
    assert_eq!(leader.listed(), numbers(2..=6));
    assert!(!leader.alarmed(AlarmReason::GateFrozen));
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_response_is_lost_is_overwritten_and_not_forgotten() {
    let stage = Stage::new(6);
    let (leader, _term) = stage.leader().await;
    stage.store.lose_answers(1);
    leader.object(&["web-1"]);
    // It was applied, which the leader does not know, and its next decision differs.
    leader.object(&[]);
    stage.store.lose_answers(1);
    leader.object(&["web-2"]);
    pass(Duration::from_secs(3)).await;
    assert_eq!(leader.listed(), numbers([1, 3, 4, 5, 6]));
    let roster = stage.store.roster().unwrap();
    assert_eq!(roster["ledger"]["entries"].as_object().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_its_term_stops_and_the_next_one_forgets_nothing() {
    let stage = Stage::new(6);
    let (first, term) = stage.leader().await;
    first.object(&["web-1"]);
    pass(Duration::from_secs(1)).await;
    assert_eq!(first.listed(), numbers(2..=6));
    let second = Master::start(&stage.store, &stage.pods, &stage.path("second"), false);
    let _second_term = second.run(&stage.store);
    pass(Duration::from_secs(1)).await;
    // The first one finds out with its next write.
    first.object(&["web-1", "web-2"]);
    pass(Duration::from_secs(1)).await;
    assert!(term.is_finished(), "a leader that lost its leadership goes on");
    assert_eq!(first.keeper.snapshot().part, GateMode::Following);
    second.object(&["web-1"]);
    pass(Duration::from_secs(1)).await;
    assert_eq!((first.listed(), second.listed()), (numbers(2..=6), numbers(2..=6)));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_decides_and_reports_and_touches_neither_store_nor_file() {
    let stage = Stage::new(6);
    let path = stage.path("dry");
    fs::write(&path, "10.0.0.9:80\n").unwrap();
    let master = Master::start(&stage.store, &stage.pods, &path, true);
    let _term = master.run(&stage.store);
    pass(TTL + Duration::from_secs(1)).await;
    master.object(&["web-1"]);
    pass(Duration::from_secs(1)).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "10.0.0.9:80\n");
    assert_eq!(stage.store.commits(), 0);
    let view = master.keeper.snapshot();
    assert!(view.dry_run);
    let page = view.explain("web-1").unwrap().to_string();
    assert!(page.contains("would be withheld"), "{page}");
    assert!(!master.metrics.text().unwrap().contains("breaker_count{"), "nothing was done");
}

#[tokio::test(start_paused = true)]
async fn a_calm_fleet_costs_no_commit_and_no_write() {
    let stage = Stage::new(6);
    let (leader, _term) = stage.leader().await;
    let (commits, writes) =
        (stage.store.commits(), leader.keeper.snapshot().endpoints.clone().unwrap().writes);
    for _ in 0..50 {
        leader.keeper.reconciler().wake();
        leader.object(&[]);
        pass(Duration::from_secs(5)).await;
    }
    assert_eq!(stage.store.commits(), commits);
    assert_eq!(leader.keeper.snapshot().endpoints.clone().unwrap().writes, writes);
}
