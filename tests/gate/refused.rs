//! Pods whose writes the API server refuses: they stop nobody else, and the floor counts with what is certain.

use kubervisor::decide::{
    fleet::{Epoch, Fence, RefusedWrite, Traffic},
    gate::action::Verb,
    time::Timestamp,
};

use super::world::{Sink, World, ratio};

fn refused(verb: Verb, due: bool) -> Option<RefusedWrite> {
    Some(RefusedWrite { verb, sentence: "managed elsewhere".to_owned(), due })
}

fn world() -> World {
    let mut world = World::new(Sink::Labels, ratio(50), 4);
    world.settle();
    world
}

fn alarms(world: &World) -> Vec<String> {
    world.plan().alarms.iter().map(|alarm| alarm.reason.to_string()).collect()
}

#[test]
fn a_pod_that_cannot_be_claimed_counts_while_it_is_listed_is_never_cut_and_holds_nobody_up() {
    let mut world = world();
    for (listed, expected) in [(true, vec!["p1", "p2"]), (false, vec!["p1"])] {
        let pod = world.pod("p0");
        (pod.fence, pod.claimed, pod.refusal) = (None, false, refused(Verb::Claim, false));
        pod.unlisted_since = (!listed).then_some(Timestamp::from_unix_millis(0));
        world.bad("rate", &[("p0", 0.9), ("p1", 0.8), ("p2", 0.7)]);
        let plan = world.plan();
        assert_eq!(plan.hold, None);
        let cut: Vec<&str> = plan.actions.iter().map(|action| action.name.as_str()).collect();
        assert_eq!(cut, expected, "listed: {listed}");
        assert!(alarms(&world).contains(&"writes_refused".to_owned()), "{:?}", alarms(&world));
        let said = plan.explain(world.uid("p0").as_str()).unwrap().to_string();
        assert!(said.contains("never withheld") && said.contains("claim: managed elsewhere"), "{said}");
    }
}

#[test]
fn a_refused_claim_is_tried_again_when_it_is_due() {
    let mut world = world();
    let pod = world.pod("p0");
    (pod.fence, pod.refusal) = (None, refused(Verb::Claim, true));
    let plan = world.plan();
    assert_eq!(plan.actions.iter().map(|action| action.verb).collect::<Vec<_>>(), [Verb::Claim]);
    assert_eq!(plan.hold, None, "the others do not wait for it");
}

#[test]
fn a_pod_with_the_fence_of_another_ledger_whose_claim_is_refused_does_not_count() {
    let mut world = world();
    let pod = world.pod("p0");
    (pod.fence, pod.refusal) = (Some(Fence { epoch: Epoch(99), serial: 7 }), refused(Verb::Claim, false));
    world.bad("rate", &[("p1", 0.8), ("p2", 0.7)]);
    assert_eq!(world.plan().budget.serving, 3, "its withdrawal of that ledger may still land");
}

#[test]
fn a_pod_that_is_not_withheld_because_that_is_refused_leaves_its_place_to_the_next_one() {
    let mut world = world();
    world.bad("rate", &[("p0", 0.9), ("p1", 0.8), ("p2", 0.7)]);
    world.pod("p0").refusal = refused(Verb::Withhold, false);
    let cut: Vec<String> = world.plan().actions.into_iter().map(|action| action.name).collect();
    assert_eq!(cut, ["p1", "p2"]);
    world.pod("p0").refusal = refused(Verb::Withhold, true);
    let cut: Vec<String> = world.plan().actions.into_iter().map(|action| action.name).collect();
    assert_eq!(cut, ["p0", "p1"], "tried again");
}

#[test]
fn below_the_floor_a_pod_that_may_not_come_back_takes_no_other_ones_place() {
    let mut world = world();
    world.bad("rate", &[("p0", 0.1), ("p1", 0.8)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0", "p1"]);
    world.pod("p2").ready = false;
    world.pod("p0").refusal = refused(Verb::Admit, false);
    let back: Vec<(Verb, String)> =
        world.plan().actions.into_iter().map(|action| (action.verb, action.name)).collect();
    assert_eq!(back, [(Verb::Admit, "p1".to_owned())], "the better one is refused");
    assert!(alarms(&world).contains(&"return_refused".to_owned()), "that is shouted");
    world.pod("p0").traffic = Traffic::Yes;
    assert!(!alarms(&world).contains(&"return_refused".to_owned()), "until it has traffic");
}
