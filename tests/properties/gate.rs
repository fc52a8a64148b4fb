//! The gate's safety property, under any order of reads, writes, late and repeated messages, crashes and edits by people.
//!
//! Two controllers work on the same fleet. Each reads the ledger and lists the pods, later plans on that, and stores its
//! ledger by compare-and-swap; each patch then travels separately: late, twice, or never.

use std::time::Duration;

use kubervisor::decide::{
    fleet::{Epoch, Fence, Fleet, PodView, Traffic, Uid},
    gate::{
        self,
        action::{Action, Verb},
        ledger::Ledger,
    },
    policy::{ActivatorMode, Policy},
};
use proptest::prelude::*;

use crate::world::{EPOCH, Sink, World, ratio};

#[derive(Clone, Debug)]
enum Event {
    /// A controller reads the ledger, then lists the pods.
    Read(usize),
    /// It plans on what it read, and stores and sends unless the ledger changed.
    Act(usize),
    /// A patch arrives; it may arrive again.
    Arrive(prop::sample::Index),
    /// A patch is lost.
    Lose(prop::sample::Index),
    /// All patches under way arrive.
    ArriveAll,
    /// Seconds pass.
    Wait(u64),
    /// The breaker runs; bit n is set for a bad pod n.
    Judge(u16),
    /// A pod is listed by the slices, or not.
    Listed(prop::sample::Index, bool),
    /// A pod changes readiness.
    Ready(prop::sample::Index, bool),
    /// A pod is replaced by one of another UID.
    Replace(prop::sample::Index),
    /// A person sets the switch.
    Human(prop::sample::Index, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0..2_usize).prop_map(Event::Read),
        4 => (0..2_usize).prop_map(Event::Act),
        4 => index().prop_map(Event::Arrive),
        1 => index().prop_map(Event::Lose),
        2 => Just(Event::ArriveAll),
        2 => (0..12_u64).prop_map(Event::Wait),
        3 => any::<u16>().prop_map(Event::Judge),
        1 => (index(), any::<bool>()).prop_map(|(pod, ready)| Event::Ready(pod, ready)),
        1 => (index(), any::<bool>()).prop_map(|(pod, listed)| Event::Listed(pod, listed)),
        1 => index().prop_map(Event::Replace),
        1 => (index(), any::<bool>()).prop_map(|(pod, yes)| Event::Human(pod, yes)),
    ]
}

/// What people, and clients that strip what they do not know, do to the marks on a pod.
#[derive(Clone, Debug)]
struct Edit {
    pod: prop::sample::Index,
    unclaimed: bool,
    /// `None`: as it is; else the fence is gone, of another ledger, or older than the entry.
    fence: Option<Option<Fence>>,
    traffic: Option<Traffic>,
    unmarked: bool,
}

fn edit() -> impl Strategy<Value = Edit> {
    let fences = prop::sample::select(vec![
        None,
        Some(Fence { epoch: Epoch(0xf), serial: 3 }),
        Some(Fence { epoch: EPOCH, serial: 0 }),
    ]);
    let words = prop::sample::select(vec![
        Traffic::Yes,
        Traffic::No,
        Traffic::Pause,
        Traffic::Unlabelled,
        Traffic::Other,
    ]);
    let parts = (any::<bool>(), prop::option::of(fences), prop::option::of(words), any::<bool>());
    (any::<prop::sample::Index>(), parts).prop_map(|(pod, (unclaimed, fence, traffic, unmarked))| Edit {
        pod,
        unclaimed,
        fence,
        traffic,
        unmarked,
    })
}

/// A patch under way, with the floor and the losses at the time of its list.
#[derive(Clone)]
struct Message {
    action: Action,
    lost_before: u32,
    floor: u32,
}

struct Simulation {
    world: World,
    read: [Option<(Ledger, Fleet, u32)>; 2],
    network: Vec<Message>,
    /// Pods that left service by other causes, in all.
    lost: u32,
    born: u32,
    trace: Vec<String>,
}

impl Simulation {
    fn new(policy: Policy, pods: u32) -> Self {
        let world = World::new(Sink::Labels, policy, pods);
        Self { world, read: [None, None], network: Vec::new(), lost: 0, born: 0, trace: Vec::new() }
    }

