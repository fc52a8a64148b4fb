//! The random driver: two controllers at once, everything around them fails at random moments, and people, rollouts and
//! autoscalers change what they work on. What it does is the plan of a seed (`SAFETY_SEED` repeats one); what the machine
//! makes of it is not.
//!
//! It knows the promise only by the intervals in which nobody could keep it: no controller running, or no API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::Range,
    time::{Duration, Instant},
};

use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::{
    checker::{Circumstances, Revision, Violation, judge},
    controller::{self, Controller},
    history::{self, Recorder},
    mischief::{self, People},
    plan::{Plan, Step},
    plane::{self, Alone, Component, User},
    shop::{self, Shop},
    signals::Signals,
    switches,
};

/// The fleets: name, pods, percent that must serve, what becomes of a pod that stays bad. The last one is a StatefulSet.
const FLEETS: [(&str, u32, u32, &str); 3] =
    [("web", 10, 60, "periodic"), ("api", 5, 50, "retryAndKill"), ("db", 4, 50, "periodic")];
const STATEFUL: &str = "db";
/// How long it may take until everything is well, once nothing is broken any more.
const CALM: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    Frozen,
    Dead,
}

struct Driver {
    plane: Alone,
    recorder: Recorder,
    signals: Signals,
    shops: Vec<(shop::Recipe, Shop)>,
    controllers: Vec<(Controller, Life)>,
    people: People,
    served: bool,
    excused: Vec<Range<Duration>>,
    away: Vec<Range<Duration>>,
    frozen: Vec<Range<Duration>>,
    /// By the controller's number.
    frozen_since: BTreeMap<usize, Duration>,
    nobody_since: Option<Duration>,
    /// Since when the slices stand still, and until when.
    slices_stand: Option<Range<Duration>>,
}

