//! Regression tests for the defects of the original that apply to this gate, by their number in the specification.

use std::time::Duration;

use kubervisor::decide::{
    fleet::{Epoch, Fence, Traffic},
    gate::{
        self,
        action::Verb,
        explain::PodState,
        ledger::{CAP, Ledger},
    },
    policy::{ActivatorStrategy, Breaker, FloorRule},
    time::Timestamp,
    verdict::{Judgement, Opinion, Source, SourceKind},
};

use super::world::{Sink, World, breaker, ratio};

const SINKS: [Sink; 2] = [Sink::Labels, Sink::File];

#[test]
fn mistake_1_ten_bad_pods_at_ratio_50_go_ten_five_five_five() {
    for sink in SINKS {
        let mut world = World::new(sink, ratio(50), 10);
        world.policy.breakers[0].activator.period = Duration::from_secs(3600);
        let mut serving = vec![world.serving()];
        for _ in 0..3 {
            world.all_bad("rate");
            world.settle();
            serving.push(world.serving());
            world.pass(Duration::from_secs(5));
        }
        assert_eq!(serving, [10, 5, 5, 5], "{sink:?}");
    }
}

#[test]
fn mistake_2_the_floor_is_rounded_up_so_two_of_three_stay_at_ratio_50() {
    for sink in SINKS {
        let mut world = World::new(sink, ratio(50), 3);
        world.all_bad("rate");
        world.settle();
        assert_eq!(world.serving(), 2, "{sink:?}");
    }
}

#[test]
fn mistake_3_many_breakers_share_one_budget_and_the_strictest_floor_holds() {
    for sink in SINKS {
        let mut policy = ratio(30);
        let strict = FloorRule { min_available_count: 8, min_available_ratio: None };
        policy.breakers.push(Breaker { floor: strict, ..breaker("latency") });
        let mut world = World::new(sink, policy, 10);
        world.bad("rate", &[("p0", 0.5), ("p1", 0.5), ("p2", 0.5)]);
        world.bad("latency", &[("p7", 0.9), ("p8", 0.9), ("p9", 0.9)]);
        world.settle();
        assert_eq!(world.serving(), 8, "{sink:?}");
        assert_eq!(world.withheld(), ["p7", "p8"], "the worst of both together");
    }
}

#[test]
fn mistake_5_rates_below_one_order_the_pods_and_nan_comes_last() {
    let mut world = World::new(Sink::Labels, ratio(70), 10);
    world.bad(
        "rate",
        &[("p1", 0.02), ("p2", 0.4), ("p3", f64::NAN), ("p4", 0.03), ("p5", -3.0), ("p6", 0.01)],
    );
    world.settle();
    assert_eq!(world.withheld(), ["p1", "p2", "p4"]);
}

#[test]
fn mistake_5_two_verdicts_on_one_pod_do_not_overwrite_each_other() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    let bad = Judgement::Bad { severity: 1.0, evidence: Box::default() };
    for twice in [[bad.clone(), Judgement::Good], [Judgement::Good, bad]] {
        let opinions = twice.map(|judgement| (world.uid("p0"), Opinion::Judged(judgement)));
        let source = Source::new("rate", SourceKind::Breaker, world.now, opinions.to_vec());
        assert!(source.opinions().len() == 1 && source.opinions()[0].1.objects());
        world.verdicts.replace(source);
    }
}

