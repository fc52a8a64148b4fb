//! `check`: what keeps kubervisor from its work, each finding with a stable code and a page of the docs.
//!
//! A check that fails ends no other one; what may not be read is skipped and said so.

mod cluster;
mod junit;
mod resources;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    PluginOutput,
    args::PluginSession,
    format::{CommandOutput, OutputFormat},
    names,
    style::{Style, Tone},
    table,
};
use crate::{adapters::kubernetes::untyped::ClusterError, exit::Exit, roles::output};

/// Interval between two rounds of `--wait`.
const ROUND: Duration = Duration::from_secs(1);

/// One thing that is checked: its code never changes its meaning.
#[derive(Clone, Copy, Debug)]
struct Check {
    code: &'static str,
    title: &'static str,
}

macro_rules! checks {
    ($($name:ident = $code:literal, $title:literal;)*) => {
        $(const $name: Check = Check { code: $code, title: $title };)*
        /// All of them.
        #[cfg(test)]
        const ALL: &[Check] = &[$($name),*];
    };
}

checks! {
    SERVER = "KV001", "the API server answers and is new enough";
    INSTALL_RIGHTS = "KV002", "you may install what kubervisor needs";
    NOT_OLDER = "KV003", "no older definition of the resource is in the way";
    DEFINITION = "KV101", "the definition of the resource is installed";
    DEFINITION_VERSION = "KV102", "the definition is of this version";
    CONTROLLER_RIGHTS = "KV103", "the controller has its rights";
    LEASES = "KV104", "the Leases of the controllers are renewed";
    SEEN = "KV201", "a controller has seen the resource";
    SPEC = "KV202", "the spec is valid";
    SERVICE = "KV203", "the Service is there and has a selector";
    READY = "KV204", "the resource is ready";
    GATED = "KV205", "the Service's selector has the switch";
    SOURCES = "KV206", "the controller reaches the breakers' sources";
    TEMPLATES = "KV207", "the pod templates have the label, the workloads' selectors do not";
    CONDITIONS = "KV208", "no condition tells of a problem";
    LEFT_PODS = "KV301", "no pod has marks of a resource that is gone";
    LEFT_SWITCHES = "KV302", "no Service has the switch without a resource";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum CheckOutcome {
    Passed,
    Warning,
    Failed,
    /// It could not be checked.
    Skipped,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckResult {
    code: &'static str,
    title: &'static str,
    /// What was checked, such as `kvs/web`.
    subject: String,
    outcome: CheckOutcome,
    /// What is wrong and what to do; empty when passed.
    message: String,
    doc: String,
}

impl Check {
    fn result(self, subject: &str, outcome: CheckOutcome, message: impl Into<String>) -> CheckResult {
        let Self { code, title } = self;
        let doc = format!("docs/checks.md#{}", code.to_lowercase());
        CheckResult { code, title, subject: subject.to_owned(), outcome, message: message.into(), doc }
    }

    fn passed(self, subject: &str) -> CheckResult {
        self.result(subject, CheckOutcome::Passed, "")
    }

    fn failed(self, subject: &str, message: impl Into<String>) -> CheckResult {
        self.result(subject, CheckOutcome::Failed, message)
    }

    fn warning(self, subject: &str, message: impl Into<String>) -> CheckResult {
        self.result(subject, CheckOutcome::Warning, message)
    }

    /// A check whose reading failed: a missing right of the user is no finding.
    fn unread(self, subject: &str, error: &ClusterError) -> CheckResult {
        let outcome = match error {
            ClusterError::Forbidden { .. } => CheckOutcome::Skipped,
            _ => CheckOutcome::Failed,
        };
        self.result(subject, outcome, error.to_string())
    }

    /// Failed with the message, if there is one.
    fn of(self, subject: &str, wrong: Option<String>) -> CheckResult {
        wrong.map_or_else(|| self.passed(subject), |why| self.failed(subject, why))
    }
}

/// The options of a check.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Checks what an installation needs, before it.
    #[arg(long)]
    pre: bool,
    /// Repeats the checks until none fails.
    #[arg(long)]
    wait: bool,
    /// How long --wait waits: 90s, 5m; then the exit code is 124.
    #[arg(long, value_name = "TIME", requires = "wait", default_value = "60s", value_parser = names::duration)]
    timeout: Duration,
    /// The controller's ServiceAccount, whose rights are checked.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "kubervisor/kubervisor", value_parser = account)]
    controller: ControllerAccount,
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ControllerAccount {
    namespace: String,
    name: String,
}

fn account(text: &str) -> Result<ControllerAccount, String> {
    let (namespace, name) =
        text.split_once('/').ok_or("write NAMESPACE/NAME, as in kubervisor/kubervisor")?;
    Ok(ControllerAccount { namespace: names::object(namespace)?, name: names::object(name)? })
}

/// Runs the checks, until none fails if that is asked for.
pub(super) async fn check(session: &PluginSession, args: &CheckArgs) -> Result<PluginOutput, Exit> {
    let deadline = Instant::now() + args.timeout;
    loop {
        let report = CheckReport { results: run(session, args).await };
        let (failed, due) = (report.failed(), Instant::now() + ROUND);
        if failed > 0 && args.wait && due < deadline {
            sleep_until(due).await;
            continue;
        }
        let data = session.format.render(&report, session.style)?;
        if failed > 0 && args.wait {
            output::print(&data)?;
            let seconds = args.timeout.as_secs();
            return Err(Exit::TimedOut(format!("{failed} checks still fail after {seconds} s")));
        }
        return Ok(PluginOutput { data, findings: failed > 0, ..PluginOutput::default() });
    }
}

async fn run(session: &PluginSession, args: &CheckArgs) -> Vec<CheckResult> {
    let mut results = vec![cluster::server(session).await];
    if args.pre {
        results.extend(cluster::before_installation(session).await);
        return results;
    }
    results.extend(cluster::definition(session).await);
    results.push(cluster::controller_rights(session, &args.controller).await);
    results.push(cluster::leases(session, &args.controller).await);
    results.extend(resources::check(session).await);
    results
}

/// All results of one round.
struct CheckReport {
    results: Vec<CheckResult>,
}

impl CheckReport {
    fn count(&self, outcome: CheckOutcome) -> usize {
        self.results.iter().filter(|result| result.outcome == outcome).count()
    }

    fn failed(&self) -> usize {
        self.count(CheckOutcome::Failed)
    }
}

impl CommandOutput for CheckReport {
    fn value(&self) -> Value {
        json!({"failed": self.failed(), "checks": self.results})
    }

    fn names(&self) -> Vec<String> {
        let failed = self.results.iter().filter(|result| result.outcome == CheckOutcome::Failed);
        failed.map(|result| format!("{} {}", result.code, result.subject)).collect()
    }

    fn text(&self, style: Style, wide: bool) -> String {
        let rows = self.results.iter().map(|result| {
            let (mark, _) = mark(result.outcome);
            vec![mark.to_owned(), result.code.to_owned(), result.subject.clone(), result.title.to_owned()]
        });
        let table = table::columns(&["", "CODE", "OF", "CHECK"], rows);
        let mut lines = table.lines();
        let header = lines.next().unwrap_or_default();
        let mut text = style.paint(Tone::Head, &style.fit(header)) + "\n";
        for (line, result) in lines.zip(&self.results) {
            let line = style.fit(line);
            let (mark, tone) = mark(result.outcome);
            let rest = line.strip_prefix(mark).unwrap_or(&line);
            text.push_str(&format!("{}{rest}\n", style.paint(tone, mark)));
            if !result.message.is_empty() {
                let message = format!("        {}", result.message);
                text.push_str(&format!("{}\n", style.wrap(&message, 8)));
            }
            if wide || matches!(result.outcome, CheckOutcome::Failed | CheckOutcome::Warning) {
                text.push_str(&format!("        see {}\n", result.doc));
            }
        }
        text + &format!(
            "{} passed, {} warnings, {} failed, {} skipped\n",
            self.count(CheckOutcome::Passed),
            self.count(CheckOutcome::Warning),
            self.failed(),
            self.count(CheckOutcome::Skipped)
        )
    }

    fn junit(&self) -> Option<String> {
        Some(junit::report(&self.results))
    }
}

fn mark(outcome: CheckOutcome) -> (&'static str, Tone) {
    match outcome {
        CheckOutcome::Passed => ("ok", Tone::Good),
        CheckOutcome::Warning => ("warn", Tone::Warning),
        CheckOutcome::Failed => ("FAILED", Tone::Bad),
        CheckOutcome::Skipped => ("skipped", Tone::Faint),
    }
}

/// Formats that only some commands have.
pub(super) fn junit_is_of_check(format: &OutputFormat) -> Result<(), Exit> {
    if *format == OutputFormat::Junit {
        return Err(Exit::Usage(
            "-o junit is of check and report only; see kubectl kubervisor --help".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_check_has_a_code_of_its_own_and_a_section_in_the_docs() {
        let docs = std::fs::read_to_string("docs/checks.md").unwrap();
        let codes: BTreeSet<_> = ALL.iter().map(|check| check.code).collect();
        assert_eq!(codes.len(), ALL.len(), "each code once");
        for Check { code, title } in ALL {
            assert!(
                docs.contains(&format!("\n## {code}\n\n**{title}**")),
                "docs/checks.md lacks {code}: {title}"
            );
        }
    }

    #[test]
    fn a_report_counts_shows_and_names_what_failed() {
        let results = vec![SERVER.passed("server"), READY.failed("kvs/web", "3 pods are not claimed")];
        let report = CheckReport { results };
        let text = report.text(Style::default(), false);
        assert!(
            text.contains(
                "FAILED   KV204   kvs/web   the resource is ready\n        3 pods are not claimed\n"
            ),
            "{text}"
        );
        assert!(text.contains("see docs/checks.md#kv204"), "{text}");
        assert!(text.ends_with("1 passed, 0 warnings, 1 failed, 0 skipped\n"), "{text}");
        assert_eq!(report.names(), ["KV204 kvs/web"]);
        assert_eq!(report.value()["checks"][1]["outcome"], "failed");
    }
}