impl Driver {
    async fn start() -> Self {
        let plane = plane::alone().await;
        shop::install(&plane);
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "driven").await;
        let (recorder, signals) = (Recorder::start(plane.etcd()), Signals::start());
        let mut shops = Vec::new();
        for (name, replicas, ratio, mode) in FLEETS {
            let activator = json!({"mode": mode, "period": 1, "maxPeriod": 2, "maxRetryCount": 1, "maxKillsPerHour": 1000});
            let recipe = shop::Recipe::of(name, replicas)
                .spec("defaultActivator", activator)
                .breaker("slow", &signals.service(&format!("{name}/slow")), ratio)
                .breaker("down", &signals.service(&format!("{name}/down")), 40);
            let recipe = if name == STATEFUL { recipe.stateful() } else { recipe };
            let made = recipe.apply(&plane, &client, &namespace).await;
            switches::add_other_service(&client, &made).await;
            shops.push((recipe, made));
        }
        let start = || {
            let recipe = controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor));
            (recipe.namespace(&namespace).start(), Life::Runs)
        };
        let controllers = vec![start(), start()];
        for (controller, _) in &controllers {
            controller.ready().await;
        }
        let people = People::new(client, namespace);
        Self {
            plane,
            recorder,
            signals,
            shops,
            controllers,
            people,
            served: true,
            excused: Vec::new(),
            away: Vec::new(),
            frozen: Vec::new(),
            frozen_since: BTreeMap::new(),
            nobody_since: None,
            slices_stand: None,
        }
    }

    /// After each change of who runs.
    fn note_who_is_there(&mut self) {
        let there = self.served && self.controllers.iter().any(|(_, life)| *life == Life::Runs);
        let now = self.recorder.now();
        match (there, self.nobody_since) {
            (false, None) => self.nobody_since = Some(now),
            (true, Some(since)) => {
                self.excused.push(since..now);
                self.nobody_since = None;
            }
            _ => {}
        }
    }

    fn turn_controller(&mut self, which: usize, brutal: bool) {
        let (controller, life) = &mut self.controllers[which];
        *life = match *life {
            Life::Runs if brutal => {
                controller.kill();
                Life::Dead
            }
            Life::Runs => {
                self.frozen_since.insert(which, self.recorder.now());
                controller.freeze();
                Life::Frozen
            }
            Life::Frozen => {
                controller.thaw();
                let since = self.frozen_since.remove(&which);
                self.frozen.extend(since.map(|since| since..self.recorder.now()));
                Life::Runs
            }
            Life::Dead => {
                controller.launch();
                Life::Runs
            }
        };
        println!("{:6.1} controller {which}: {life:?}", self.recorder.now().as_secs_f64());
        self.note_who_is_there();
    }

    async fn api_server_away(&mut self, rng: &mut Rng) {
        self.served = false;
        self.note_who_is_there();
        let since = self.recorder.now();
        let (kills, time) = (rng.bool(), Duration::from_millis(rng.u64(100..3000)));
        println!("{:6.1} API server away, killed: {kills}", self.recorder.now().as_secs_f64());
        let server = Component::ApiServer;
        if kills {
            self.plane.kill(server)
        } else {
            self.plane.freeze(server)
        }
        tokio::time::sleep(time).await;
        if kills {
            self.plane.restart(server)
        } else {
            self.plane.thaw(server)
        }
        self.away.push(since..self.recorder.now());
        self.served = true;
        self.note_who_is_there();
    }

    /// The endpoint controller hangs for a while: the slices follow no label. In seconds a node would be taken for lost.
    fn slices_stand_still(&mut self, rng: &mut Rng) {
        if self.slices_stand.is_none() {
            let now = self.recorder.now();
            self.plane.freeze(Component::ControllerManager);
            self.slices_stand = Some(now..now + Duration::from_millis(rng.u64(500..6000)));
            println!("{:6.1} slices stand still", now.as_secs_f64());
        }
    }

    /// What no slice lists cannot be restored, so nobody is to blame for that time.
    fn slices_follow_again(&mut self, at: Duration) {
        let now = self.recorder.now();
        if let Some(stood) = self.slices_stand.take_if(|stood| stood.end <= at) {
            self.plane.thaw(Component::ControllerManager);
            self.excused.push(stood.start..now);
            println!("{:6.1} slices follow again", now.as_secs_f64());
        }
    }

    /// Some pods of one fleet look bad to one breaker; now and then all or none, or nobody knows.
    async fn flap(&mut self, rng: &mut Rng) {
        let (_, shop) = &self.shops[rng.usize(..self.shops.len())];
        let path = format!("{}/{}", shop.name, rng.choice(["slow", "down"]).unwrap());
        let Ok(names) = shop.names().await else { return };
        let share = rng.choice([0, 0, 20, 50, 80, 100]).unwrap();
        let bad: Vec<_> = names.into_iter().filter(|_| rng.usize(..100) < share).collect();
        self.signals.bad(&path, &shop.namespace, bad);
        self.signals.fails(&path, rng.usize(..10) == 0);
    }

    async fn step(&mut self, Step { roll, pace, mut rng }: Step) {
        // One that does not run comes back before long: the more time there is in which two do.
        let (which, brutal) = (rng.usize(..self.controllers.len()), rng.bool());
        if self.controllers[which].1 != Life::Runs && rng.usize(..4) == 0 {
            self.turn_controller(which, brutal);
        }
        self.slices_follow_again(self.recorder.now());
        match roll {
            0..40 => self.flap(&mut rng).await,
            40..44 => self.slices_stand_still(&mut rng),
            44..49 => self.turn_controller(which, brutal),
            49..51 => self.api_server_away(&mut rng).await,
            _ => {
                let which = rng.usize(..self.shops.len());
                let (recipe, shop) = &self.shops[which];
                let did = mischief::one(&mut rng, roll, &mut self.people, recipe, shop).await;
                println!("{:6.1} {}: {did}", self.recorder.now().as_secs_f64(), shop.name);
            }
        }
        // The pace is part of the plan; nothing is waited for.
        tokio::time::sleep(pace).await;
    }

    /// Nothing is broken any more, and every signal is good.
    async fn make_well(&mut self) {
        self.slices_follow_again(Duration::MAX);
        for (name, ..) in FLEETS {
            for breaker in ["slow", "down"] {
                let path = format!("{name}/{breaker}");
                self.signals.bad(&path, "", Vec::<String>::new());
                self.signals.fails(&path, false);
            }
        }
        for which in 0..self.controllers.len() {
            match &mut self.controllers[which] {
                (controller, Life::Runs) => assert!(controller.lives(), "a controller ended by itself"),
                _ => self.turn_controller(which, false),
            }
        }
        // What an API server's end has cut off stays in the memory of others: pods whose binding had no answer wait for
        // minutes in the scheduler, and a Service whose slices were written without an answer is given up after 15
        // attempts ("informer cache is out of date"). A start takes them all.
        self.plane.while_away(&[Component::Scheduler, Component::ControllerManager], || {});
        let began = Instant::now();
        let mut wrong = Some(String::new());
        while let Some(what) = wrong {
            assert!(began.elapsed() < CALM, "not well within {CALM:?}: {what}");
            wrong = self.wrong().await.unwrap_or_else(|error| Some(error.to_string()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("all well after {:.1} s", began.elapsed().as_secs_f64());
    }

    /// People clear up after themselves; then, what is not yet well.
    async fn wrong(&mut self) -> Result<Option<String>, kube::Error> {
        for (recipe, shop) in &self.shops {
            self.people.clear_up(recipe, shop).await?;
        }
        for (recipe, shop) in &self.shops {
            let (pods, wanted) = (shop.pods().await?, self.people.replicas(recipe, shop).await?);
            let serving = shop.endpoints().await?.len();
            if pods.len() != wanted || serving != wanted || !pods.iter().all(shop::ready) {
                let others = pods.iter().filter(|pod| !shop::ready(pod)).map(described).collect::<Vec<_>>();
                let counts = format!("{} pods, {serving} serve, of {wanted}", pods.len());
                return Ok(Some(format!("{}: {counts}; not ready: {others:?}", shop.name)));
            }
            let entries = shop.entries().await;
            if entries != Some(0) {
                return Ok(Some(format!("{}: ledger entries: {entries:?}", shop.name)));
            }
        }
        Ok(None)
    }

    async fn judged(mut self, seed: u64) {
        let namespaces = BTreeSet::from([self.people.namespace.clone()]);
        let authors = history::authors(&self.plane, &namespaces);
        let circumstances = Circumstances {
            namespaces,
            authors,
            excused: self.excused,
            away: self.away,
            frozen: self.frozen,
        };
        let history = self.recorder.until_now().await;
        let report = judge(&history, &circumstances, self.recorder.now());
        println!("seed {seed}: {report}");
        assert!(report.withdrawals > 0, "seed {seed}: nothing was withheld, so nothing was shown");
        assert!(report.violations.is_empty(), "SAFETY_SEED={seed}: {report}");
        // The judge was awake: with a floor that nobody promised the same history is full of violations.
        let stricter = judge(&with_everybody_needed(history), &circumstances, self.recorder.now());
        let below = stricter.violations.iter().filter(|v| matches!(v, Violation::BelowFloor { .. })).count();
        assert!(below > 0, "seed {seed}: {stricter}");
    }
}

/// The same history of resources that let no pod be withheld.
fn with_everybody_needed(mut history: Vec<Revision>) -> Vec<Revision> {
    for object in history.iter_mut().filter_map(|revision| revision.object.as_mut()) {
        for breaker in object["spec"]["breakers"].as_array_mut().into_iter().flatten() {
            breaker["minPodsAvailableRatio"] = json!(100);
        }
    }
    history
}

/// A pod that is not ready, for messages: where it is and what its conditions say.
fn described(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let said: Vec<_> = conditions.filter_map(|condition| condition.message.as_deref()).collect();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    format!("{name} on {node}, deleted: {:?}, {said:?}", pod.metadata.deletion_timestamp)
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// `SAFETY_MINUTES` makes it longer than the one minute of `make test`.
#[tokio::test]
async fn whatever_happens_to_two_controllers_and_their_cluster_the_floor_holds() {
    let seed = setting("SAFETY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = Duration::from_secs_f64(setting("SAFETY_MINUTES").unwrap_or(1.0) * 60.0);
    println!("SAFETY_SEED={seed}");
    let (mut driver, mut plan) = (Driver::start().await, Plan::of(seed));
    let began = Instant::now();
    while began.elapsed() < time {
        driver.step(plan.next()).await;
    }
    driver.make_well().await;
    driver.judged(seed).await;
}
