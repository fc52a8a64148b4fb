//! From a file to raw manifests: picks the documents of our kind, and reports unknown fields, wrong types and labels
//! that are no texts.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Value, json};
use serde_path_to_error::{Segment, Track};

use super::{
    API_VERSION, Context, FILE_LIMIT, KIND, Manifest, Problem, fields, labels,
    located::{self, Document, join},
    raw::RawResource,
    report::{Report, describe},
    validate,
};

/// Mistakes in one document after which reading stops.
const MOST_MISTAKES: usize = 64;

/// The first bytes of the file, or of stdin for `-`: one more than the limit, so that a larger file is recognised.
pub(crate) fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file: Box<dyn Read> =
        if path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(File::open(path)?) };
    file.by_ref().take(FILE_LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Every `KubervisorService` of the text, or every mistake in it.
pub(super) fn manifests(text: &str, context: Context) -> Result<Vec<Manifest>, Vec<Problem>> {
    documents(&parsed(text)?, context)
}

/// An operator's sources: `sources: [...]`, as in a manifest's spec.
pub(super) fn sources(text: &str) -> Result<validate::SourcesByName, Vec<Problem>> {
    let mut read = parsed(text)?;
    let (Some(document), 0) = (read.pop(), read.len()) else {
        return Err(whole(1, "is not one document".to_owned(), "write sources: and a list of them"));
    };
    let document = document.under("spec");
    let mut report = Report::new(&document);
    let raw = raw(&document, &mut report).and_then(|raw| raw.spec?.sources);
    let found = raw.map(|raw| validate::operator_sources(&raw, &mut report));
    if found.is_none() && report.is_empty() {
        report.add("", "has no sources", "write sources: and a list of them");
    }
    let problems = report.into_list();
    if problems.is_empty() { Ok(found.unwrap_or_default()) } else { Err(problems) }
}

/// Every `KubervisorService` of the text, unchecked.
pub(super) fn resources(text: &str) -> Result<Vec<Value>, Vec<Problem>> {
    let all = parsed(text)?;
    let ours = all.iter().flat_map(items).map(|document| document.value).filter(is_ours);
    Ok(ours.collect())
}

fn parsed(text: &str) -> Result<Vec<Document>, Vec<Problem>> {
    located::read(text).map_err(|error| {
        whole(error.line, format!("is not valid YAML: {}", error.message), "write YAML or JSON")
    })
}

/// The same of documents that were read already.
pub(super) fn documents(documents: &[Document], context: Context) -> Result<Vec<Manifest>, Vec<Problem>> {
    let (mut manifests, mut problems) = (Vec::new(), Vec::new());
    for document in &documents.iter().flat_map(items).collect::<Vec<_>>() {
        let mut report = Report::new(document);
        labels::check(document, &mut report);
        labels::check_selector(document, &mut report);
        if is_ours(&document.value) {
            labels::check_words(document, &mut report);
            manifests.extend(manifest(document, context, &mut report));
        }
        problems.extend(report.into_list());
    }
    if problems.is_empty() && manifests.is_empty() {
        let write = format!("write a document with apiVersion {API_VERSION} and kind {KIND}");
        problems = whole(1, format!("holds no {KIND}"), &write);
    }
    if problems.is_empty() { Ok(manifests) } else { Err(problems) }
}

/// The items of a `List`, as `kubectl get -o yaml` prints it; any other document itself.
fn items(document: &Document) -> Vec<Document> {
    let kind = document.value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let items = document.value.get("items").and_then(Value::as_array).filter(|_| kind.ends_with("List"));
    let Some(items) = items else { return vec![document.clone()] };
    let item = |(index, item): (usize, &Value)| document.part(&format!("items[{index}]"), item.clone());
    items.iter().enumerate().map(item).collect()
}

pub(super) fn whole(line: u64, what: String, write: &str) -> Vec<Problem> {
    vec![Problem { line, field: String::new(), what, write: write.to_owned() }]
}

/// Has our kind or group, or `spec.breakers`: a manifest whose kind is misspelt is reported, not skipped.
fn is_ours(value: &Value) -> bool {
    let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    text("kind") == KIND
        || text("apiVersion").starts_with("kubervisor.k8s.io/")
        || value.pointer("/spec/breakers").is_some()
}

fn manifest(document: &Document, context: Context, report: &mut Report<'_>) -> Option<Manifest> {
    let raw = raw(document, report)?;
    validate::resource(&raw, context, report)
}

/// Reads the typed form. serde stops at the first mistake, so the value is removed and the rest is read again, until no
/// mistake is left.
fn raw(document: &Document, report: &mut Report<'_>) -> Option<RawResource> {
    let mut value = document.value.clone();
    prepare(&mut value, "", report);
    for _ in 0..MOST_MISTAKES {
        let mut track = Track::new();
        let reader = serde_path_to_error::Deserializer::new(&value, &mut track);
        let error: serde_json::Error = match serde::Deserialize::deserialize(reader) {
            Ok(raw) => return Some(raw),
            Err(error) => error,
        };
        let error = error.to_string();
        let steps = track.path();
        let steps: Vec<&Segment> = steps.iter().collect();
        let path = written(&steps);
        add_mistake(&value, &steps, &path, &error, report);
        if !take_out(&mut value, &steps) {
            return None;
        }
    }
    None
}

/// serde accepts a list for a struct and assigns its items to the fields in order: such a list is reported beforehand
/// and replaced by an empty map. An empty text is taken out where it means that the field was left out.
fn prepare(value: &mut Value, path: &str, report: &mut Report<'_>) {
    let expects_map = fields::find(path).is_some_and(|field| field.form == fields::Form::Map);
    match value {
        Value::Array(_) if expects_map => {
            report.misfit(path, "is a list");
            *value = json!({});
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prepare(item, &format!("{path}[{index}]"), report);
            }
        }
        Value::Object(map) => {
            map.retain(|key, member| {
                let path = join(path, key);
                let unset =
                    member == "" && fields::find(&path).is_some_and(|field| field.form.empty_is_unset());
                prepare(member, &path, report);
                !unset
            });
        }
        _ => {}
    }
}

