//! `docs/architecture.md` names files and types; they exist.

use std::{fs, path::Path};

use crate::source::modules;

/// Every text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands between two backticks, if that is all.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`').filter(|text| !text.contains('`'))
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
    for line in picture.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, file, name] = cells[..] else { continue };
        let (Some(file), Some(name)) = (code(file), code(name)) else { continue };
        let text = fs::read_to_string(root.join(file)).unwrap();
        let kinds = ["struct", "enum", "trait", "fn", "type"];
        let defined = kinds.iter().any(|kind| text.contains(&format!("{kind} {name}")));
        assert!(defined, "docs/architecture.md: {file} defines no {name}");
        stops += 1;
    }
    assert!(stops >= 20, "only {stops} stops: is the table's form still | what | `file` | `Type` |?");
    let top: Vec<_> = modules().keys().filter(|name| name.len() == 1).map(|name| &name[0]).collect();
    for room in top.into_iter().filter(|room| *room != "lib") {
        let named = picture.contains(&format!("src/{room}/")) || picture.contains(&format!("src/{room}.rs"));
        assert!(named, "docs/architecture.md does not show the room src/{room}");
    }
}
