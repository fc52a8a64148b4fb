//! What a room may import, and how its files look.

use std::collections::BTreeMap;

use crate::source::{Module, home, modules};

/// What a room may name: rooms of this crate, and other crates (`None`: any).
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    crates: Option<&'static [&'static str]>,
}

const ROOMS: &[Room] = &[
    Room {
        name: "decide",
        rooms: &["decide"],
        crates: Some(&["std", "core", "alloc", "serde", "serde_json", "md5", "thiserror"]),
    },
    Room { name: "api", rooms: &["api", "decide"], crates: None },
    Room {
        name: "adapters",
        rooms: &["adapters", "api", "decide", "config", "alarms", "clock", "core_task", "exit", "metrics"],
        crates: None,
    },
    Room { name: "config", rooms: &["config", "decide", "exit"], crates: None },
];

/// Lines of a file, its tests included.
const LONGEST_FILE: usize = 400;

fn of(room: &str) -> impl Iterator<Item = &'static Module> {
    modules().values().filter(move |module| module.name[0] == room)
}

#[test]
fn every_room_imports_only_what_the_rule_allows() {
    let mut wrong = Vec::new();
    for room in ROOMS {
        for module in of(room.name) {
            let file = module.file.display();
            let named = module.inside.iter().filter_map(|path| home(path));
            for other in named.filter(|other| !room.rooms.contains(&other.name[0].as_str())) {
                wrong.push(format!("{file}: names crate::{}", other.name.join("::")));
            }
            let Some(allowed) = room.crates else { continue };
            for other in module.outside.iter().filter(|other| !allowed.contains(&other.as_str())) {
                // An enum of the file itself whose variants are imported, or a module that it has imported already.
                let local = module.inside.iter().any(|path| path.last() == Some(other));
                if !local && !module.types.contains(other) {
                    wrong.push(format!("{file}: imports {other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the rule of the rooms is broken:\n{}", wrong.join("\n"));
}

#[test]
fn the_core_reads_no_clock_and_spawns_nothing() {
    let forbidden = [
        "Instant::now",
        "SystemTime",
        "tokio::",
        "std::fs",
        "std::net::Tcp",
        "std::thread",
        "std::process",
        "rand::",
    ];
    for module in of("decide") {
        let code = module.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for word in forbidden {
            let file = module.file.display();
            assert!(!code.contains(word), "{file} uses {word}: time and I/O come in as arguments");
        }
    }
}

#[test]
fn every_module_says_why_it_is_there() {
    for module in modules().values() {
        assert!(module.text.trim_start().starts_with("//!"), "{} has no //! header", module.file.display());
    }
}

#[test]
fn files_stay_short() {
    let long = modules().values().filter(|module| module.text.lines().count() > LONGEST_FILE);
    let long: Vec<_> = long.map(|module| module.file.display().to_string()).collect();
    assert!(long.is_empty(), "more than {LONGEST_FILE} lines: {long:?}; give a part a file of its own");
}

#[test]
fn a_type_name_has_one_meaning() {
    // Each subcommand's arguments are its module's `Args`; a serde visitor is local to its function.
    let shared = ["Args", "Visitor"];
    let mut homes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for module in modules().values() {
        for name in module.types.iter().filter(|name| !shared.contains(&name.as_str())) {
            homes.entry(name).or_default().push(module.file.display().to_string());
        }
    }
    let twice: Vec<_> = homes.into_iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(twice.is_empty(), "one name, several types: {twice:#?}");
}
