//! One withhold-admit cycle through the fault proxy: a fleet of three, one pod of it bad and then good again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    checker::{Circumstances, judge},
    controller::{self, Controller},
    history::{self, Recorder},
    plane::{Plane, User},
    proxy::{Asked, Proxy},
    shop::{self, Shop},
    signals::Signals,
};

/// Three pods, of which two must serve.
const PODS: u32 = 3;
const RATIO: u32 = 50;
/// A cycle takes a few seconds, a fault in it a few more.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Cycle<'a> {
    /// For messages.
    what: String,
    plane: &'a Plane,
    recorder: Recorder,
    shop: Shop,
    signals: Signals,
    pub(super) proxy: Proxy,
    pub(super) controller: Controller,
    killed: Arc<AtomicBool>,
    chosen: String,
    began: Instant,
}

impl<'a> Cycle<'a> {
    /// The fleet is there, the controller is not started yet.
    pub(super) async fn prepare(plane: &'a Plane, what: String) -> Self {
        let recorder = Recorder::start(plane.etcd());
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "cycle").await;
        let (signals, proxy) = (Signals::start(), Proxy::start(&plane.kubeconfig(User::Kubervisor)));
        let recipe = shop::Recipe::of("web", PODS).breaker("slow", &signals.service("bad"), RATIO);
        let shop = recipe.apply(plane, &client, &namespace).await;
        let chosen = shop.names().await.unwrap().swap_remove(0);
        let recipe = controller::Recipe::with_kubeconfig(proxy.kubeconfig()).namespace(&namespace);
        let (controller, killed, began) = (recipe.prepared(), Arc::default(), Instant::now());
        Self { what, plane, recorder, shop, signals, proxy, controller, killed, chosen, began }
    }

    /// Kills the controller, wherever it is called from; whoever waits starts it again.
    pub(super) fn killer(&self) -> Arc<dyn Fn() + Send + Sync> {
        let (killer, killed) = (self.controller.killer(), Arc::clone(&self.killed));
        Arc::new(move || {
            killed.store(true, Ordering::Release);
            killer.kill();
        })
    }

    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Waits, and starts the controller again when it was killed.
    async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let began = Instant::now();
        while !holds().await {
            if !self.controller.lives() {
                assert!(self.was_killed(), "{}: the controller ended by itself", self.what);
                self.controller.launch();
            }
            assert!(began.elapsed() < PATIENCE, "{}: not within {PATIENCE:?}: {what}", self.what);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn says(&self, word: &str) -> bool {
        self.shop.traffic(&self.chosen).await.as_deref() == Some(word)
    }

    /// Withheld while it is bad, admitted when it is good, and nothing left of it.
    pub(super) async fn run(&self) {
        self.controller.launch();
        self.signals.bad("bad", &self.shop.namespace, [&self.chosen]);
        self.until("the bad pod is withheld", || self.says("no")).await;
        self.signals.bad("bad", &self.shop.namespace, Vec::<String>::new());
        self.until("it is admitted, and its entry released", || async {
            self.says("yes").await && self.shop.entries().await == Some(0)
        })
        .await;
    }

    /// The writes of the whole cycle, the Events apart.
    pub(super) fn writes(&self) -> Vec<Asked> {
        self.proxy.asked().into_iter().filter(|asked| asked.writes() && !asked.is_event()).collect()
    }

    /// The checker has the last word.
    pub(super) async fn judged(&mut self) {
        let namespaces = BTreeSet::from([self.shop.namespace.clone()]);
        let authors = history::authors(self.plane, &namespaces);
        let circumstances = Circumstances { namespaces, authors, ..Circumstances::default() };
        let history = self.recorder.until_now().await;
        let report = judge(&history, &circumstances, self.recorder.now());
        println!("{}: {:.1} s, {report}", self.what, self.began.elapsed().as_secs_f64());
        assert!(report.withdrawals > 0 && report.violations.is_empty(), "{}: {report}", self.what);
    }
}
