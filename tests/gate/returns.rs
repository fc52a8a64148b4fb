//! Which returns of a withheld pod count its withdrawal as a retry: only those by its activator.

use std::time::Duration;

use kubervisor::decide::{
    fleet::Traffic,
    verdict::{Call, Opinion, Source, SourceKind},
};

use super::world::{Sink, World, ratio};

/// A world of ten whose pod p0 is withheld, by a breaker with a period of 10 s.
fn withheld() -> World {
    let mut policy = ratio(50);
    policy.breakers[0].activator.period = Duration::from_secs(10);
    let mut world = World::new(Sink::Labels, policy, 10);
    world.bad("rate", &[("p0", 0.5)]);
    world.settle();
    assert_eq!(world.withheld(), ["p0"]);
    world
}

/// Something that gives a withheld pod its traffic back.
type Way<'a> = &'a dyn Fn(&mut World);

/// The retries that its next withdrawal starts from: by its mark, and by the ledger.
fn counted(world: &mut World, way: &str) -> (Option<u32>, u32) {
    assert_eq!(world.withheld(), Vec::<String>::new(), "{way}: it is back");
    let uid = world.uid("p0");
    (world.pod("p0").retry_count, world.ledger.returned[&uid].retry_count)
}

#[test]
fn a_return_by_the_activator_counts_as_a_retry() {
    let mut world = withheld();
    world.bad("rate", &[]);
    world.pass(Duration::from_secs(15));
    assert_eq!(counted(&mut world, "activator"), (Some(1), 1));
    world.bad("rate", &[("p0", 0.5)]);
    world.settle();
    assert_eq!(world.ledger.entries[&world.uid("p0")].retry_count, 2);
}

#[test]
fn a_return_by_floor_panic_person_request_or_the_end_of_gating_counts_as_none() {
    let floor = |world: &mut World| {
        for name in ["p1", "p2", "p3", "p4", "p5"] {
            world.pod(name).ready = false;
        }
    };
    let panic = |world: &mut World| {
        world.policy.panic_threshold = Some(50);
        world.all_bad("rate");
    };
    let person = |world: &mut World| world.pod("p0").traffic = Traffic::Yes;
    let request = |world: &mut World| {
        let until = world.now + Duration::from_secs(60);
        let asked = Opinion::Requested { call: Call::Admit, reason: "asked for by ann".to_owned(), until };
        let asked = vec![(world.uid("p0"), asked)];
        world.verdicts.sources.push(Source::new("person", SourceKind::Person, world.now, asked));
    };
    let ungated = |world: &mut World| world.gated = false;
    let ways: [(&str, Way<'_>); 5] = [
        ("floor", &floor),
        ("panic", &panic),
        ("person", &person),
        ("request", &request),
        ("the end of gating", &ungated),
    ];
    for (way, happens) in ways {
        let mut world = withheld();
        happens(&mut world);
        world.settle();
        assert_eq!(counted(&mut world, way), (Some(0), 0), "{way}");
    }
}
