//! A YAML or JSON document as a value with the line of each field.
//!
//! serde reports the first mistake only. A policy is written by hand, so the document is read once into a plain value
//! and a map from each field's path (`spec.breakers[0].name`) to its line, which every later check reports.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// One document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its content.
    pub value: Value,
    /// The line of its first field.
    pub line: u64,
    places: BTreeMap<String, Location>,
}

/// Where a field stands.
#[derive(Clone, Debug)]
struct Location {
    line: u64,
    /// An unquoted word that YAML 1.1 readers, such as the Kubernetes API server, take for a boolean.
    boolean_word: Option<Box<str>>,
}

/// Why a text is no YAML (or JSON).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// The line; 1 when the parser gives none.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self { value, line: 1, places: BTreeMap::new() }
    }
}

impl Document {
    /// The line of the field at `path`, or of the nearest one that contains it.
    pub fn line_of(&self, path: &str) -> u64 {
        let mut rest = path;
        loop {
            if let Some(place) = self.places.get(rest) {
                return place.line;
            }
            match rest.rfind(['.', '[']) {
                Some(at) => rest = &rest[..at],
                None => return self.line,
            }
        }
    }

    /// The same document as the member `parent` of a map.
    pub fn under(self, parent: &str) -> Self {
        let Self { value, line, places } = self;
        let below = |(path, place): (String, Location)| (join(parent, &path), place);
        let value = Value::Object(Map::from_iter([(parent.to_owned(), value)]));
        Self { value, line, places: places.into_iter().map(below).collect() }
    }

    /// The part at `path` as a document of its own.
    pub fn part(&self, path: &str, value: Value) -> Self {
        let inside = |(place, location): (&String, &Location)| {
            let rest = place.strip_prefix(path)?;
            Some((rest.strip_prefix('.').unwrap_or(rest).to_owned(), location.clone()))
        };
        let places = self.places.iter().filter_map(inside).collect();
        Self { value, line: self.line_of(path), places }
    }

    /// The value at `path` as it was written, if it is an unquoted `yes`, `no`, `on` or `off` in any case: a boolean in
    /// YAML 1.1, a text in 1.2.
    pub fn boolean_word(&self, path: &str) -> Option<&str> {
        self.places.get(path)?.boolean_word.as_deref()
    }
}

/// Reads every document of `text`; empty ones are left out.
///
/// # Errors
/// The text is no YAML, repeats a key, or holds more than any manifest could (aliases, depth, size).
pub fn read(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        // Far more than the largest manifest has.
        budget: serde_saphyr::budget! { max_events: 100_000, max_nodes: 50_000, max_depth: 32, max_documents: 256 },
    };
    let nodes: Vec<Spanned<YamlNode>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| SyntaxError {
            line: error.location().map_or(1, |at| at.line()),
            message: plain(&error),
        })?;
    Ok(nodes.into_iter().map(|node| document(text, node)).collect())
}

/// The first line of the parser's message, without the place, which is a field of its own, and without advice for
/// programmers.
fn plain(error: &serde_saphyr::Error) -> String {
    let said = error.to_string();
    let line = said.lines().next().unwrap_or_default();
    let end = [", set DuplicateKeyPolicy", " at line "].iter().filter_map(|tail| line.find(tail)).min();
    line[..end.unwrap_or(line.len())].to_owned()
}

fn document(text: &str, node: Spanned<YamlNode>) -> Document {
    let line = node.referenced.line();
    let mut places = BTreeMap::new();
    let value = place(text, node, "", line, &mut places);
    Document { value, line, places }
}

/// Turns the node into a plain value and records the place of each part. The place of a member is that of its key: a
/// block value starts on the next line.
fn place(
    text: &str,
    node: Spanned<YamlNode>,
    path: &str,
    line: u64,
    places: &mut BTreeMap<String, Location>,
) -> Value {
    let written = if matches!(node.value, YamlNode::Leaf(_)) { source(text, &node) } else { "" };
    let boolean_word = is_boolean_word(written).then(|| written.into());
    places.insert(path.to_owned(), Location { line, boolean_word });
    match node.value {
        YamlNode::Leaf(value) => value,
        YamlNode::List(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| {
                let line = item.referenced.line();
                place(text, item, &format!("{path}[{index}]"), line, places)
            })
            .collect(),
        YamlNode::Map(members) => {
            let mut map = Map::new();
            for (key, member) in members {
                let inner = join(path, &key.value);
                let line = key.referenced.line();
                map.insert(key.value, place(text, member, &inner, line, places));
            }
            Value::Object(map)
        }
    }
}

