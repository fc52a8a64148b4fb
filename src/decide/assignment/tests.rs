//! How evenly the work is divided, how little moves, and that nobody works on what another one may still work on.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn replica(name: &str, weight: u32) -> Replica {
    Replica { id: format!("{name}-1"), pod: name.to_owned(), weight, acknowledged: None, lapses: 0 }
}

fn pods(run: u32, count: u32) -> Vec<Replica> {
    (0..count).map(|n| replica(&format!("uid-{run}-{n}"), 1)).collect()
}

fn work(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("shop/web-{n}")).collect()
}

fn shares<'a>(view: &'a MembershipView, work: &[String]) -> BTreeMap<&'a str, usize> {
    let mut shares = BTreeMap::new();
    for owner in work.iter().filter_map(|work| view.owner(work)) {
        *shares.entry(owner.pod.as_str()).or_default() += 1;
    }
    shares
}

#[test]
fn a_fifth_replica_takes_a_fifth_of_the_work_and_nothing_moves_between_the_others() {
    let work = work(1000);
    let mut moved: Vec<usize> = (0..100)
        .map(|run| {
            let (four, five) = (MembershipView::of(pods(run, 4)), MembershipView::of(pods(run, 5)));
            let joined = format!("uid-{run}-4");
            let changed =
                work.iter().filter(|work| four.owner(work).unwrap().id != five.owner(work).unwrap().id);
            let changed: Vec<_> = changed.collect();
            assert!(changed.iter().all(|work| five.owner(work).unwrap().pod == joined));
            changed.len()
        })
        .collect();
    moved.sort_unstable();
    println!("of 1000, moved from 4 to 5: median {}, worst {}", moved[50], moved[99]);
    assert!(moved[50] <= 205 && moved[99] <= 250, "{} {}", moved[50], moved[99]);
}

#[test]
fn five_replicas_have_about_the_same() {
    for run in 0..20 {
        let view = MembershipView::of(pods(run, 5));
        let work = work(1000);
        let largest = shares(&view, &work).into_values().max().unwrap();
        assert!(largest <= 300, "{largest}");
    }
}

#[test]
fn a_replica_of_twice_the_weight_has_twice_the_work_and_a_cordoned_one_none() {
    let view = MembershipView::of(vec![replica("a", 1), replica("b", 2), replica("c", 0)]);
    let work = work(3000);
    let shares = shares(&view, &work);
    assert!((900..1100).contains(&shares["a"]) && (1900..2100).contains(&shares["b"]), "{shares:?}");
    assert_eq!(shares.get("c"), None);
    assert_eq!(MembershipView::of(vec![replica("c", 0)]).owner("x"), None);
    assert_eq!(MembershipView::of(Vec::new()).owner("x"), None);
}

#[test]
fn a_restarted_process_has_the_work_of_its_pod_and_is_another_view() {
    let before = MembershipView::of(vec![replica("a", 1), replica("b", 1)]);
    let mut restarted = replica("a", 1);
    restarted.id = "a-2".to_owned();
    let after = MembershipView::of(vec![replica("b", 1), restarted]);
    assert_ne!(before.id, after.id);
    for work in work(100) {
        assert_eq!(before.owner(&work).unwrap().pod, after.owner(&work).unwrap().pod);
    }
}

#[test]
fn the_order_in_which_replicas_are_seen_makes_no_difference() {
    let (forth, back) = (pods(1, 5), pods(1, 5).into_iter().rev().collect());
    assert_eq!(MembershipView::of(forth), MembershipView::of(back));
}

/// A store whose members are seen late: each replica knows an old state of the others.
struct World {
    members: BTreeMap<usize, Replica>,
    ownership: Vec<Ownership>,
    running: Vec<BTreeSet<String>>,
    work: Vec<String>,
}

impl World {
    fn new() -> Self {
        let ownership = (0..4).map(|n| Ownership::new(replica(&n.to_string(), 1).id)).collect();
        Self { members: BTreeMap::new(), ownership, running: vec![BTreeSet::new(); 4], work: work(12) }
    }

    /// One replica looks at the members, ends what it must, publishes, and begins what it may.
    fn step(&mut self, at: usize) {
        let own = &mut self.ownership[at];
        own.observe(self.members.values().cloned().collect());
        self.running[at].retain(|work| own.may_run(work));
        own.set_running(self.running[at].clone());
        if let (Some(view), Some(member)) = (own.acknowledgement(), self.members.get_mut(&at)) {
            member.acknowledged = Some(view);
        }
        own.observe(self.members.values().cloned().collect());
        self.running[at].extend(self.work.iter().filter(|work| own.may_run(work)).cloned());
        own.set_running(self.running[at].clone());
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for work in &self.work {
            let owners = (0..4).filter(|at| self.running[*at].contains(work)).count();
            prop_assert!(owners <= 1, "{work} has {owners} owners");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whoever_comes_and_goes_nothing_has_two_owners_and_in_the_end_everything_has_one(
        steps in prop::collection::vec((0_usize..4, 0_u8..6), 1..200),
    ) {
        let mut world = World::new();
        for (at, what) in steps {
            match what {
                0 => drop(world.members.entry(at).or_insert_with(|| replica(&at.to_string(), 1))),
                1 => {
                    // A member that leaves has ended its work, or its lease has ended on its own clock first.
                    world.members.remove(&at);
                    world.ownership[at].lose();
                    world.running[at].clear();
                }
                2 => if let Some(member) = world.members.get_mut(&at) { member.weight ^= 1 },
                _ => world.step(at),
            }
            world.check()?;
        }
        world.members.entry(0).or_insert_with(|| replica("0", 1)).weight = 1;
        for _ in 0..3 {
            for at in 0..4 {
                if world.members.contains_key(&at) {
                    world.step(at);
                }
                world.check()?;
            }
        }
        for work in &world.work {
            prop_assert!(world.running.iter().any(|running| running.contains(work)), "{} has no owner", work);
        }
    }
}

#[test]
fn a_replica_that_was_away_begins_nothing_on_acknowledgements_from_before() {
    let seen = |lapses: u64, acknowledged: Option<u64>| -> Vec<Replica> {
        let of = |name: &str, lapses| Replica { lapses, acknowledged, ..replica(name, 1) };
        vec![of("a", lapses), of("b", 0)]
    };
    let (before, after) = (MembershipView::of(seen(0, None)), MembershipView::of(seen(1, None)));
    let mine = work(20).into_iter().find(|work| before.owner(work).unwrap().pod == "a").unwrap();
    let mut a = Ownership::new("a-1");
    a.observe(seen(0, Some(before.id)));
    assert!(a.may_run(&mine));
    a.lose();
    a.observe(seen(1, Some(before.id)));
    assert!(!a.may_run(&mine), "b may have begun it meanwhile");
    a.observe(seen(1, Some(after.id)));
    assert!(a.may_run(&mine));
}
