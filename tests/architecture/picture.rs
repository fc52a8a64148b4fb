//! `docs/architecture.md` names files and types; they exist.

use std::{fs, path::Path};

use crate::source::modules;

/// Every text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_picture_names_files_and_types_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let mut stops = 0;
    let prefix =
        ["src/", "tests/", "docs/", "demo/", "plugins/", "examples/", "scripts/", "benches/", "fuzz/"];
    for file in quoted(&picture).filter(|text| prefix.iter().any(|start| text.starts_with(start))) {
        assert!(root.join(file).exists(), "docs/architecture.md names {file}, which does not exist");
    }
    // A stop of a flow: | what happens | `file` | `Type` |
    for line in picture.lines().filter(|line| line.starts_with('|') && line.contains("`src/")) {
        let parts: Vec<&str> = quoted(line).collect();
        let Some(file) = parts.iter().find(|part| part.starts_with("src/") && part.ends_with(".rs")) else {
            continue;
        };
        let text = fs::read_to_string(root.join(file)).unwrap();
        for name in parts.iter().filter(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_')) {
            let kinds = ["struct", "enum", "trait", "fn", "type", "mod"];
            let defined = kinds.iter().any(|kind| text.contains(&format!("{kind} {name}")));
            assert!(defined, "docs/architecture.md: {file} defines no {name}");
            stops += 1;
        }
    }
    assert!(stops >= 20, "only {stops} stops: is the table's form still | what | `file` | `Type` |?");
    let top: Vec<_> = modules().keys().filter(|name| name.len() == 1).map(|name| &name[0]).collect();
    for room in top.into_iter().filter(|room| *room != "lib") {
        let named = picture.contains(&format!("src/{room}/")) || picture.contains(&format!("src/{room}.rs"));
        assert!(named, "docs/architecture.md does not show the room src/{room}");
    }
}
