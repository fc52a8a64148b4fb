//! `kubervisor check`: the mistakes of manifests and policies.

use std::{collections::BTreeMap, path::PathBuf};

use super::output;
use crate::{
    api::{self, Context, Detectors, Manifest, Problem, Problems},
    exit::Exit,
    runtime,
};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Manifests and policies, YAML or JSON; `-` is stdin.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Sources that the manifests may name.
    #[command(flatten)]
    pub sources: runtime::SourcesArgs,
}

/// Checks every file; a line for each good `KubervisorService` on stdout, one for each mistake on stderr.
///
/// # Errors
/// [`Exit::Usage`] when any file has a mistake.
pub async fn run(args: Args) -> Result<(), Exit> {
    let sources = args.sources.read()?;
    // For any process, with any TTL.
    let context = Context { detectors: Detectors::All, timing: None, sources };
    let mut bad = 0;
    let mut seen = BTreeMap::new();
    for path in &args.files {
        let file = path.display().to_string();
        match api::load_all(path, context).and_then(|manifests| unique(&file, manifests, &mut seen)) {
            Ok(lines) => output::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?,
            Err(problems) => {
                bad += 1;
                output::notice(&format!("{problems}\n"));
            }
        }
    }
    match (bad, args.files.len()) {
        (0, _) => Ok(()),
        (_, 1) => Err(Exit::Usage("the file has mistakes".to_owned())),
        (_, all) => Err(Exit::Usage(format!("{bad} of {all} files have mistakes"))),
    }
}

/// A line for each manifest; a name that another manifest has, in any file, is a mistake.
fn unique(
    file: &str,
    manifests: Vec<Manifest>,
    seen: &mut BTreeMap<(Option<String>, String), String>,
) -> Result<Vec<String>, Problems> {
    let (mut lines, mut list) = (Vec::new(), Vec::new());
    for Manifest { namespace, policy, line, .. } in manifests {
        let breakers = policy.breakers.len();
        let name = policy.name;
        lines.push(format!(
            "{file}:{line}: KubervisorService {}{name}: {breakers} breaker{}, good",
            namespace.iter().map(|namespace| format!("{namespace}/")).collect::<String>(),
            if breakers == 1 { "" } else { "s" },
        ));
        if let Some(first) = seen.insert((namespace, name.clone()), format!("{file}:{line}")) {
            list.push(Problem {
                line,
                field: "metadata.name".to_owned(),
                what: format!("is {name:?}, as that of the one at {first}"),
                write: "write another name instead".to_owned(),
            });
        }
    }
    if list.is_empty() { Ok(lines) } else { Err(Problems { file: file.to_owned(), list }) }
}
