//! Results as a JUnit report, which CI systems show.

use std::fmt::Write as _;

use super::{CheckOutcome, CheckResult};
use crate::roles::output::xml;

pub(super) fn report(results: &[CheckResult]) -> String {
    let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
    let (failed, skipped) = (count(CheckOutcome::Failed), count(CheckOutcome::Skipped));
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _infallible = writeln!(
        text,
        "<testsuite name=\"kubectl kubervisor check\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">",
        results.len()
    );
    for CheckResult { code, title, subject, outcome, message, doc } in results {
        let name = escape(&format!("{code} {subject}: {title}"));
        let (message, doc) = (escape(message), escape(doc));
        let inner = match outcome {
            CheckOutcome::Passed => String::new(),
            CheckOutcome::Failed => {
                format!("<failure type=\"{code}\" message=\"{message}\">see {doc}</failure>")
            }
            CheckOutcome::Skipped => format!("<skipped message=\"{message}\"/>"),
            CheckOutcome::Warning => format!("<system-out>warning: {message}; see {doc}</system-out>"),
        };
        let _infallible =
            writeln!(text, "  <testcase classname=\"{code}\" name=\"{name}\">{inner}</testcase>");
    }
    text + "</testsuite>\n"
}

/// As text and in attributes. XML has no form at all for control characters.
fn escape(text: &str) -> String {
    xml(&text.replace(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'), " "))
}

#[cfg(test)]
mod tests {
    use super::super::{READY, SERVER};
    use super::*;

    #[test]
    fn findings_are_failures_and_texts_are_escaped() {
        let results = [SERVER.passed("server"), READY.failed("kvs/web", "a < b & \"c\"\u{1b}")];
        let text = report(&results);
        assert!(text.contains("tests=\"2\" failures=\"1\""), "{text}");
        assert!(text.contains("message=\"a &lt; b &amp; &quot;c&quot; \""), "{text}");
        assert!(text.contains("<testcase classname=\"KV001\""), "{text}");
    }
}