    fn apply(&mut self, event: &Event) -> Result<(), TestCaseError> {
        self.trace.push(format!("{event:?}"));
        match event {
            Event::Read(who) => {
                self.read[*who] = Some((self.world.ledger.clone(), self.world.fleet(), self.lost));
            }
            Event::Act(who) => self.act(*who),
            Event::Arrive(which) if !self.network.is_empty() => {
                let message = self.network[which.index(self.network.len())].clone();
                self.arrive(&message)?;
            }
            Event::Lose(which) if !self.network.is_empty() => {
                self.network.remove(which.index(self.network.len()));
            }
            Event::Arrive(_) | Event::Lose(_) => {}
            Event::ArriveAll => self.arrive_all()?,
            Event::Wait(seconds) => self.world.now = self.world.now + Duration::from_secs(*seconds),
            Event::Judge(bits) => self.judge(*bits),
            Event::Listed(pod, listed) => {
                let now = self.world.now;
                self.change(pod, |pod| pod.unlisted_since = (!listed).then_some(now));
            }
            Event::Ready(pod, ready) => self.change(pod, |pod| pod.ready = *ready),
            Event::Human(pod, yes) => {
                self.change(pod, |pod| pod.traffic = if *yes { Traffic::Yes } else { Traffic::No });
            }
            Event::Replace(pod) => self.replace(pod),
        }
        Ok(())
    }

    fn act(&mut self, who: usize) {
        let Some((ledger, fleet, lost_before)) = self.read[who].take() else { return };
        let plan = gate::plan(self.world.now, &self.world.policy, &fleet, &ledger, &self.world.verdicts);
        if ledger.serial != self.world.ledger.serial {
            return; // the ledger changed since the read: the plan is dropped
        }
        self.world.store(&plan);
        let floor = plan.budget.floor;
        let messages = plan.actions.into_iter().map(|action| Message { action, lost_before, floor });
        self.network
            .extend(messages.filter(|message| !matches!(message.action.verb, Verb::Release | Verb::Forget)));
    }

    /// Asserts that no cut leaves fewer serving pods than the floor, except by pods lost to other causes since the list.
    fn arrive(&mut self, message: &Message) -> Result<(), TestCaseError> {
        let before = self.world.truly_serving();
        let mut late = message.action.clone();
        late.guard.until = None; // sent in time; its travel time is unbounded
        self.trace.push(format!("  {:?} {} arrives", late.verb, late.name));
        self.world.carry(&late);
        let after = self.world.truly_serving();
        let unseen = self.lost - message.lost_before;
        prop_assert!(
            after >= before || after + unseen >= message.floor,
            "{after} serve after {:?} of {}, floor {}, lost meanwhile {unseen}\n{}",
            late.verb,
            late.name,
            message.floor,
            self.trace.join("\n")
        );
        Ok(())
    }

    fn arrive_all(&mut self) -> Result<(), TestCaseError> {
        for message in std::mem::take(&mut self.network) {
            self.arrive(&message)?;
        }
        Ok(())
    }

    fn judge(&mut self, bits: u16) {
        let names: Vec<String> = self.world.pods.values().map(|pod| pod.name.clone()).collect();
        let bad = names.iter().enumerate().filter(|(at, _)| bits >> (at % 16) & 1 == 1);
        let bad: Vec<_> = bad.map(|(_, name)| (name.as_str(), 0.5)).collect();
        self.world.bad("rate", &bad);
    }

    fn change(&mut self, which: &prop::sample::Index, edit: impl Fn(&mut PodView)) {
        let before = self.world.truly_serving();
        let uid = self.pick(which);
        if let Some(pod) = self.world.pods.get_mut(&uid) {
            edit(pod);
        }
        self.lost += before.saturating_sub(self.world.truly_serving());
    }

    fn replace(&mut self, which: &prop::sample::Index) {
        let before = self.world.truly_serving();
        let uid = self.pick(which);
        let Some(old) = self.world.pods.remove(&uid) else { return };
        self.lost += before.saturating_sub(self.world.truly_serving());
        self.born += 1;
        let fence = Fence { epoch: EPOCH, serial: self.world.ledger.serial };
        let new = PodView::serving(format!("n{:05}", self.born), old.name, fence);
        self.world.pods.insert(new.uid.clone(), new);
    }

    fn edit(&mut self, edit: &Edit) {
        self.trace.push(format!("{edit:?}"));
        self.change(&edit.pod, |pod| {
            pod.claimed &= !edit.unclaimed;
            pod.fence = edit.fence.unwrap_or(pod.fence);
            pod.traffic = edit.traffic.unwrap_or(pod.traffic);
            pod.break_at = pod.break_at.filter(|_| !edit.unmarked);
        });
    }

    fn pick(&self, which: &prop::sample::Index) -> Uid {
        let uids: Vec<_> = self.world.pods.keys().cloned().collect();
        which.get(&uids).clone()
    }

