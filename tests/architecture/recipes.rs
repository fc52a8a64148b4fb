//! The recipes of CONTRIBUTING.md, followed for something that exists: the files that name it are the files of the recipe.

use std::{collections::BTreeSet, fs, path::Path};

use crate::source::modules;

/// The files of the row that begins so; a folder stands for one file in it.
fn recipe(to_add: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("CONTRIBUTING.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with(&format!("| {to_add} |"))).unwrap();
    row.split('`').skip(1).step_by(2).filter(|part| part.starts_with("src/")).map(str::to_owned).collect()
}

/// The files whose code outside tests has one of `words`.
fn naming(words: &[&str]) -> BTreeSet<String> {
    let of_code = |text: &str| text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    let found = modules().values().filter(|module| {
        let code = of_code(&module.text);
        words.iter().any(|word| code.contains(word))
    });
    found.map(|module| module.file.display().to_string()).collect()
}

fn holds(to_add: &str, at_most: usize, words: &[&str]) {
    let (recipe, naming) = (recipe(to_add), naming(words));
    assert!(recipe.len() <= at_most, "{to_add}: more than {at_most} files: {recipe:?}");
    assert!(!naming.is_empty(), "{to_add}: nothing names {words:?}");
    let covered = |file: &String| {
        recipe.iter().any(|listed| listed == file || listed.ends_with('/') && file.starts_with(listed))
    };
    let others: Vec<_> = naming.iter().filter(|file| !covered(file)).collect();
    assert!(others.is_empty(), "{to_add}: {words:?} also stands in {others:?}");
}

#[test]
fn a_detector_takes_five_files() {
    holds("a detector", 5, &["Detector::Deviation", "Self::Deviation", "RawContinuous", "deviation::judge"]);
}

/// `Flag` exists under `cfg(test)` only: `src/decide/detect/flag.rs` tests that it works.
#[test]
fn the_detector_that_follows_the_recipe_stands_in_its_five_files_and_nowhere_else() {
    let found = naming(&["Flag(", "PayloadFlag", "payload_flag", "payloadFlag", "mod flag;"]);
    let mut followed = recipe("a detector");
    assert!(followed.remove("src/decide/detect/") && followed.insert("src/decide/detect/flag.rs".to_owned()));
    assert_eq!(found, followed);
}

#[test]
fn an_endpoints_format_takes_two_files() {
    holds("an endpoints format", 2, &["EndpointsFormat::Nginx", " Nginx,"]);
}

#[test]
fn a_condition_takes_two_files() {
    holds(
        "a condition",
        2,
        &["\"LedgerFull\", EntryState", "\"LedgerFull\", ConditionStatus", "fn ledger_full"],
    );
}

#[test]
fn a_store_takes_four_files() {
    holds("a store", 4, &["StoreConfig::Embedded", "Embedded {"]);
}

#[test]
fn an_admin_page_takes_three_files() {
    holds("an admin page", 3, &["fn ensemble(&self) -> Value", "\"/ensemble\", get"]);
}

#[test]
fn an_alarm_of_a_fleet_takes_two_files() {
    holds("an alarm of a fleet", 2, &["OnePerNode, \"", "AlarmReason::OnePerNode,"]);
}
