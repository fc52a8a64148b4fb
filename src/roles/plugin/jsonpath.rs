//! `-o jsonpath=TEMPLATE`, with the templates that kubectl takes.
//!
//! The paths are those of RFC 9535 in kubectl's shorter form: `{.items[*].metadata.name}`, with `\.` for a dot in a key,
//! texts in quotes, and `{range PATH}...{end}`.

use jsonpath_rust::{JsonPath, parser::parse_json_path};
use serde_json::Value;

/// A template that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// An RFC 9535 path.
    Path(String),
    Range(String, Vec<Part>),
}

/// Deepest nesting of ranges.
const DEPTH: usize = 8;

impl Template {
    /// Reads a template; one without braces is a single path.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let braced = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        let mut rest = braced.as_str();
        let parts = parts(&mut rest, 0)?;
        Ok(Self { parts })
    }

    /// The values of `value`; a path without any is an empty text, as with kubectl.
    pub(super) fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        render(&self.parts, value, &mut text);
        text
    }
}

/// The parts up to the end, or with `depth` above 0 up to `{end}`.
fn parts(rest: &mut &str, depth: usize) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (text, after) = rest.split_once('{').unwrap_or((rest, ""));
        let opened = text.len() < rest.len();
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        *rest = after;
        if !opened {
            break;
        }
        let end = closing(after).ok_or_else(|| format!("{{{after} has no closing brace"))?;
        let inner = after.get(..end).unwrap_or_default().trim();
        *rest = after.get(end + 1..).unwrap_or_default();
        match inner.split_once(' ').map_or((inner, ""), |(word, path)| (word, path.trim())) {
            ("end", "") if depth > 0 => return Ok(parts),
            ("end", "") => return Err("{end} without {range}".to_owned()),
            ("range", _) if depth >= DEPTH => return Err(format!("more than {DEPTH} nested ranges")),
            ("range", path) => parts.push(Part::Range(standard(path)?, self::parts(rest, depth + 1)?)),
            _ if inner.starts_with('"') || inner.starts_with('\'') => parts.push(Part::Text(literal(inner)?)),
            _ => parts.push(Part::Path(standard(inner)?)),
        }
    }
    if depth > 0 { Err("{range} without {end}".to_owned()) } else { Ok(parts) }
}

/// The index of the brace that ends the part, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
        None
    })
}

/// A text in quotes, with `\n`, `\t` and escaped quotes.
fn literal(quoted: &str) -> Result<String, String> {
    let mut chars = quoted.chars();
    let (open, close) = (chars.next(), chars.next_back());
    if open != close {
        return Err(format!("{quoted} has no closing quote"));
    }
    let (mut text, mut escaped) = (String::new(), false);
    for c in chars {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (false, c) => text.push(c),
            (true, c) => {
                escaped = false;
                text.push(match c {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
            }
        }
    }
    Ok(text)
}

/// kubectl's path in the form of RFC 9535.
fn standard(path: &str) -> Result<String, String> {
    let mut rest = path.trim_start_matches(['$', '@']);
    let mut standard = "$".to_owned();
    if !rest.is_empty() && !rest.starts_with(['.', '[']) {
        return Err(format!("{path} is no path: it begins with a dot, as in .metadata.name"));
    }
    while let Some(next) = rest.chars().next() {
        let used = if next == '[' {
            let end = bracket(rest).ok_or_else(|| format!("{path} has no closing bracket"))?;
            standard.push_str(rest.get(..=end).unwrap_or_default());
            end + 1
        } else {
            let (name, used) = member(rest.trim_start_matches('.'));
            let dots = rest.len() - rest.trim_start_matches('.').len();
            match name.as_str() {
                "" if dots == 1 && path == "." => {}
                "" => return Err(format!("{path} ends with a dot, or has a dot before a bracket")),
                "*" => standard.push_str(if dots > 1 { "..*" } else { ".*" }),
                name => {
                    let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
                    standard.push_str(&format!("{}['{quoted}']", if dots > 1 { ".." } else { "" }));
                }
            }
            dots + used
        };
        rest = rest.get(used..).unwrap_or_default();
    }
    parse_json_path(&standard).map_err(|error| format!("{path} is no path: {error}"))?;
    Ok(standard)
}

/// The index of the bracket that closes the first one.
fn bracket(text: &str) -> Option<usize> {
    let (mut quote, mut open) = (None, 0_usize);
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (Some(begun), c) if begun == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => open += 1,
            (None, ']') => open -= 1,
            _ => {}
        }
        (c == ']' && open == 0 && quote.is_none()).then_some(at)
    })
}

/// A member's name, and its length in bytes as written.
fn member(text: &str) -> (String, usize) {
    let (mut name, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (false, '.' | '[') => return (name, at),
            (_, c) => {
                name.push(c);
                escaped = false;
            }
        }
    }
    (name, text.len())
}

fn render(parts: &[Part], value: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => {
                let found = value.query(path).unwrap_or_default();
                text.push_str(&found.into_iter().map(shown).collect::<Vec<_>>().join(" "));
            }
            Part::Range(path, body) => {
                let found = value.query(path).unwrap_or_default();
                found.into_iter().for_each(|item| render(body, item, text));
            }
        }
    }
}

/// A string without quotes, and without the control characters that a terminal would execute.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str) -> String {
        let value = json!({
            "items": [
                { "metadata": { "name": "web", "labels": { "a.b/c": "x" } }, "n": 1,
                  "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Panic", "status": "False" }] } },
                { "metadata": { "name": "api\u{1b}[2J" }, "n": null },
            ],
        });
        Template::parse(template).unwrap().render(&value)
    }

    #[test]
    fn paths_are_those_of_kubectl() {
        assert_eq!(rendered("{.items[0].metadata.name}"), "web");
        assert_eq!(rendered(".items[0].metadata.name"), "web", "braces may be left out");
        assert_eq!(rendered("{$.items[*].n}"), "1 null");
        assert_eq!(rendered(r"{.items[0].metadata.labels.a\.b/c}"), "x");
        assert_eq!(rendered(r#"{.items[*].status.conditions[?(@.type=="Ready")].status}"#), "True");
        assert_eq!(rendered("{..name}"), "web api[2J", "without control characters");
        assert_eq!(rendered("{.nothing}"), "");
        assert_eq!(rendered("{.items[0].metadata.labels}"), r#"{"a.b/c":"x"}"#);
    }

    #[test]
    fn ranges_and_texts_are_repeated_for_each_item() {
        let template = r#"{range .items[*]}{.n}{"\t"}{.metadata.name}{"\n"}{end}of {.items[0].n}"#;
        assert_eq!(rendered(template), "1\tweb\nnull\tapi[2J\nof 1");
    }

    #[test]
    fn a_template_that_is_wrong_is_refused_with_its_mistake() {
        for (template, words) in [
            ("{.items", "closing brace"),
            ("{.items[0}", "closing"),
            ("{range .items[*]}x", "without {end}"),
            ("{end}", "without {range}"),
            ("{items}", "begins with a dot"),
            ("{.items.}", "ends with a dot"),
            ("{\"x}", "closing"),
            ("{.items[?(@.a ==)]}", "no path"),
        ] {
            let refused = Template::parse(template).unwrap_err();
            assert!(refused.contains(words), "{template}: {refused}");
        }
        let deep = "{range .a}".repeat(20) + &"{end}".repeat(20);
        assert!(Template::parse(&deep).unwrap_err().contains("nested"));
    }
}
