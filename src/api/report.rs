//! The mistakes of one document, each with its line.

use serde_json::Value;

use super::{Problem, fields, located::Document};

/// Collects mistakes, at most one for each field.
#[derive(Debug)]
pub(super) struct Report<'a> {
    document: &'a Document,
    list: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self { document, list: Vec::new() }
    }

    /// Adds a mistake, unless the field or one that contains it has one already, of which this one may be a result.
    pub(super) fn add(&mut self, path: &str, what: impl Into<String>, write: impl Into<String>) {
        if !self.has_mistake(path) {
            let line = self.document.line_of(path);
            self.list.push(Problem { line, field: path.to_owned(), what: what.into(), write: write.into() });
        }
    }

    /// Adds a mistake, so that there is no value.
    pub(super) fn refuse<T>(&mut self, path: &str, what: &str, write: &str) -> Option<T> {
        self.add(path, what, write);
        None
    }

    /// Adds that the value does not fit; what to write is the field's own text.
    pub(super) fn misfit(&mut self, path: &str, what: impl Into<String>) {
        self.add(path, what, fields::instead(path));
    }

    /// Adds that a required field is missing.
    pub(super) fn missing(&mut self, path: &str) {
        let write = fields::find(path).map_or_else(String::new, |field| format!("write {}", field.write));
        self.add(path, "is missing", write);
    }

    /// Whether the field, or one that contains it, has a mistake.
    pub(super) fn has_mistake(&self, path: &str) -> bool {
        self.list.iter().any(|problem| contains(&problem.field, path))
    }

    /// Whether the field, or one inside it, has a mistake.
    pub(super) fn has_mistake_inside(&self, path: &str) -> bool {
        self.list.iter().any(|problem| contains(path, &problem.field))
    }

    pub(super) fn line_of(&self, path: &str) -> u64 {
        self.document.line_of(path)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn into_list(self) -> Vec<Problem> {
        self.list
    }
}

/// Whether the field at `outer` is, or contains, the one at `inner`.
fn contains(outer: &str, inner: &str) -> bool {
    !outer.is_empty()
        && inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The value's type, and the value if it is short, for a message.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {:?}", text.chars().take(64).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}