#[test]
fn mistake_7_a_pod_without_a_switch_gets_one_and_stops_nothing_else() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.pod("p3").traffic = Traffic::Unlabelled;
    world.bad("rate", &[("p0", 1.0)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0"]);
    assert_eq!(world.serving(), 3);
    assert!(world.log.contains(&(world.now, Verb::Claim, "p3".into())));
}

#[test]
fn mistake_8_a_pod_is_admitted_by_the_breaker_that_withheld_it_not_by_the_fastest() {
    for sink in SINKS {
        let mut policy = ratio(50);
        let slow = ActivatorStrategy { period: Duration::from_secs(60), ..ActivatorStrategy::default() };
        policy.breakers.push(Breaker { activator: slow, ..breaker("latency") });
        let mut world = World::new(sink, policy, 10);
        world.bad("rate", &[("p0", 0.5)]);
        world.bad("latency", &[("p1", 0.5)]);
        world.settle();
        assert_eq!(world.withheld(), ["p0", "p1"]);
        world.bad("rate", &[]);
        world.bad("latency", &[]);
        world.pass(Duration::from_secs(11));
        assert_eq!(world.withheld(), ["p1"], "{sink:?}: 10 s for the one, 60 s for the other");
        world.pass(Duration::from_secs(50));
        assert!(world.withheld().is_empty(), "{sink:?}");
    }
}

#[test]
fn mistake_9_what_was_done_can_be_counted_from_the_actions_not_from_the_errors() {
    let mut world = World::new(Sink::Labels, ratio(50), 10);
    world.bad("rate", &[("p0", 0.5), ("p1", 0.5)]);
    world.settle();
    world.bad("rate", &[]);
    world.pass(Duration::from_secs(11));
    let count = |verb| world.log.iter().filter(|(_, done, _)| *done == verb).count();
    assert_eq!((count(Verb::Withhold), count(Verb::Admit)), (2, 2));
}

#[test]
fn mistake_10_an_admitted_pod_counts_for_a_cut_only_once_it_is_listed() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    let now = world.now;
    for (name, ago) in [("p0", 1), ("p1", 6)] {
        unlist(&mut world, name, ago);
    }
    let budget = world.plan().budget;
    assert_eq!(
        (budget.serving, budget.joining),
        (2, 1),
        "p1 is unlisted for too long to count for a restore"
    );
    assert_eq!(world.plan().next_wakeup, Some(now + Duration::from_secs(4)));
    world.pod("p0").unlisted_since = None;
    assert_eq!(world.serving(), 3);
}

fn unlist(world: &mut World, name: &str, seconds_ago: i64) {
    let since = Timestamp::from_unix_millis(world.now.unix_millis() - seconds_ago * 1000);
    world.pod(name).unlisted_since = Some(since);
}

#[test]
fn a_withheld_pod_that_leaves_the_fleet_is_given_back_at_once_and_holds_no_room() {
    let mut world = World::new(Sink::Labels, ratio(50), 8);
    world.policy.breakers[0].activator.period = Duration::from_secs(3600);
    world.bad("rate", &[("p0", 0.9), ("p1", 0.9)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0", "p1"]);
    // The selector moves on: four are left, p4 to p7.
    world.desired = 4;
    for name in ["p0", "p1", "p2", "p3"] {
        (world.pod(name).selected, world.pod(name).ready) = (false, false);
    }
    world.bad("rate", &[("p4", 0.9), ("p5", 0.9)]);
    let plan = world.plan();
    assert_eq!((plan.budget.existing, plan.budget.entries, plan.budget.may_withhold()), (4, 0, 2));
    world.settle();
    assert_eq!(world.withheld(), ["p4", "p5"]);
    assert_eq!(world.ledger.entries.len(), 2, "those that left are released");
}

#[test]
fn a_pod_that_has_left_and_belongs_to_another_resource_is_let_go_of() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.bad("rate", &[("p0", 0.9)]);
    world.settle();
    let theirs = Fence { epoch: Epoch(7), serial: 1 };
    let pod = world.pod("p0");
    (pod.selected, pod.claimed, pod.fence) = (false, false, Some(theirs));
    world.settle();
    assert!(world.ledger.entries.is_empty());
    assert_eq!(
        (world.pod("p0").fence, world.pod("p0").claimed),
        (Some(theirs), false),
        "nothing is written to it"
    );
}

#[test]
fn a_withheld_pod_that_left_and_is_in_no_ledger_is_given_back_too() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.bad("rate", &[("p0", 0.9)]);
    world.settle();
    world.ledger = Ledger::begin("world", Epoch(9));
    (world.pod("p0").selected, world.pod("p0").ready) = (false, false);
    world.settle();
    assert_eq!((world.withheld(), world.ledger.entries.len()), (vec![], 0));
}

