//! A crash at every single write: from the first claim to the release of the last entry, the controller is killed
//! before the nth write reaches the server, and after the server has answered it. Each time another one, started by
//! whoever notices, must bring the cycle to its end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};

use crate::{
    checker::{Circumstances, judge},
    controller::{self, Controller},
    history::{self, Recorder},
    plane::{self, Plane, User},
    proxy::{Asked, Fault, Matching, Proxy},
    shop::{self, Shop},
    signals::Signals,
};

/// Three pods, of which two must serve.
const PODS: u32 = 3;
const RATIO: u32 = 50;
/// How many crashes at once: as many as a small machine carries.
const AT_ONCE: usize = 4;
/// One cycle with one crash in it takes about four seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// When the controller dies.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The server never hears of the nth write.
    Before(usize),
    /// The controller never hears the answer to it.
    After(usize),
    /// Not at all.
    Never,
}

struct Cycle<'a> {
    moment: Moment,
    plane: &'a Plane,
    shop: Shop,
    signals: Signals,
    proxy: Proxy,
    controller: Controller,
    killed: Arc<AtomicBool>,
    chosen: String,
    began: Instant,
}

impl<'a> Cycle<'a> {
    async fn start(plane: &'a Plane, moment: Moment) -> Self {
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "crash").await;
        let (signals, proxy) = (Signals::start(), Proxy::start(&plane.kubeconfig(User::Kubervisor)));
        let recipe = shop::Recipe::of("web", PODS).breaker("slow", &signals.service("bad"), RATIO);
        let shop = recipe.apply(plane, &client, &namespace).await;
        let chosen = shop.names().await.unwrap().swap_remove(0);
        let recipe = controller::Recipe::with_kubeconfig(proxy.kubeconfig()).namespace(&namespace);
        // Before any write of it: the rule must be there first.
        let killed = Arc::new(AtomicBool::new(false));
        let controller = recipe.prepared();
        let hook = {
            let (killer, killed) = (controller.killer(), Arc::clone(&killed));
            Arc::new(move || {
                killer.kill();
                killed.store(true, Ordering::Release);
            })
        };
        match moment {
            Moment::Before(nth) => proxy.on(Matching::writes().nth(nth), Fault::Before(hook)),
            Moment::After(nth) => proxy.on(Matching::writes().nth(nth), Fault::After(hook)),
            Moment::Never => {}
        }
        controller.launch();
        Self { moment, plane, shop, signals, proxy, controller, killed, chosen, began: Instant::now() }
    }

    /// Waits, and starts the controller again when it was killed.
    async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let began = Instant::now();
        while !holds().await {
            if !self.controller.lives() {
                assert!(
                    self.killed.load(Ordering::Acquire),
                    "{:?}: the controller ended by itself",
                    self.moment
                );
                self.controller.launch();
            }
            assert!(began.elapsed() < PATIENCE, "{:?}: not within {PATIENCE:?}: {what}", self.moment);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn says(&self, word: &str) -> bool {
        self.shop.traffic(&self.chosen).await.as_deref() == Some(word)
    }

    /// Withheld while it is bad, admitted when it is good, and nothing left of it.
    async fn run(&self) {
        self.signals.bad("bad", &self.shop.namespace, [&self.chosen]);
        self.until("the bad pod is withheld", || self.says("no")).await;
        self.signals.bad("bad", &self.shop.namespace, Vec::<String>::new());
        self.until("it is admitted, and its entry released", || async {
            self.says("yes").await && self.shop.entries().await == Some(0)
        })
        .await;
    }

    /// The writes of the whole cycle, the Events apart.
    fn writes(&self) -> Vec<Asked> {
        self.proxy.asked().into_iter().filter(|asked| asked.writes() && !asked.is_event()).collect()
    }

    async fn judged(&self, recorder: &mut Recorder) {
        let namespaces = BTreeSet::from([self.shop.namespace.clone()]);
        let authors = history::authors(self.plane, &namespaces);
        let circumstances = Circumstances { namespaces, authors, excused: Vec::new() };
        let history = recorder.until_now().await;
        let report = judge(&history, &circumstances, recorder.now());
        println!("{:?}: {:.1} s, {report}", self.moment, self.began.elapsed().as_secs_f64());
        assert!(report.withdrawals > 0 && report.violations.is_empty(), "{:?}: {report}", self.moment);
    }
}

async fn with_one_crash(plane: &Plane, moment: Moment) -> Vec<Asked> {
    let mut recorder = Recorder::start(plane.etcd());
    let cycle = Cycle::start(plane, moment).await;
    cycle.run().await;
    assert!(
        matches!(moment, Moment::Never) || cycle.killed.load(Ordering::Acquire),
        "{moment:?}: the cycle ended without that write"
    );
    cycle.judged(&mut recorder).await;
    cycle.writes()
}

#[tokio::test]
async fn a_crash_at_any_write_of_a_cycle_leaves_nothing_dark_and_nothing_below_the_floor() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let writes = with_one_crash(&plane, Moment::Never).await;
    println!("{} writes in one cycle:", writes.len());
    for asked in &writes {
        println!("  {} {} {:?} -> {:?}", asked.verb, asked.resource, asked.name, asked.code);
    }
    let moments = (1..=writes.len()).flat_map(|nth| [Moment::Before(nth), Moment::After(nth)]);
    stream::iter(moments)
        .map(|moment| with_one_crash(&plane, moment))
        .buffer_unordered(AT_ONCE)
        .for_each(|_| async {})
        .await;
}
