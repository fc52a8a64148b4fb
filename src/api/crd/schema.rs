//! The structural schema, made from the table of fields.

use serde_json::{Map, Value, json};

use super::{rules, status};
use crate::api::fields::{FIELDS, Field, Form, template};

/// The schema of the resource.
pub(super) fn resource() -> Value {
    let mut root = json!({
        "type": "object",
        "description": "Health gating of the pods of a Service: which pods are withheld from traffic, how many go on serving, and how withheld pods come back.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": at("spec", true),
            "status": status::schema(),
        },
    });
    add_rules(&mut root, "");
    root
}

/// The schema of the field at `path`; defaults only where `with_defaults`.
fn at(path: &str, with_defaults: bool) -> Value {
    // A breaker's own activator has the fields of the default one, and inherits instead of defaulting.
    let pattern = template(path);
    let Some(field) = FIELDS.iter().find(|field| field.path == path) else { return json!({}) };
    let mut schema = value(field);
    schema["description"] = json!(description(field, with_defaults));
    match field.form {
        Form::Map => map(&mut schema, pattern, with_defaults && path == pattern),
        Form::List { .. } => {
            schema["items"] = at(&format!("{path}[]"), with_defaults);
        }
        _ => {}
    }
    if with_defaults && let Some(default) = default(field) {
        schema["default"] = default;
    }
    if path == "spec.breakers" || path == "spec.sources" {
        schema["x-kubernetes-list-type"] = json!("map");
        schema["x-kubernetes-list-map-keys"] = json!(["name"]);
    }
    add_rules(&mut schema, pattern);
    schema
}

fn map(schema: &mut Value, pattern: &str, with_defaults: bool) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in FIELDS {
        let Some((parent, name)) = field.path.rsplit_once('.') else { continue };
        if parent != pattern || name.ends_with("[]") {
            continue;
        }
        properties.insert(name.to_owned(), at(field.path, with_defaults));
        if field.default == "required" {
            required.push(name);
        }
    }
    schema["properties"] = Value::Object(properties);
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
}

/// For `kubectl explain`: what the field means, then type, unit and range, then the default.
fn description(field: &Field, with_defaults: bool) -> String {
    let Field { means, write, default, .. } = field;
    let inherits = !with_defaults && field.path.starts_with("spec.defaultActivator.");
    match *default {
        "-" | "required" => format!("{means} Value: {write}."),
        _ if inherits => format!("{means} Value: {write}. Default: as in spec.defaultActivator."),
        default => format!("{means} Value: {write}. Default: {default}."),
    }
}

/// Type and bounds of the value.
fn value(field: &Field) -> Value {
    let is_required = field.default == "required";
    match field.form {
        Form::Map => json!({"type": "object"}),
        Form::List { least: 0, most } => json!({"type": "array", "maxItems": most}),
        Form::List { least, most } => json!({"type": "array", "minItems": least, "maxItems": most}),
        Form::Flag => json!({"type": "boolean"}),
        Form::Text { pattern, longest } => text(pattern, longest, is_required || field.path.ends_with("[]")),
        // An empty text means that the field was left out.
        Form::Words(words) => json!({
            "type": "string",
            "enum": words.iter().copied().chain((!is_required).then_some("")).collect::<Vec<_>>(),
        }),
        Form::Whole { least, most } => {
            json!({"type": "integer", "format": "int64", "minimum": least, "maximum": most})
        }
        Form::Number { least, above, most } => {
            let mut schema = json!({"type": "number", "format": "double"});
            if least.is_finite() {
                schema["minimum"] = number(least);
            }
            if above {
                schema["exclusiveMinimum"] = json!(true);
            }
            if most.is_finite() {
                schema["maximum"] = number(most);
            }
            schema
        }
        Form::Port => json!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
        }),
        Form::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
    }
}

/// A text; an empty one, which means "left out", only where the field is optional.
fn text(pattern: &str, longest: u32, is_needed: bool) -> Value {
    let mut schema = json!({"type": "string", "maxLength": longest});
    match (pattern, is_needed) {
        ("", true) => schema["minLength"] = json!(1),
        ("", false) => {}
        (pattern, true) => schema["pattern"] = json!(format!("^({pattern})$")),
        (pattern, false) => schema["pattern"] = json!(format!("^({pattern})?$")),
    }
    schema
}

/// Without a fraction where the number is whole.
fn number(number: f64) -> Value {
    match number.to_string().parse::<i64>() {
        Ok(whole) => json!(whole),
        Err(_) => json!(number),
    }
}

/// The table's default as a value, for the fields whose default is in the schema.
fn default(field: &Field) -> Option<Value> {
    if !field.path.starts_with("spec.defaultActivator") {
        return None;
    }
    match field.form {
        Form::Words(words) => words.contains(&field.default).then(|| json!(field.default)),
        _ => serde_json::from_str(field.default).ok(),
    }
}

fn add_rules(schema: &mut Value, path: &str) {
    let rules: Vec<Value> = rules::at(path)
        .into_iter()
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect();
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] = Value::Array(rules);
    }
    if path == "spec.breakers[].keepalive" {
        schema["allOf"] = rules::of_one_of();
    }
}