fn on_nodes(nodes: &[&str]) -> World {
    let mut world = World::new(Sink::Labels, ratio(1), u32::try_from(nodes.len()).unwrap());
    world.policy.breakers[0].activator.period = Duration::from_secs(3600);
    for (pod, node) in world.pods.values_mut().zip(nodes) {
        pod.place = Some((*node).into());
    }
    world
}

#[test]
fn the_last_pod_of_a_node_is_kept_and_others_go_in_its_stead() {
    let mut world = on_nodes(&["a", "a", "b", "c"]);
    world.all_bad("rate");
    world.settle();
    assert_eq!(world.withheld().len(), 1);
    assert!(["p0", "p1"].contains(&world.withheld()[0].as_str()));
    let plan = world.plan();
    let why = plan.explain(world.uid("p2").as_str()).unwrap().decision;
    assert!(why.contains("no other pod serves on its node"), "{why}");
    assert!(
        !plan.alarms.iter().any(|alarm| alarm.reason == "floor_reached" || alarm.reason == "one_per_node")
    );
}

#[test]
fn a_node_that_loses_its_last_pod_gets_its_withheld_one_back() {
    let mut world = on_nodes(&["a", "a", "b", "b"]);
    world.bad("rate", &[("p0", 0.9), ("p2", 0.9)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0", "p2"]);
    world.pod("p1").ready = false;
    world.settle();
    assert_eq!(world.withheld(), ["p2"], "p0 is all that its node has");
}

#[test]
fn a_breaker_that_may_withhold_none_because_each_node_has_one_pod_is_told() {
    let mut world = on_nodes(&["a", "b", "c"]);
    world.all_bad("rate");
    world.settle();
    assert_eq!(world.withheld(), [""; 0]);
    let plan = world.plan();
    assert!(plan.alarms.iter().any(|alarm| alarm.reason == "one_per_node"), "{:?}", plan.alarms);
}

#[test]
fn a_fleet_scaled_to_zero_has_the_floor_zero_and_no_alarm() {
    let mut world = World::new(Sink::Labels, ratio(50), 3);
    world.bad("rate", &[("p0", 0.9)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0"]);
    world.desired = 0;
    world.settle();
    assert_eq!(world.withheld(), [""; 0], "there is no room for an entry");
    world.pods.clear();
    world.settle();
    world.bad("rate", &[]);
    let plan = world.plan();
    assert_eq!((plan.budget.floor, plan.budget.missing(), plan.alarms), (0, 0, vec![]));
    // Back from zero: its pods are not ready yet, and there is nothing to have a verdict about.
    let mut world = World { desired: 3, ..World::new(Sink::Labels, ratio(50), 3) };
    world.pods.values_mut().for_each(|pod| pod.ready = false);
    let source = Source::new("rate", SourceKind::Breaker, world.now, Vec::new());
    world.verdicts.replace(source);
    assert!(!world.plan().alarms.iter().any(|alarm| alarm.reason == "no_data"));
}

/// Seen: the endpoint controller had stopped, two new pods were in no slice, the two old ones were bad, and both were cut:
/// the slices listed only those two.
#[test]
fn while_new_pods_are_in_no_slice_the_bad_old_ones_stay_however_long_that_takes() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    (world.policy.panic_threshold, world.can_kill) = (None, true);
    for name in ["p2", "p3"] {
        unlist(&mut world, name, 0);
    }
    world.bad("rate", &[("p0", 0.9), ("p1", 0.9)]);
    for seconds in [0, 1, 4, 5, 60, 3600] {
        world.pass(Duration::from_secs(seconds));
        assert_eq!(world.withheld(), [""; 0], "after {seconds} s more");
    }
    let plan = world.plan();
    let said = plan.explain(world.uid("p2").as_str()).unwrap();
    assert_eq!(said.standing, PodState::NotListed);
    let alarm = plan.alarms.iter().find(|alarm| alarm.reason == "not_listed").unwrap();
    assert!(alarm.message.contains("p2, p3"), "{}", alarm.message);
    for name in ["p2", "p3"] {
        world.pod(name).unlisted_since = None;
    }
    world.bad("rate", &[("p0", 0.9), ("p1", 0.9)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0", "p1"]);
}

#[test]
fn new_pods_that_are_not_listed_yet_restore_nobody_for_five_seconds_and_then_they_do() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.bad("rate", &[("p0", 0.9), ("p1", 0.9)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0", "p1"]);
    world.policy.breakers[0].activator.period = Duration::from_secs(1000);
    unlist(&mut world, "p2", 0);
    world.pass(Duration::from_millis(4900));
    assert_eq!(world.withheld(), ["p0", "p1"], "p2 may be listed in a moment");
    assert!(!world.plan().alarms.iter().any(|alarm| alarm.reason == "below_floor"));
    world.pass(Duration::from_millis(200));
    assert_eq!(world.withheld().len(), 1, "the floor is 2, and one serves");
}

#[test]
fn nothing_is_withheld_on_a_list_that_may_be_older_than_the_ledger() {
    // The list shows a pod that served; since then it was withheld, deleted, and its entry released.
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.all_bad("rate");
    let mut fleet = world.fleet();
    fleet.absence_proven = false;
    let plan = gate::plan(world.now, &world.policy, &fleet, &world.ledger, &world.verdicts);
    assert_eq!((plan.next, plan.actions), (None, Vec::new()));
    assert_eq!(plan.hold.as_deref(), Some("the list of pods may be older than the ledger"));
    assert_eq!(world.plan().actions.len(), 2, "a list begun after the ledger was read is enough");
}

#[test]
fn at_the_floor_the_floor_is_the_reason_also_on_a_list_that_may_be_older() {
    // Without room in the budget no newer list is requested, so this plan's reason is final.
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.all_bad("rate");
    world.settle();
    let mut fleet = world.fleet();
    fleet.absence_proven = false;
    let plan = gate::plan(world.now, &world.policy, &fleet, &world.ledger, &world.verdicts);
    assert_eq!(plan.hold, None);
    assert!(plan.alarms.iter().any(|alarm| alarm.reason == "floor_reached"), "{:?}", plan.alarms);
}

#[test]
fn a_withheld_pod_with_an_older_fence_is_claimed_and_comes_back() {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.bad("rate", &[("p0", 0.5)]);
    world.settle();
    world.bad("rate", &[]);
    world.pass(Duration::from_secs(11));
    world.bad("rate", &[("p0", 0.5)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0"]);
    // An old manifest was restored.
    let first = world.pod("p1").fence;
    assert_ne!(world.pod("p0").fence, first);
    world.pod("p0").fence = first;
    world.bad("rate", &[]);
    world.pass(Duration::from_secs(11));
    assert_eq!((world.withheld().len(), world.ledger.entries.len()), (0, 0));
}

#[test]
fn a_ledger_grows_no_larger_than_its_cap_and_raises_an_alarm() {
    let mut world = World::new(Sink::Labels, ratio(10), 2500);
    world.all_bad("rate");
    world.settle();
    let size = world.ledger.encode().unwrap().len();
    assert!((CAP * 3 / 4..=CAP).contains(&size), "{size} bytes, {} entries", world.ledger.entries.len());
    let plan = world.plan();
    let full = plan.alarms.iter().find(|alarm| alarm.reason == "ledger_full");
    assert!(
        full.is_some_and(|alarm| alarm.message.contains("the ledger takes no more")),
        "{:?}",
        plan.alarms
    );
    assert!(!plan.actions.iter().any(|action| action.verb == Verb::Withhold));
}