/// `path.member`, or `member` at the top.
pub fn join(path: &str, member: &str) -> String {
    if path.is_empty() { member.to_owned() } else { format!("{path}.{member}") }
}

/// The node as it was written, quotes included.
fn source<'a, T>(text: &'a str, node: &Spanned<T>) -> &'a str {
    let span = node.defined.span();
    let bounds = span.byte_offset().zip(span.byte_len());
    bounds
        .and_then(|(start, len)| {
            let start = usize::try_from(start).ok()?;
            text.get(start..start.checked_add(usize::try_from(len).ok()?)?)
        })
        .unwrap_or_default()
        .trim()
}

fn is_boolean_word(written: &str) -> bool {
    ["yes", "no", "on", "off", "y", "n"].iter().any(|word| word.eq_ignore_ascii_case(written))
}

/// A node of the document; its place is in the `Spanned` around it.
enum YamlNode {
    Leaf(Value),
    List(Vec<Spanned<YamlNode>>),
    Map(Vec<(Spanned<String>, Spanned<YamlNode>)>),
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E>(self, value: bool) -> Result<YamlNode, E> {
        Ok(YamlNode::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<YamlNode, E> {
        Ok(YamlNode::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<YamlNode, E> {
        Ok(YamlNode::Leaf(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<YamlNode, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(YamlNode::Leaf(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<YamlNode, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<YamlNode, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(YamlNode::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<YamlNode, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(YamlNode::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Document {
        let mut documents = read(text).unwrap();
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    #[test]
    fn every_field_has_the_line_of_its_key() {
        let document =
            one("kind: X\nspec:\n  breakers:\n  - name: a\n    outlier:\n      minPeers: 3\n  - name: b\n");
        assert_eq!(
            document.value,
            json!({"kind": "X", "spec": {"breakers": [{"name": "a", "outlier": {"minPeers": 3}}, {"name": "b"}]}})
        );
        assert_eq!(document.line_of("spec"), 2);
        assert_eq!(document.line_of("spec.breakers[0].outlier"), 5);
        assert_eq!(document.line_of("spec.breakers[0].outlier.minPeers"), 6);
        assert_eq!(document.line_of("spec.breakers[1].name"), 7);
    }

    #[test]
    fn a_missing_field_stands_where_it_should_have_been() {
        let document = one("spec:\n  breakers:\n  - name: a\n");
        assert_eq!(document.line_of("spec.service"), 1);
        assert_eq!(document.line_of("spec.breakers[0].keepalive.min"), 3);
        assert_eq!(document.line_of("metadata.name"), 1);
    }

    #[test]
    fn json_is_read_with_lines_too() {
        let document =
            one("{\n  \"kind\": \"X\",\n  \"spec\": {\n    \"service\": null,\n    \"n\": 1.5}\n}\n");
        assert_eq!(document.value, json!({"kind": "X", "spec": {"service": null, "n": 1.5}}));
        assert_eq!(document.line_of("spec.n"), 5);
    }

    #[test]
    fn documents_keep_the_lines_of_their_file() {
        let documents = read("kind: A\n---\n---\nkind: B\nspec:\n  x: 1\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].line_of("spec.x"), 6);
    }

    #[test]
    fn a_plain_yes_is_told_from_a_quoted_one() {
        let document = one("a: yes\nb: \"yes\"\nc: 'no'\nd: Off\ne: yesterday\nf: true\n");
        let words: Vec<_> =
            ["a", "b", "c", "d", "e", "f"].into_iter().filter_map(|p| document.boolean_word(p)).collect();
        assert_eq!(words, ["yes", "Off"]);
    }

    #[test]
    fn broken_yaml_a_repeated_key_and_a_bomb_are_refused_with_a_line() {
        assert_eq!(read("a: 1\nb: [1, 2\nc: 3\n").unwrap_err().line, 3);
        let repeated = read("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(repeated.line, 3);
        assert!(repeated.message.contains("duplicate"), "{repeated}");
        let mut bomb = String::from("a0: &a0 [x, x]\n");
        for level in 1..40 {
            let inner = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [*a{inner}, *a{inner}]\n"));
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read("a: .nan\n").is_err());
    }
}
