//! The simulation finds known mistakes, and repeats what it has found.

use std::collections::BTreeSet;

use crate::{mutant::Mutant, seeds, sharing::TEST};

/// Seeds that are tried for one mutant.
const SEEDS: u64 = 60;

/// Some seed shows that a promise is broken, and without the mutant the same seed shows nothing.
fn is_found(mutant: Mutant) {
    let name = format!("{mutant:?}");
    let found = (0..SEEDS).map(|seed| seeds::run(TEST, seed, Some(&name))).find(|said| !said.succeeded);
    let said = found.unwrap_or_else(|| panic!("none of {SEEDS} seeds finds {name}"));
    let broken = said.text.lines().find(|line| line.contains("VIOLATED"));
    println!(
        "{}\n{}",
        broken.unwrap_or_else(|| panic!("{}", said.text)),
        seeds::replay(TEST, said.seed, Some(&name))
    );
    assert!(seeds::run(TEST, said.seed, None).succeeded, "{} without the mutant", said.seed);
}

#[test]
fn a_remote_clock_that_is_believed_is_found() {
    is_found(Mutant::BelievesRemoteClocks);
}

#[test]
fn a_status_without_a_generation_is_found() {
    is_found(Mutant::NoGeneration);
}

#[test]
fn a_replica_that_deletes_the_leases_of_others_is_found() {
    is_found(Mutant::DeletesOthersLeases);
}

#[test]
fn a_replica_that_writes_first_and_compares_then_is_found() {
    is_found(Mutant::ActsThenChecks);
}

#[test]
fn a_replica_that_begins_before_the_others_have_let_go_is_found() {
    is_found(Mutant::BeginsAtOnce);
}

#[test]
fn a_seed_is_replayed_identically_and_two_seeds_are_two_runs() {
    let runs: Vec<[String; 2]> = (0..3)
        .map(|seed| [(); 2].map(|()| seeds::run(TEST, seed, None)).map(|said| said.summary().to_owned()))
        .collect();
    for [first, second] in &runs {
        assert!(first.contains("digest"), "{first}");
        assert_eq!(first, second);
    }
    let digests = runs.iter().map(|[first, _]| first.split("digest").nth(1));
    assert_eq!(digests.collect::<BTreeSet<_>>().len(), runs.len(), "{runs:?}");
}
