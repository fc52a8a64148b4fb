//! The tests that `docs/bugs.md`, `docs/clustering.md` and `docs/field.md` name are there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The full names of the functions below `folder` (and of `file`), such as `selector::a_resource_may_come`.
fn names(folder: &Path, file: Option<&Path>) -> BTreeSet<String> {
    let mut files: Vec<PathBuf> = file.map(Path::to_path_buf).into_iter().collect();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut names = BTreeSet::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let module = path.strip_prefix(folder).unwrap_or(path).with_extension("");
        let module = module.to_string_lossy().replace('/', "::");
        for line in fs::read_to_string(path).unwrap().lines() {
            let Some((_, rest)) = line.split_once("fn ") else { continue };
            if let Some((name, _)) = rest.split_once(['(', '<']) {
                names.insert(format!("{module}::{name}"));
            }
        }
    }
    names
}

/// Each command in backticks that runs tests, with the tests' name or the part of it that it gives.
fn commands(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|command| Some((command, command.strip_prefix("cargo test ")?.split(' ').collect())))
}

#[test]
fn each_test_that_the_docs_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut missing) = (0, Vec::new());
    for page in ["docs/bugs.md", "docs/clustering.md", "docs/field.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        for (command, words) in commands(&text) {
            let (names, filter) = match words.as_slice() {
                ["--lib", filter, ..] => (names(&root.join("src"), None), filter),
                ["--test", binary, filter, ..] => {
                    let file = root.join("tests").join(binary).with_extension("rs");
                    assert!(file.is_file(), "{page}: {command}: there is no such test binary");
                    (names(&root.join("tests").join(binary), Some(&file)), filter)
                }
                _ => continue,
            };
            if !names.iter().any(|name| name.contains(filter)) {
                missing.push(format!("{page}: {command}"));
            }
            count += 1;
        }
    }
    assert!(missing.is_empty(), "these name no test: {missing:#?}");
    assert!(count > 190, "{count} commands: the pages are read");
}
