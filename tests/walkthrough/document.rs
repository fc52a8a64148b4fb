//! The walk-through as steps: what is typed, and what it prints.

/// A command of the document with the output that stands below it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) expected: Vec<String>,
}

impl Step {
    /// Whether it changes nothing, so that it may be repeated.
    pub(crate) fn looks(&self) -> bool {
        ["kubectl get ", "kubectl describe ", "kubectl kubervisor", "curl "]
            .iter()
            .any(|look| self.command.starts_with(look))
    }
}

/// All steps, in order.
pub(crate) fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside && line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number + 1, command: command.to_owned(), expected: Vec::new() });
        } else if let (Some(more), Some(step)) = (line.strip_prefix("> "), steps.last_mut()) {
            step.command = format!("{}\n{more}", step.command);
        } else if let Some(step) = steps.last_mut() {
            step.expected.push(line.to_owned());
        }
    }
    steps
}

/// The first expected line that the output does not have in its place.
pub(crate) fn missing<'a>(expected: &'a [String], output: &str) -> Option<&'a str> {
    let mut lines = output.lines();
    expected
        .iter()
        .map(String::as_str)
        .filter(|wanted| !wanted.trim().is_empty())
        .find(|wanted| !lines.any(|line| fits(wanted, line)))
}

fn fits(wanted: &str, line: &str) -> bool {
    let (wanted, line) = (spaced(wanted), spaced(line));
    let mut parts = wanted.split('…').map(str::trim);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// With one space wherever there is white space.
fn spaced(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_document_is_commands_with_their_outputs() {
    let text = "Prose\n$ no\n```console\n$ kubectl get a |\n> cat\nx\n$ b\n```\n```yaml\n$ no: 1\n```\n```console\n$ c\n```\n";
    let step = |line, command: &str, expected: &[&str]| Step {
        line,
        command: command.to_owned(),
        expected: expected.iter().map(|line| (*line).to_owned()).collect(),
    };
    let wanted = [step(4, "kubectl get a |\ncat", &["x"]), step(7, "b", &[]), step(13, "c", &[])];
    assert_eq!(steps(text), wanted);
    assert!(wanted[0].looks() && !wanted[1].looks());
}

#[test]
fn lines_must_be_there_in_order_and_an_ellipsis_is_any_text() {
    let lacks = |expected: &[&str], output: &str| {
        let expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
        missing(&expected, output).map(str::to_owned)
    };
    let output = "NAME   READY\nweb-12   1/1   3s\nend\n";
    assert_eq!(lacks(&["NAME READY", "web-…  1/1  …", "…"], output), None);
    assert_eq!(lacks(&["end", "NAME READY"], output).as_deref(), Some("NAME READY"));
    assert_eq!(lacks(&["web-… 0/1 …"], output).as_deref(), Some("web-… 0/1 …"));
    assert_eq!(lacks(&["en"], output).as_deref(), Some("en"));
    assert_eq!(lacks(&["…nd"], output), None);
}
