//! Reads `src/` with a Rust parser: which file is which module, what it imports, which types it defines.
//!
//! Items under `#[cfg(test)]` and folders named `tests` are left out: tests may import what they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use syn::visit::{self, Visit};

/// One file of `src/`.
pub(crate) struct Module {
    /// The file, from the root of the repository.
    pub(crate) file: PathBuf,
    /// Its place in the crate: `["decide", "gate"]`.
    pub(crate) name: Vec<String>,
    /// The text.
    pub(crate) text: String,
    /// Every path that it imports or names, from the crate's root: `["decide", "gate", "Plan"]`.
    pub(crate) inside: BTreeSet<Vec<String>>,
    /// Other crates that it imports.
    pub(crate) outside: BTreeSet<String>,
    /// Structs, enums, traits and aliases that it defines.
    pub(crate) types: Vec<String>,
}

/// All modules by name, read once.
pub(crate) fn modules() -> &'static BTreeMap<Vec<String>, Module> {
    static MODULES: OnceLock<BTreeMap<Vec<String>, Module>> = OnceLock::new();
    MODULES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = files(&root.join("src"));
        let all = files.iter().map(|file| read(root, file));
        all.filter(|module| module.name != ["main"]).map(|module| (module.name.clone(), module)).collect()
    })
}

/// The module that a path leads to: the longest prefix that is a file.
pub(crate) fn home(path: &[String]) -> Option<&'static Module> {
    (1..=path.len()).rev().find_map(|length| modules().get(&path[..length]))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn read(root: &Path, file: &Path) -> Module {
    let from_src = file.strip_prefix(root.join("src")).unwrap().with_extension("");
    let name: Vec<String> = from_src.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let text = fs::read_to_string(file).unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    parse(file.strip_prefix(root).unwrap().to_owned(), name, text, &parsed)
}

fn parse(file: PathBuf, name: Vec<String>, text: String, parsed: &syn::File) -> Module {
    let place = if name == ["lib"] { Vec::new() } else { name.clone() };
    let children = parsed.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    let mut reader = Reader {
        place,
        children: children.collect(),
        inside: BTreeSet::new(),
        outside: BTreeSet::new(),
        types: Vec::new(),
    };
    reader.visit_file(parsed);
    let Reader { inside, outside, types, .. } = reader;
    Module { file, name, text, inside, outside, types }
}

struct Reader {
    place: Vec<String>,
    children: BTreeSet<String>,
    inside: BTreeSet<Vec<String>>,
    outside: BTreeSet<String>,
    types: Vec<String>,
}

impl Reader {
    /// Takes a path in if it leads into this crate; otherwise returns the name of the other crate.
    fn take(&mut self, path: &[String]) -> Option<String> {
        let first = path.first()?.as_str();
        let (base, rest) = match first {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (self.place.clone(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                (self.place[..self.place.len().saturating_sub(ups)].to_vec(), &path[ups..])
            }
            child if self.children.contains(child) => (self.place.clone(), path),
            other => return Some(other.to_owned()),
        };
        self.inside.insert([&base, rest].concat());
        None
    }

    fn take_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let whole = match tree {
            syn::UseTree::Path(path) => return self.take_tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.take_tree(tree, before));
            }
            syn::UseTree::Name(name) if name.ident == "self" => before.to_vec(),
            syn::UseTree::Name(name) => with(&name.ident),
            syn::UseTree::Rename(rename) => with(&rename.ident),
            syn::UseTree::Glob(_) => before.to_vec(),
        };
        if let Some(outside) = self.take(&whole) {
            self.outside.insert(outside);
        }
    }
}

fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if for_tests(attributes(item)) {
            return;
        }
        match item {
            syn::Item::Use(item) => return self.take_tree(&item.tree, &[]),
            syn::Item::Struct(item) => self.types.push(item.ident.to_string()),
            syn::Item::Enum(item) => self.types.push(item.ident.to_string()),
            syn::Item::Trait(item) => self.types.push(item.ident.to_string()),
            syn::Item::Type(item) => self.types.push(item.ident.to_string()),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            let _other_crate_or_type = self.take(&parts);
        }
        visit::visit_path(self, path);
    }
}

#[test]
fn the_reader_sees_groups_paths_and_other_crates_and_leaves_tests_out() {
    let text = "
        mod child;
        use std::fmt;
        use crate::{decide::key::Key, clock::{self, Clock}};
        struct Kept { at: super::time::Moment }
        fn f() { child::run(); crate::alarms::raise() }
        #[cfg(test)] mod tests { use crate::adapters::wire; struct Hidden; }
    ";
    let parsed = syn::parse_file(text).unwrap();
    let name = vec!["roles".to_owned(), "x".to_owned()];
    let module = parse(PathBuf::from("src/roles/x.rs"), name, text.to_owned(), &parsed);
    let inside: Vec<String> = module.inside.iter().map(|path| path.join("::")).collect();
    let expected = [
        "alarms::raise",
        "clock",
        "clock::Clock",
        "decide::key::Key",
        "roles::time::Moment",
        "roles::x::child::run",
    ];
    assert_eq!(inside, expected);
    assert_eq!(module.outside.into_iter().collect::<Vec<_>>(), ["std"]);
    assert_eq!(module.types, ["Kept"]);
}
