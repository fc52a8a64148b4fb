//! No files import each other in a circle.
//!
//! A file that names its own parent does not count: a parent declares its children, so every such pair would be one.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{home, modules};

type Name = &'static [String];

fn imports() -> BTreeMap<Name, BTreeSet<Name>> {
    let edges = modules().values().map(|module| {
        let from: Name = &module.name;
        let to = module.inside.iter().filter_map(|path| home(path)).map(|other| other.name.as_slice());
        (from, to.filter(|to| !from.starts_with(to)).collect())
    });
    edges.collect()
}

/// Everything that `from` reaches over one import or more.
fn reach(imports: &BTreeMap<Name, BTreeSet<Name>>, from: Name) -> BTreeSet<Name> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        open.extend(imports[next].iter().filter(|to| reached.insert(**to)));
    }
    reached
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports();
    let reached: BTreeMap<Name, BTreeSet<Name>> =
        imports.keys().map(|name| (*name, reach(&imports, name))).collect();
    let mut circles = BTreeSet::new();
    for (name, others) in reached.iter().filter(|(name, others)| others.contains(*name)) {
        let circle = others.iter().filter(|other| reached[*other].contains(name));
        circles.insert(circle.map(|part| part.join("::")).collect::<Vec<_>>());
    }
    assert!(circles.is_empty(), "files that import each other in a circle:\n{circles:#?}");
}
