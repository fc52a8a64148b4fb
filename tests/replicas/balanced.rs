//! Thousands of agents behind a balancer that knows nothing of ensembles: each connection goes to any of three replicas,
//! which are killed one after the other and started again.
//!
//! `make soak` sets `BALANCED_SECONDS`: then 10 000 agents at TTL 25 for that long, with a kill every 30 s.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::{
    cluster::{Cluster, keepalive_ports},
    controller::Controller,
    fleet::{Link, Pod},
    plane::until,
};

/// Connections that share the agents.
const LINKS: u32 = 50;
/// Keepalives sent in one go.
const BATCH: u32 = 100;

/// How long, and how many.
struct Scale {
    agents: u32,
    ttl: Duration,
    /// Time from one kill to the next.
    between: Duration,
    kills: u32,
}

impl Scale {
    fn of_this_run() -> Self {
        let seconds = std::env::var("BALANCED_SECONDS").ok().and_then(|text| text.parse::<u32>().ok());
        match seconds {
            Some(seconds) => Self {
                agents: 10_000,
                ttl: Duration::from_secs(25),
                between: Duration::from_secs(30),
                kills: (seconds / 30).max(1),
            },
            None => {
                Self { agents: 1000, ttl: Duration::from_secs(9), between: Duration::from_secs(6), kills: 2 }
            }
        }
    }
}

/// Connects each client to the next replica that takes the connection, as a Service does.
async fn balance(listener: tokio::net::TcpListener, replicas: [SocketAddr; 3]) {
    let mut turn = 0;
    while let Ok((mut client, _)) = listener.accept().await {
        turn += 1;
        tokio::spawn(async move {
            for step in 0..replicas.len() {
                let to = replicas[(turn + step) % replicas.len()];
                if let Ok(mut replica) = TcpStream::connect(to).await {
                    // Either side's end is the end of both.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut replica).await;
                    return;
                }
            }
        });
    }
}

/// The agents of all connections, each on a thread of its own.
struct Agents {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    left: Arc<Mutex<BTreeSet<u32>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Agents {
    fn start(balancer: SocketAddr, scale: &Scale) -> Self {
        let (stop, rounds, left) = (
            Arc::<AtomicBool>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::<Mutex<BTreeSet<u32>>>::default(),
        );
        let threads = (0..LINKS).map(|link| {
            let (stop, rounds, left) = (Arc::clone(&stop), Arc::clone(&rounds), Arc::clone(&left));
            let (agents, interval) = (scale.agents, scale.ttl / 3);
            thread::spawn(move || {
                let mut agents: Vec<u32> = (link..agents).step_by(LINKS as usize).collect();
                let mut connection = None;
                // Spread over the interval, as agents that were not started together.
                thread::park_timeout(interval * link / LINKS);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    if rounds.load(Ordering::Relaxed) > 2 * LINKS as usize {
                        let leaves = agents.pop().unwrap();
                        deliver(&mut connection, balancer, &[Pod::new(leaves).farewell()]);
                        left.lock().insert(leaves);
                    }
                    for some in agents.chunks(BATCH as usize) {
                        let some: Vec<String> =
                            some.iter().map(|&agent| Pod::new(agent).keepalive()).collect();
                        deliver(&mut connection, balancer, &some);
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    thread::park_timeout(interval.saturating_sub(began.elapsed()));
                }
            })
        });
        let threads = threads.collect();
        Self { stop, rounds, left, threads }
    }

    /// Ends after the round; the numbers of those that said `down`.
    fn stop(self) -> BTreeSet<u32> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.left.lock())
    }
}

/// Sends keepalives until they are answered, over a new connection whenever one breaks.
fn deliver(connection: &mut Option<Link>, balancer: SocketAddr, keepalives: &[String]) {
    while attempt(connection, balancer, keepalives).is_err() {
        *connection = None;
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn attempt(connection: &mut Option<Link>, balancer: SocketAddr, keepalives: &[String]) -> io::Result<()> {
    let link = match connection {
        Some(link) => link,
        None => connection.insert(Link::zerorpc(balancer)?),
    };
    link.ping_all(keepalives.iter().cloned())
}

/// The replica that leads the ensemble, with id and sequence number of the live pods.
async fn led(replicas: &[Controller; 3]) -> Option<(usize, BTreeMap<String, u64>)> {
    for (at, replica) in replicas.iter().enumerate() {
        let Ok((_, text)) = replica.admin("/ensemble").await else { continue };
        let page: serde_json::Value = serde_json::from_str(&text).ok()?;
        let Some(pods) = page["pods"].as_array() else { continue };
        let live = pods.iter().filter(|pod| pod["status"] == "live");
        let pods: Option<_> =
            live.map(|pod| Some((pod["id"].as_str()?.to_owned(), pod["seq"].as_u64()?))).collect();
        return Some((at, pods?));
    }
    None
}

async fn ensemble(replicas: &[Controller; 3]) -> Option<BTreeMap<String, u64>> {
    led(replicas).await.map(|(_, pods)| pods)
}

async fn expired(replicas: &[Controller; 3]) -> f64 {
    let mut all = 0.0;
    for replica in replicas {
        all += replica.metric("kubervisor_pods_expired_total").await;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_no_pod_expires_and_no_down_is_lost_while_replicas_are_killed() {
    let scale = Scale::of_this_run();
    let cluster = Cluster::start(0).await;
    let ports = keepalive_ports();
    let replica = |at: usize| {
        cluster
            .recipe(["one", "two", "three"][at])
            .argument(format!("--keepalives={}", ports[at]))
            .variable("KUBERVISOR_KEEPALIVE_TRUSTED", "127.0.0.0/8")
            .variable("KUBERVISOR_MAX_CONNECTIONS_PER_PEER", "1000")
            .variable("KONTROL_TTL", &scale.ttl.as_secs().to_string())
            .start()
    };
    let replicas = [0, 1, 2].map(replica);
    for replica in &replicas {
        replica.ready().await;
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let balancer = listener.local_addr().unwrap();
    tokio::spawn(balance(listener, ports));
    let agents = Agents::start(balancer, &scale);
    let all = usize::try_from(scale.agents).unwrap();
    let (before, _) = until("all pods are in the ensemble", || async {
        ensemble(&replicas).await.filter(|pods| pods.len() == all)
    })
    .await;

    for kill in 0..scale.kills {
        assert_eq!(expired(&replicas).await, 0.0, "before kill {kill}");
        let (leader, _) = until("one leads", || led(&replicas)).await.0;
        // The leader, then one that forwards.
        let victim = &replicas[(leader + kill as usize % 2) % replicas.len()];
        victim.kill();
        tokio::time::sleep(scale.between / 2).await;
        victim.launch();
        tokio::time::sleep(scale.between / 2).await;
        victim.ready().await;
    }

    let rounds = agents.rounds.load(Ordering::Relaxed);
    let left: BTreeSet<String> =
        agents.stop().into_iter().map(|number| format!("shop-{number:06}")).collect();
    assert!(!left.is_empty(), "{rounds} rounds");
    let stay: BTreeMap<String, u64> = before.into_iter().filter(|(id, _)| !left.contains(id)).collect();
    let (after, _) = until("those that said `down` have gone, and nobody else", || async {
        ensemble(&replicas).await.filter(|after| after.len() == stay.len())
    })
    .await;
    assert_eq!(after, stay, "nobody has another sequence number");
    assert_eq!(expired(&replicas).await, 0.0, "nobody expired");
    println!("{all} agents, {} kills, {rounds} rounds of connections, {} said down", scale.kills, left.len());
}