    /// Ends all faults: every pod is ready and good, and no person edits.
    fn calm(&mut self) {
        self.network.clear();
        for pod in self.world.pods.values_mut() {
            (pod.ready, pod.unlisted_since) = (true, None);
        }
        for _ in 0..4 {
            self.world.bad("rate", &[]);
            self.world.settle();
            self.world.pass(Duration::from_secs(20));
        }
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    (0..=100_u8, prop::option::of(20..90_u8), any::<bool>(), prop::option::of(1..3_u32)).prop_map(
        |(percent, panic_threshold, retries, batch)| {
            let mut policy = ratio(percent);
            policy.panic_threshold = panic_threshold;
            policy.breakers[0].activator.batch = batch;
            if retries {
                policy.breakers[0].activator.mode = ActivatorMode::RetryAndKill;
                policy.breakers[0].activator.max_retry = 1000;
                policy.breakers[0].activator.max_period = Duration::from_secs(15);
            }
            policy
        },
    )
}

/// `PROPTEST_CASES` for long sweeps.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_messages_and_crashes_takes_the_fleet_below_its_floor(
        policy in policy(),
        pods in 1..9_u32,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut simulation = Simulation::new(policy, pods);
        for event in &events {
            simulation.apply(event)?;
        }
    }

    #[test]
    fn after_the_last_fault_no_pod_stays_withheld(
        policy in policy(),
        pods in 1..9_u32,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut simulation = Simulation::new(policy, pods);
        for event in &events {
            simulation.apply(event)?;
        }
        simulation.calm();
        // pods that a person withheld have no breakAt and stay withheld
        let dark = simulation.world.pods.values().filter(|pod| pod.traffic != Traffic::Yes && pod.break_at.is_some());
        prop_assert_eq!(dark.count(), 0, "{:?}\n{:#?}", simulation.trace, simulation.world.ledger);
        prop_assert!(simulation.world.ledger.entries.is_empty(), "{:?}\n{:#?}", simulation.trace, simulation.world.ledger);
    }

    #[test]
    fn a_fleet_whose_resource_ends_is_given_back_whatever_is_on_its_pods(
        policy in policy(),
        pods in 1..9_u32,
        dry_run in any::<bool>(),
        events in prop::collection::vec(event(), 1..60),
        edits in prop::collection::vec(edit(), 0..9),
    ) {
        let mut simulation = Simulation::new(policy, pods);
        for event in &events {
            simulation.apply(event)?;
        }
        simulation.network.clear();
        edits.iter().for_each(|edit| simulation.edit(edit));
        let world = &mut simulation.world;
        let entered: Vec<Uid> = world.ledger.entries.keys().cloned().collect();
        (world.leaving, world.policy.dry_run) = (true, dry_run);
        world.settle();
        // A person's pause stays until the marks come off.
        let left = world.ledger.entries.values().filter(|entry| !entry.human).count();
        prop_assert_eq!(left, 0, "{:?}\n{:#?}\n{:#?}", simulation.trace, world.ledger, world.pods);
        let ours = entered.iter().filter_map(|uid| world.pods.get(uid)).filter(|pod| pod.claimed);
        let dark = ours.filter(|pod| pod.traffic == Traffic::No && pod.break_at.is_some()).count();
        prop_assert_eq!(dark, 0, "{:?}\n{:#?}", simulation.trace, world.pods);
    }

    #[test]
    fn a_plan_made_again_on_its_own_result_changes_nothing(
        policy in policy(),
        pods in 1..40_u32,
        rounds in prop::collection::vec((any::<u16>(), 0..15_u64), 1..6),
        labels in any::<bool>(),
    ) {
        let mut simulation = Simulation::new(policy, pods);
        simulation.world.sink = if labels { Sink::Labels } else { Sink::File };
        for (bits, seconds) in rounds {
            simulation.world.now = simulation.world.now + Duration::from_secs(seconds);
            simulation.judge(bits);
            simulation.world.settle();
            let again = simulation.world.plan();
            prop_assert_eq!(&again.next, &None);
            prop_assert!(again.actions.is_empty(), "{:?}", again.actions);
            prop_assert!(simulation.world.serving() >= simulation.world.floor().min(pods));
        }
    }

    #[test]
    fn one_commit_is_enough_where_the_ledger_is_the_switch(
        policy in policy(),
        pods in 1..40_u32,
        rounds in prop::collection::vec((any::<u16>(), 0..15_u64), 1..6),
    ) {
        let mut simulation = Simulation::new(policy, pods);
        simulation.world.sink = Sink::File;
        for (bits, seconds) in rounds {
            simulation.world.now = simulation.world.now + Duration::from_secs(seconds);
            simulation.judge(bits);
            let before = simulation.world.truly_serving();
            simulation.world.step();
            let after = simulation.world.truly_serving();
            prop_assert!(after >= before || after >= simulation.world.floor(), "{before} -> {after}");
        }
    }
}
