//! Checks the table in `docs/configuration.md`, which is made from the variables and the command line.
//!
//! `UPDATE_DOCS=1 cargo test --lib reference` rewrites it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;

use super::Cli;
use crate::config::variables::VARIABLES;

const MARK: &str = "<!-- from here on made from the code -->\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The flags of each variable: `run --store`.
fn flags() -> BTreeMap<String, Vec<String>> {
    fn collect(command: &clap::Command, flags: &mut BTreeMap<String, Vec<String>>) {
        for argument in command.get_arguments() {
            if let (Some(variable), Some(long)) = (argument.get_env(), argument.get_long()) {
                let flag = match command.get_name() {
                    "kubervisor" => format!("`--{long}`"),
                    name => format!("`{name} --{long}`"),
                };
                flags.entry(variable.to_string_lossy().into_owned()).or_default().push(flag);
            }
        }
        command.get_subcommands().for_each(|command| collect(command, flags));
    }
    let mut all = BTreeMap::new();
    collect(&Cli::command(), &mut all);
    all
}

fn table() -> String {
    let flags = flags();
    let mut table = format!("{MARK}| variable | flag | default | meaning |\n|---|---|---|---|\n");
    for row in VARIABLES {
        let flags = flags.get(row.name).map(|flags| flags.join(", ")).unwrap_or_default();
        writeln!(table, "| `{}` | {flags} | {} | {} |", row.name, row.default, row.meaning).unwrap();
    }
    table
}

#[test]
fn the_table_of_the_docs_is_the_one_in_the_code() {
    let path = root().join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (prose, written) = text.split_at(text.find(MARK).expect("the mark is in the file"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{prose}{}", table())).unwrap();
        return;
    }
    assert!(written == table(), "docs/configuration.md is behind: UPDATE_DOCS=1 cargo test --lib reference");
}

#[test]
fn every_variable_of_the_code_is_in_the_table_and_the_other_way_round() {
    let listed: BTreeSet<_> = VARIABLES.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(listed.len(), VARIABLES.len(), "each once");
    for variable in flags().keys() {
        assert!(listed.contains(variable), "{variable} is missing in src/config/variables.rs");
    }
    let mut read = BTreeSet::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(folder)).unwrap().flatten() {
            let path = entry.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                None if path.is_dir() => folders.push(path),
                Some("rs") if !path.ends_with("config/variables.rs") => {
                    read.extend(names(&fs::read_to_string(path).unwrap()));
                }
                _ => {}
            }
        }
    }
    for name in &listed {
        assert!(read.contains(name), "{name} is in the table, but is not read");
    }
    // Set for started commands; used by tests.
    let others = ["KUBERVISOR_JOB", "KUBERVISOR_ENPOINTS"].map(str::to_owned);
    for name in read.iter().filter(|name| !others.contains(name)) {
        assert!(listed.contains(name), "{name} is read, but is missing in src/config/variables.rs");
    }
}

/// The names in quotes that look like variables of ours, outside test modules.
fn names(source: &str) -> impl Iterator<Item = String> + '_ {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let ours = |text: &&str| {
        let rest = text.strip_prefix("KONTROL_").or_else(|| text.strip_prefix("KUBERVISOR_"));
        let name = |rest: &str| rest.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        *text == "NAMESPACE" || rest.is_some_and(|rest| !rest.is_empty() && name(rest))
    };
    code.split('"').filter(ours).map(str::to_owned)
}