fn add_mistake(value: &Value, steps: &[&Segment], path: &str, error: &str, report: &mut Report<'_>) {
    let found = at(value, steps);
    match (fields::find(path), found) {
        (None, _) if path.is_empty() => {
            report.add(
                path,
                format!("is {}", describe(value)),
                "write a map with apiVersion, kind, metadata and spec",
            );
        }
        (None, _) => report.add(path, "is no field of a KubervisorService", fields::instead_of_unknown(path)),
        (Some(_), Some(scalar @ (Value::Bool(_) | Value::Number(_))))
            if error.contains("expected a string") =>
        {
            report.add(
                path,
                format!("is {}", describe(scalar)),
                format!("instead write \"{scalar}\" in quotes"),
            );
        }
        (Some(_), found) => {
            report.misfit(path, format!("is {}", describe(found.unwrap_or(&Value::Null))));
        }
    }
}

/// The path with dots and indices.
fn written(steps: &[&Segment]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Map { key } => join(&path, key),
        Segment::Enum { variant } => join(&path, variant),
        Segment::Unknown => path,
    })
}

fn at<'a>(value: &'a Value, steps: &[&Segment]) -> Option<&'a Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// Removes a member; an item is replaced by an empty one of the type that belongs there, so that the
/// others keep their index.
fn take_out(value: &mut Value, steps: &[&Segment]) -> bool {
    let Some((last, before)) = steps.split_last() else { return false };
    let parent = before.iter().try_fold(value, |value, step| match step {
        Segment::Seq { index } => value.get_mut(index),
        Segment::Map { key } => value.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    match (parent, last) {
        (Some(Value::Object(map)), Segment::Map { key }) => map.remove(key).is_some(),
        (Some(Value::Array(items)), Segment::Seq { index }) => {
            let breakers = matches!(before.last(), Some(Segment::Map { key }) if key == "breakers");
            let empty = if breakers { json!({}) } else { json!("") };
            items.get_mut(*index).is_some_and(|item| std::mem::replace(item, empty.clone()) != empty)
        }
        _ => false,
    }
}
