//! Holds the rule of the house: `roles → adapters → decide`, `api → decide`, and `decide` needs nothing but
//! std, serde with serde_json's values, a hash and an error derive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a room may name: its own crate's rooms, and outside crates (`None`: any).
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
        rooms: &["adapters", "api", "decide", "config", "alarms", "clock", "exit"],
        crates: None,
    },
    Room { name: "config", rooms: &["config", "adapters", "decide", "exit"], crates: None },
];

fn sources(room: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![src.join(format!("{room}.rs"))];
    let mut folders = vec![src.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // A folder of tests may use what tests use.
            if path.is_dir() && path.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The source without comments and without its test module, which may use what it likes.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first segments of all `use` items, and for `crate::` paths anywhere the second.
fn imports(code: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut crates = BTreeSet::new();
    let mut rooms = BTreeSet::new();
    for line in code.lines().map(str::trim_start) {
        let item = line.strip_prefix("pub use ").or_else(|| line.strip_prefix("use "));
        if let Some(first) = item.map(word).filter(|w| !w.is_empty()) {
            crates.insert(first);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            // `use crate::{a::b, c}`: the words right after the brace and after commas at its own depth.
            Some(group) => rooms.extend(group_heads(group)),
            None => {
                rooms.insert(word(rest));
            }
        }
    }
    (crates, rooms)
}

fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut head, mut depth, mut done) = (Vec::new(), String::new(), 0, false);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(std::mem::take(&mut head));
                done = false;
            }
            ':' if depth == 0 => done = true,
            c if depth == 0 && !done && (c.is_alphanumeric() || c == '_') => head.push(c),
            _ => {}
        }
    }
    heads.push(head);
    heads.retain(|h| !h.is_empty());
    heads
}

#[test]
fn every_room_imports_only_what_the_rule_allows() {
    let all_rooms: BTreeSet<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap()
        .flatten()
        .filter_map(|e| e.path().file_stem().map(|s| s.to_string_lossy().into_owned()))
        .collect();
    let mut wrong = Vec::new();
    for room in ROOMS {
        for path in sources(room.name) {
            let (crates, rooms) = imports(&code(&path));
            for named in rooms.iter().filter(|r| all_rooms.contains(*r) && !room.rooms.contains(&r.as_str()))
            {
                wrong.push(format!("{}: names crate::{named}", path.display()));
            }
            let Some(allowed) = room.crates else { continue };
            let own = ["crate", "super", "self"];
            for named in
                crates.iter().filter(|c| !own.contains(&c.as_str()) && c.chars().any(char::is_lowercase))
            {
                let local = sources(room.name)
                    .iter()
                    .any(|p| p.file_stem().is_some_and(|s| s.to_string_lossy() == named.as_str()));
                if !allowed.contains(&named.as_str()) && !local {
                    wrong.push(format!("{}: imports {named}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the rule of the house is broken:\n{}", wrong.join("\n"));
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
    for path in sources("decide") {
        let code = code(&path);
        for word in forbidden {
            assert!(
                !code.contains(word),
                "{} uses {word}: time and I/O come in as arguments",
                path.display()
            );
        }
    }
}

#[test]
fn every_module_says_why_it_is_there() {
    for room in ["decide", "api", "adapters", "roles", "config"] {
        for path in sources(room) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.trim_start().starts_with("//!"), "{} has no //! header", path.display());
        }
    }
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let (crates, rooms) = imports(
        "use std::fmt;\nuse crate::{decide::key::Key, clock::{A, B}, alarms};\nlet x = crate::config::C;",
    );
    assert!(crates.contains("std"));
    assert_eq!(rooms.into_iter().collect::<Vec<_>>(), ["alarms", "clock", "config", "decide"]);
}
