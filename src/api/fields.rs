//! Every field of the manifest, once: what it means, its type and bounds, and its default. The checks and their
//! messages, the schema of the API server with its descriptions, and the reference in the docs are made from this table.

mod form;
mod table;

use std::str::FromStr;

pub use self::{
    form::Form,
    table::{DETECTORS, FIELDS},
};

/// One field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    /// Its path; `[]` stands for each item, and a breaker's `activator` has the fields of `defaultActivator`.
    pub path: &'static str,
    /// What it does, in sentences.
    pub means: &'static str,
    /// Its type and bounds.
    pub form: Form,
    /// Type, unit and range in words, to follow "write".
    pub write: &'static str,
    /// The value when it is left out; `-` where there is none, `required` where it may not be left out.
    pub default: &'static str,
}

const fn field(
    path: &'static str,
    means: &'static str,
    form: Form,
    write: &'static str,
    default: &'static str,
) -> Field {
    Field { path, means, form, write, default }
}

/// The number that the default at `path` begins with, such as 300 of "300, or period if that is longer".
pub(crate) fn usual<T: FromStr + Default>(path: &str) -> T {
    leading(find(path).map_or("", |field| field.default))
}

/// The number after "else" in the default at `path`.
pub(crate) fn otherwise<T: FromStr + Default>(path: &str) -> T {
    leading(find(path).and_then(|field| field.default.split_once("else ")).map_or("", |(_, number)| number))
}

fn leading<T: FromStr + Default>(text: &str) -> T {
    text.split([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The field at `path`, whatever the indices in it.
pub fn find(path: &str) -> Option<&'static Field> {
    let pattern = pattern(path);
    FIELDS.iter().find(|field| field.path == pattern)
}

/// What to write at `path`: a clause for a message.
pub fn instead(path: &str) -> String {
    find(path).map_or_else(|| "remove it".to_owned(), |field| format!("instead write {}", field.write))
}

/// What to write for the field at `path`, whose last step is unknown: the nearest name there, and all of them.
pub fn instead_of_unknown(path: &str) -> String {
    let path = pattern(path);
    let (parent, wrong) = path.rsplit_once('.').unwrap_or(("", &path));
    let siblings: Vec<&str> = FIELDS
        .iter()
        .filter_map(|field| {
            let (its_parent, name) = field.path.rsplit_once('.').unwrap_or(("", field.path));
            (its_parent == parent && !name.ends_with("[]")).then_some(name)
        })
        .collect();
    let likeness = |name: &&str| strsim::jaro_winkler(&name.to_lowercase(), &wrong.to_lowercase());
    let nearest = siblings
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|name| likeness(name) > 0.8);
    match nearest {
        Some(name) => format!("instead write {name}"),
        None => format!("instead write one of {}, or remove it", siblings.join(", ")),
    }
}

/// The path with `[]` for each index, and one name for all fields of a kind.
fn pattern(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = match c {
            '[' => true,
            ']' => false,
            _ => inside,
        };
        if !inside || c == '[' {
            pattern.push(c);
        }
    }
    match pattern.rsplit_once('.') {
        Some((parent, name)) => format!("{}.{name}", template(parent)),
        None => pattern,
    }
}

/// The field whose parts are in the table for all fields of their kind: activators, and places of credentials.
pub(crate) fn template(path: &str) -> &str {
    match path {
        "spec.breakers[].activator" => "spec.defaultActivator",
        "spec.breakers[].notify" => "spec.notify",
        "spec.breakers[].notify.hmacSecret" => "spec.notify.hmacSecret",
        "spec.sources[].headers[].from"
        | "spec.sources[].tls.certificate"
        | "spec.sources[].tls.key"
        | "spec.sources[].auth.bearer"
        | "spec.sources[].auth.basic"
        | "spec.sources[].auth.oauth2.clientSecret"
        | "spec.sources[].auth.sigV4.accessKeyId"
        | "spec.sources[].auth.sigV4.secretAccessKey" => "spec.sources[].tls.ca",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_both_activators_find_their_field() {
        assert_eq!(find("spec.breakers[12].keepalive.min").unwrap().default, "-");
        assert_eq!(find("spec.breakers[0].activator.mode").unwrap().default, "periodic");
        assert_eq!(find("spec.breakers[3]").unwrap().path, "spec.breakers[]");
        assert_eq!(find("spec.breakers[0].goodValues"), None);
    }

    #[test]
    fn a_misspelt_field_is_answered_with_the_nearest_name() {
        assert_eq!(instead_of_unknown("spec.breakers[0].keepAlive"), "instead write keepalive");
        assert_eq!(
            instead_of_unknown("spec.breakers[0].activator.maxretrycount"),
            "instead write maxRetryCount"
        );
        assert_eq!(
            instead_of_unknown("spec.breakers[1].discreteValueOutOfList.podNameKey"),
            "instead write podNamekey"
        );
        assert_eq!(
            instead_of_unknown("spec.breakers[0].outlier.consecutive.frobnicate"),
            "instead write one of of, bad, or remove it"
        );
    }
}
