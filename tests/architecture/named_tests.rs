//! The documents name tests, as `cargo test --test BINARY FILTER` or `cargo test --lib FILTER`; they exist.

use std::{collections::BTreeSet, fs, path::Path};

/// Documents whose commands are checked, and how many of them there are at least.
const DOCUMENTS: [(&str, usize); 1] = [("docs/clustering.md", 40)];

/// A command that names tests.
struct Command {
    /// Of `--test`; `None`: `--lib`.
    binary: Option<String>,
    /// What a test's path has to contain.
    filter: Option<String>,
}

/// The `cargo test` commands in backticks.
fn commands(document: &str) -> Vec<Command> {
    let quoted = document.split('`').skip(1).step_by(2);
    let words = quoted.filter_map(|text| text.split_once("cargo test ")).map(|(_, words)| words);
    words.filter_map(command).collect()
}

fn command(words: &str) -> Option<Command> {
    let mut words = words.split(" -- ").next()?.split_whitespace();
    let binary = match words.next()? {
        "--lib" => None,
        "--test" => Some(words.next()?.to_owned()),
        _ => return None,
    };
    Some(Command { binary, filter: words.next().map(str::to_owned) })
}

/// The paths of all functions in this file or folder that may be tests, as a test harness names them: they take nothing, a
/// backend, or on lines of their own what a property is to hold for.
fn functions(file: &Path, module: &str, found: &mut BTreeSet<String>) {
    if file.is_dir() {
        for entry in fs::read_dir(file).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let name = name.strip_suffix(".rs").unwrap_or(&name);
            functions(&entry.path(), &format!("{module}{name}::"), found);
        }
    } else if let Ok(text) = fs::read_to_string(file) {
        let names = text.lines().filter_map(|line| line.split_once("fn ")?.1.split_once('('));
        let without_input =
            |rest: &str| rest.is_empty() || rest.starts_with(')') || rest.starts_with("backend: ");
        let tests = names.filter(|(_, rest)| without_input(rest));
        found.extend(tests.map(|(name, _)| format!("{module}{name}")));
    }
}

/// The tests of one binary.
fn tests(root: &Path, binary: Option<&str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match binary {
        Some(binary) => {
            let file = root.join(format!("tests/{binary}.rs"));
            assert!(file.exists(), "there is no test binary {binary}");
            functions(&file, "", &mut found);
            functions(&root.join(format!("tests/{binary}")), "", &mut found);
        }
        None => functions(&root.join("src"), "", &mut found),
    }
    found
}

#[test]
fn the_tests_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, at_least) in DOCUMENTS {
        let commands = commands(&fs::read_to_string(root.join(document)).unwrap());
        assert!(
            commands.len() >= at_least,
            "{document} names only {} tests: has its form changed?",
            commands.len()
        );
        for Command { binary, filter } in commands {
            let tests = tests(root, binary.as_deref());
            let filter = filter.unwrap_or_default();
            let named = tests.iter().any(|test| test.contains(&filter));
            assert!(
                named,
                "{document}: no test of {} has {filter} in its name",
                binary.as_deref().unwrap_or("--lib")
            );
        }
    }
}
