//! Silence: one dead pod, a network that is cut off, half of a fleet, and random mixtures.

use std::time::Duration;

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assume, prop_oneof, proptest};

use super::world::{TTL, World, address, addresses};

const EVERY: Duration = Duration::from_secs(2);
/// The keepalive interval of agents of the older dialect.
const OLDER: Duration = Duration::from_millis(4500);

#[test]
fn a_dead_pod_leaves_the_list_within_a_ping_interval_of_its_ttl() {
    for every in [EVERY, OLDER] {
        let mut world = World::new(12, every);
        world.kill(3);
        world.run(TTL + every * 2);
        assert_eq!(world.listed(), addresses((1..=12).filter(|n| *n != 3)), "{every:?}");
        world.agent(3).pinging = true;
        world.run(every * 2 + Duration::from_secs(1));
        assert_eq!(world.listed(), addresses(1..=12), "keepalives again");
    }
}

#[test]
fn a_cut_network_never_changes_the_list_not_even_between_two_expiries() {
    for every in [EVERY, OLDER] {
        let mut world = World::new(12, every);
        world.connect(false);
        world.run(TTL * 20);
        assert!(world.lists.iter().all(|list| *list == addresses(1..=12)), "{every:?}: the list changed");
        world.connect(true);
        world.run(TTL);
        assert!(
            world.lists.iter().all(|list| *list == addresses(1..=12)),
            "{every:?}: it changed afterwards"
        );
    }
}

#[test]
fn a_dead_pod_is_noticed_before_a_cut_and_the_cut_changes_nothing_more() {
    let mut world = World::new(12, EVERY);
    world.kill(1);
    world.run(TTL * 3);
    world.lists.clear();
    world.connect(false);
    world.run(TTL * 5);
    let shortest = world.lists.iter().map(std::collections::BTreeSet::len).min().unwrap();
    assert!(shortest >= 11, "{shortest} were listed");
}

#[test]
fn dead_pods_stay_listed_as_far_as_the_floor_requires() {
    let mut world = World::new(12, EVERY);
    for n in 1..=9 {
        world.kill(n);
    }
    world.run(TTL * 5);
    assert!(world.listed().is_superset(&addresses(10..=12)));
    assert!(world.listed().len() >= 6, "{:?}", world.listed());
    let alarms: Vec<_> = world.plan.as_ref().unwrap().alarms.iter().map(|alarm| alarm.reason).collect();
    assert!(alarms.iter().any(|alarm| *alarm == "below_floor"), "{alarms:?}");
}

#[test]
fn a_crashed_pod_that_was_replaced_leaves_roster_and_ledger() {
    let mut world = World::new(8, EVERY);
    for n in 1..=8 {
        world.kill(n);
        world.run(TTL + EVERY * 2);
        world.join(n + 100, Some(80));
        world.run(TTL);
    }
    assert_eq!(world.listed(), addresses(101..=108));
    assert!(world.roster.ledger.entries.is_empty(), "{:?}", world.roster.ledger.entries.keys());
    assert_eq!(world.roster.pods.len(), 8);
    assert_eq!(world.roster.desired(&world.rules), 8);
}

#[test]
fn a_fleet_of_one_or_two_silent_pods_stays_listed() {
    for pods in [1, 2] {
        let mut world = World::new(pods, EVERY);
        for n in 1..=pods {
            world.kill(n);
        }
        world.run(TTL * 10);
        assert_eq!(world.listed(), addresses(1..=pods));
    }
}

#[derive(Clone, Debug)]
enum Event {
    Kill(u8),
    Wake(u8),
    Restart(u8),
    Down(u8),
    Object(Vec<u8>),
    Connect(bool),
    Master,
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let pod = || 1..=8_u8;
    prop_oneof![
        pod().prop_map(Event::Kill),
        pod().prop_map(Event::Wake),
        pod().prop_map(Event::Restart),
        pod().prop_map(Event::Down),
        prop::collection::vec(pod(), 0..8).prop_map(Event::Object),
        any::<bool>().prop_map(Event::Connect),
        proptest::prelude::Just(Event::Master),
        (1..8000_u16).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]

    /// After the withdrawal of a live pod at least the floor serves; the list is empty only if every pod sent `down`.
    #[test]
    fn no_withdrawal_ever_leaves_fewer_than_the_floor(events in prop::collection::vec(event(), 1..24)) {
        let mut world = World::new(8, EVERY);
        for event in events {
            match event {
                Event::Kill(n) => world.kill(n),
                Event::Wake(n) => {
                    let said_down = world.agents[&n].said_down;
                    if !said_down { world.agent(n).pinging = true; }
                }
                Event::Restart(n) => { world.restart(n); world.agent(n).port = Some(80); }
                Event::Down(n) => world.down(n),
                Event::Object(pods) => world.object(pods),
                Event::Connect(connected) => world.connect(connected),
                Event::Master => world.restart_master(false),
                Event::Wait(millis) => {
                    let end = world.now + Duration::from_millis(millis.into());
                    while world.now < end {
                        let (listed, serving) = (world.listed(), world.serving());
                        world.run(Duration::from_millis(100));
                        let live = |n: &u8| {
                            let agent = &world.agents[n];
                            agent.pinging && !agent.said_down
                        };
                        let cut = (1..=8).filter(live).any(|n| listed.contains(&address(n)) && !world.listed().contains(&address(n)));
                        let floor = usize::try_from(world.floor()).unwrap();
                        // A pod that expires in the same tick was not lost by the withdrawal.
                        prop_assert!(!cut || world.serving() >= floor.min(serving), "{} serve", world.serving());
                    }
                }
            }
            prop_assert!(!world.listed().is_empty() || world.roster.all_said_down);
        }
        prop_assume!(!world.roster.pods.is_empty());
    }
}
