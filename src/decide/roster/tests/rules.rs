//! Joining, ports, restarts, `down`, a lost store: the pods of the roster and the listed addresses.

use std::{collections::BTreeSet, time::Duration};

use super::world::{TTL, World, address, addresses, key};
use crate::decide::{
    fleet::Epoch,
    roster::{Roster, RosterError},
};

const EVERY: Duration = Duration::from_secs(2);

#[test]
fn a_joining_pod_is_listed_at_once_even_in_the_first_ttl() {
    let mut world = World::new(3, EVERY);
    assert_eq!(world.listed(), addresses(1..=3));
    world.restart_master(false);
    world.join(4, Some(80));
    assert_eq!(world.listed(), addresses(1..=4));
}

#[test]
fn a_pod_without_a_port_is_not_listed_and_one_whose_port_was_known_keeps_it() {
    let mut world = World::new(3, EVERY);
    world.join(4, None);
    world.run(TTL * 2);
    assert_eq!(world.listed(), addresses(1..=3));
    world.agent(4).port = Some(80);
    world.run(EVERY);
    assert_eq!(world.listed(), addresses(1..=4));
    world.agent(4).port = None;
    world.run(TTL * 2);
    assert_eq!(world.listed(), addresses(1..=4));
}

#[test]
fn desired_is_the_most_that_were_live_and_only_down_lowers_it() {
    let mut world = World::new(10, EVERY);
    assert_eq!(world.roster.desired(&world.rules), 10);
    world.kill(1);
    world.kill(2);
    world.run(TTL * 3);
    assert_eq!(world.roster.desired(&world.rules), 10);
    world.down(3);
    assert_eq!(world.roster.desired(&world.rules), 9);
    world.rules.size = Some(4);
    assert_eq!(world.roster.desired(&world.rules), 4);
}

#[test]
fn a_pod_leaves_the_list_with_its_down_and_after_all_sent_it_the_list_is_empty() {
    let mut world = World::new(4, EVERY);
    for n in 1..=3 {
        world.down(n);
        assert_eq!(world.listed(), addresses(n + 1..=4));
        assert!(!world.roster.all_said_down);
    }
    world.down(4);
    assert_eq!(world.listed(), BTreeSet::new());
    assert!(world.roster.all_said_down);
    world.restart(2);
    world.agent(2).port = Some(80);
    world.run(EVERY);
    assert_eq!(world.listed(), addresses([2]));
    assert!(!world.roster.all_said_down);
}

#[test]
fn a_withheld_pod_stays_withheld_over_a_restart_and_no_other_is_withheld_for_it() {
    let mut world = World::new(4, EVERY);
    world.object([1, 2, 3]);
    assert_eq!(world.listed().len(), 2, "half of the fleet is the floor");
    let before = world.listed();
    let withheld = (1..=4).find(|n| !before.contains(&address(*n))).unwrap();
    let entries = world.roster.ledger.entries.len();
    world.restart(withheld);
    assert_eq!(world.listed(), before, "a restart does not admit it");
    assert_eq!(world.roster.ledger.entries.len(), entries);
    assert!(world.roster.ledger.entries.contains_key(&world.roster.pods[&key(withheld)].uid(key(withheld))));
    assert_eq!(world.roster.pods[&key(withheld)].port, Some(80), "its port is kept");
}

#[test]
fn verdicts_never_withhold_below_the_floor_and_withheld_pods_are_admitted_again() {
    let mut world = World::new(10, EVERY);
    world.object(1..=10);
    for _ in 0..100 {
        world.run(Duration::from_millis(500));
        assert!(world.serving() >= 5, "{} serve", world.serving());
    }
    world.object([]);
    world.run(Duration::from_secs(600));
    assert_eq!(world.listed(), addresses(1..=10));
}

#[test]
fn another_pod_at_the_address_of_a_dead_one_is_another_pod() {
    let mut world = World::new(6, EVERY);
    world.object([1]);
    assert_eq!(world.listed(), addresses(2..=6));
    world.object([]);
    world.agent(1).id = "web-100".into();
    world.agent(1).nonce = "other".into();
    world.run(Duration::from_millis(200));
    assert_eq!(world.listed(), addresses(1..=6));
    assert!(world.roster.ledger.entries.is_empty());
    assert_eq!(world.roster.desired(&world.rules), 6);
}

#[test]
fn a_pod_that_moved_to_another_address_leaves_its_old_one() {
    let mut world = World::new(6, EVERY);
    world.kill(1);
    world.run(TTL + EVERY * 2);
    world.join(50, Some(80));
    world.agent(50).id = "web-1".into();
    world.run(EVERY);
    assert_eq!(world.listed(), addresses([2, 3, 4, 5, 6, 50]));
    assert!(!world.roster.pods.contains_key(&key(1)));
}

#[test]
fn a_role_that_is_not_of_the_fleet_is_not_listed() {
    let mut world = World::new(2, EVERY);
    world.rules.roles = vec!["web".into()];
    world.join(3, Some(80));
    assert_eq!(world.listed(), BTreeSet::new());
    assert!(!world.roster.all_said_down);
}

#[test]
fn for_one_ttl_after_a_start_a_pod_leaves_the_list_only_by_its_own_down() {
    let mut world = World::new(8, EVERY);
    world.restart_master(false);
    world.object([1, 2]);
    world.run(TTL - Duration::from_millis(200));
    assert_eq!(world.listed(), addresses(1..=8));
    world.down(8);
    assert_eq!(world.listed(), addresses(1..=7));
    world.run(Duration::from_secs(1));
    assert_eq!(world.listed(), addresses(3..=7));
}

#[test]
fn a_restart_of_the_master_keeps_all_withdrawals() {
    let mut world = World::new(8, EVERY);
    world.object([1, 2]);
    assert_eq!(world.listed(), addresses(3..=8));
    world.restart_master(false);
    world.run(Duration::from_secs(2));
    assert_eq!(world.listed(), addresses(3..=8));
}

#[test]
fn after_a_lost_store_the_file_keeps_the_addresses_that_sent_no_keepalive_yet() {
    let mut world = World::new(12, EVERY);
    world.restart_master(true);
    world.connect(false);
    world.run(TTL * 5);
    assert_eq!(world.listed(), addresses(1..=12), "no keepalives");
    for n in 2..=12 {
        world.agent(n).pinging = false;
    }
    world.connect(true);
    world.run(TTL * 5);
    assert_eq!(world.listed(), addresses(1..=12), "keepalives of one pod");
    for n in 3..=12 {
        world.agent(n).pinging = true;
    }
    world.run(TTL * 3);
    assert_eq!(world.listed(), addresses([1].into_iter().chain(3..=12)), "keepalives of all but one");
    let steps = &world.lists;
    assert!(steps.iter().all(|list| list.len() >= 11), "a list in between was shorter");
}

#[test]
fn a_roster_of_another_version_or_another_fleet_is_refused() {
    let roster = Roster::begin("default/web", Epoch(1));
    let text = String::from_utf8(roster.encode().unwrap()).unwrap();
    assert_eq!(Roster::decode(text.as_bytes(), "default/web").unwrap(), roster);
    let refused = |text: &str, of: &str| Roster::decode(text.as_bytes(), of).unwrap_err();
    assert!(matches!(refused("{", "default/web"), RosterError::DecodeRoster(_)));
    assert!(matches!(refused("{\"schema\": 1}", "default/web"), RosterError::DecodeRoster(_)));
    let newer = text.replacen("\"schema\":1", "\"schema\":2", 1);
    assert!(matches!(refused(&newer, "default/web"), RosterError::UnknownSchema(2)));
    assert!(matches!(refused(&text, "default/api"), RosterError::UseLedger(_)));
    assert!(matches!(refused(&text, "x"), RosterError::UseLedger(_)));
}

#[test]
fn a_generation_rises_with_every_commit_and_after_a_commit_of_unknown_outcome() {
    let first = Roster::begin("default/web", Epoch(1)).after(None).unwrap();
    assert_eq!(first.generation, 1);
    assert_eq!(first.clone().after(Some(&first)), None);
    let mut unsure = first.clone();
    unsure.generation = 2;
    assert_eq!(unsure.after(Some(&first)).unwrap().generation, 3);
}
