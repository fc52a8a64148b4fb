//! The policies of a report: every `-f`, each with every combination of the values of `--set`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    api::{self, Context, Manifest, Problems},
    exit::Exit,
};

/// Policies in one report, at most.
const MOST: usize = 64;

/// A policy to replay.
#[derive(Clone, Debug)]
pub struct PolicyVariant {
    /// The file that it is from.
    pub file: String,
    /// The values that `--set` changed, as `path=value`.
    pub changes: Vec<String>,
    /// The manifest with them.
    pub manifest: Manifest,
    /// Its document in the file, without the changes.
    pub text: String,
}

impl PolicyVariant {
    /// Namespace and name of its Service; `flag` is the namespace that the user gave.
    pub(super) fn service<'v>(&'v self, flag: Option<&'v str>) -> (&'v str, &'v str) {
        let namespace = flag.or(self.manifest.namespace.as_deref()).unwrap_or("default");
        (namespace, &self.manifest.policy.service)
    }
}

/// A field of the spec and the values to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    path: Vec<PathStep>,
    /// As written.
    name: String,
    values: Vec<(String, Value)>,
}

#[derive(Clone, Debug, PartialEq)]
enum PathStep {
    Field(String),
    Index(usize),
    /// The item with this name.
    Named(String),
}

impl Setting {
    /// Reads `breakers[errors].outlier.threshold=3,3.5,5`; the path is one below `spec`.
    ///
    /// # Errors
    /// What is missing.
    pub fn read(text: &str) -> Result<Self, String> {
        let (name, values) = text
            .split_once('=')
            .ok_or("write path=value, such as breakers[errors].outlier.threshold=3,3.5,5")?;
        let name = name.trim().strip_prefix("spec.").unwrap_or(name.trim());
        let path = steps(name).ok_or_else(|| {
            format!("{name:?} is no path; write one such as breakers[errors].outlier.threshold")
        })?;
        // A comma within brackets or quotes belongs to the value, which is then the only one.
        let single = values.trim_start().starts_with(['[', '{', '"', '\'']);
        let parts: Vec<&str> = if single { vec![values] } else { values.split(',').collect() };
        let values: Vec<(String, Value)> =
            parts.into_iter().map(|part| (part.trim().to_owned(), scalar(part.trim()))).collect();
        if values.iter().any(|(text, _)| text.is_empty()) {
            return Err(format!("{name} has an empty value; write at least one, with commas between them"));
        }
        Ok(Self { path, name: name.to_owned(), values })
    }
}

fn steps(path: &str) -> Option<Vec<PathStep>> {
    let mut all = Vec::new();
    for part in path.split('.') {
        let (field, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if field.is_empty() {
            return None;
        }
        all.push(PathStep::Field(field.to_owned()));
        while !rest.is_empty() {
            let (inner, after) = rest.strip_prefix('[')?.split_once(']')?;
            all.push(match inner.parse() {
                Ok(index) => PathStep::Index(index),
                Err(_) if inner.is_empty() => return None,
                Err(_) => PathStep::Named(inner.to_owned()),
            });
            rest = after;
        }
    }
    Some(all)
}

/// As YAML would read it.
fn scalar(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.trim_matches(['"', '\''])))
}

/// Reads every file, and makes the policies.
///
/// # Errors
/// 2 with the mistakes of all files, as `kubervisor check` reports them, and for a path that a manifest does not have.
pub fn load(files: &[PathBuf], settings: &[Setting], context: Context) -> Result<Vec<PolicyVariant>, Exit> {
    let (mut variants, mut mistakes) = (Vec::new(), Vec::new());
    for path in files {
        match of_file(path, settings, context) {
            Ok(found) => variants.extend(found),
            Err(exit) => mistakes.push(exit.to_string()),
        }
        if variants.len() > MOST {
            return Err(Exit::Usage(format!(
                "these are more than {MOST} policies; write fewer values after --set"
            )));
        }
    }
    if mistakes.is_empty() { Ok(variants) } else { Err(Exit::Usage(mistakes.join("\n"))) }
}

fn of_file(path: &Path, settings: &[Setting], context: Context) -> Result<Vec<PolicyVariant>, Exit> {
    let refused = |problems: Problems| Exit::Usage(problems.to_string());
    let file = path.display().to_string();
    let text = api::text_of(path).map_err(refused)?;
    let manifests = api::parse(&file, &text, context).map_err(refused)?;
    if settings.is_empty() {
        let variant = |manifest: Manifest| PolicyVariant {
            file: file.clone(),
            changes: Vec::new(),
            text: own_document(&text, &manifest.policy.name).to_owned(),
            manifest,
        };
        return Ok(manifests.into_iter().map(variant).collect());
    }
    let mut variants = Vec::new();
    for value in api::resources(&file, &text).map_err(refused)? {
        for (changes, value) in
            combinations(&value, settings).map_err(|what| Exit::Usage(format!("{file}: {what}")))?
        {
            let name = format!("{file} with {}", changes.join(", "));
            let manifest = api::from_value(&name, value, context).map_err(refused)?;
            let text = own_document(&text, &manifest.policy.name).to_owned();
            variants.push(PolicyVariant { file: file.clone(), changes, manifest, text });
        }
    }
    Ok(variants)
}

/// The document that holds this resource alone, with the comments above it; else the whole text.
fn own_document<'t>(text: &'t str, name: &str) -> &'t str {
    let starts = text.match_indices("\n---").map(|(at, _)| at + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(starts).chain([text.len()]).collect();
    let mut documents = starts.windows(2).filter_map(|ends| match ends {
        [from, to] => text.get(*from..*to),
        _ => None,
    });
    let holds_it = |document: &&str| {
        let found = api::resources("", document).unwrap_or_default();
        matches!(found.as_slice(), [only] if only["metadata"]["name"] == name)
    };
    documents.find(holds_it).unwrap_or(text)
}

/// The resource with every combination of the values.
fn combinations(resource: &Value, settings: &[Setting]) -> Result<Vec<(Vec<String>, Value)>, String> {
    let mut all = vec![(Vec::new(), resource.clone())];
    for setting in settings {
        let mut next = Vec::new();
        for (changes, resource) in &all {
            for (text, value) in &setting.values {
                let mut resource = resource.clone();
                let place = resource.get_mut("spec").ok_or("the resource has no spec")?;
                put(place, &setting.path, value).ok_or_else(|| format!("--set {}: the manifest has no such field to change; write the path of one of its fields, such as breakers[NAME].outlier.threshold", setting.name))?;
                let change = format!("{}={text}", setting.name);
                next.push((changes.iter().cloned().chain([change]).collect(), resource));
            }
        }
        if next.len() > MOST {
            return Err(format!("these are more than {MOST} policies; write fewer values after --set"));
        }
        all = next;
    }
    Ok(all)
}

/// Writes the value; a missing field is added, a missing item is none.
fn put(place: &mut Value, path: &[PathStep], value: &Value) -> Option<()> {
    let Some((step, rest)) = path.split_first() else {
        *place = value.clone();
        return Some(());
    };
    let next = match step {
        PathStep::Field(field) => {
            if place.is_null() {
                *place = Value::Object(serde_json::Map::new());
            }
            place.as_object_mut()?.entry(field.clone()).or_insert(Value::Null)
        }
        PathStep::Index(index) => place.get_mut(*index)?,
        PathStep::Named(name) => place
            .as_array_mut()?
            .iter_mut()
            .find(|item| item.get("name").and_then(Value::as_str) == Some(name))?,
    };
    put(next, rest, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variants(settings: &[&str]) -> Result<Vec<(Vec<String>, Value)>, String> {
        let resource =
            json!({"spec": {"breakers": [{"name": "errors", "outlier": {"threshold": 3.5}}, {"name": "b"}]}});
        let settings: Result<Vec<Setting>, String> =
            settings.iter().map(|text| Setting::read(text)).collect();
        combinations(&resource, &settings?)
    }

    #[test]
    fn a_resource_among_others_has_its_own_document_with_the_comments_above_it() {
        let one = |name: &str| {
            format!(
                "# {name}\napiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata: {{name: {name}}}\n\
                 spec: {{service: {name}}}\n"
            )
        };
        let text = format!("# all\n---\n{}---\nkind: Service\n---\n{}", one("a"), one("b"));
        assert_eq!(own_document(&text, "a"), format!("---\n{}", one("a")));
        assert_eq!(own_document(&text, "b"), format!("---\n{}", one("b")));
        assert_eq!(own_document(&text, "c"), text);
        assert_eq!(own_document(&one("a"), "a"), one("a"));
    }

    #[test]
    fn every_combination_of_the_values_is_a_policy() {
        let all = variants(&["breakers[errors].outlier.threshold=3,5", "spec.panicThreshold=40,60"]).unwrap();
        let changes: Vec<String> = all.iter().map(|(changes, _)| changes.join(" ")).collect();
        assert_eq!(
            changes,
            [
                "breakers[errors].outlier.threshold=3 panicThreshold=40",
                "breakers[errors].outlier.threshold=3 panicThreshold=60",
                "breakers[errors].outlier.threshold=5 panicThreshold=40",
                "breakers[errors].outlier.threshold=5 panicThreshold=60",
            ]
        );
        assert_eq!(all[3].1["spec"]["breakers"][0]["outlier"]["threshold"], 5);
        assert_eq!(all[3].1["spec"]["panicThreshold"], 60);
    }

    #[test]
    fn items_are_found_by_index_and_by_name_and_new_fields_are_added() {
        let all = variants(&[
            "breakers[1].activator.mode=periodic",
            "breakers[b].outlier.consecutive={\"of\": 3, \"bad\": 2}",
        ]);
        let resource = &all.unwrap()[0].1;
        assert_eq!(resource["spec"]["breakers"][1]["activator"], json!({"mode": "periodic"}));
        assert_eq!(resource["spec"]["breakers"][1]["outlier"]["consecutive"], json!({"of": 3, "bad": 2}));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused() {
        for setting in [
            "x",
            "=3",
            "breakers[]=3",
            "breakers[nobody].x=3",
            "breakers[7].x=3",
            "breakers.x=3",
            "a..b=3",
            "panicThreshold=1,,2",
            "breakers[errors=3",
        ] {
            assert!(variants(&[setting]).is_err(), "{setting}");
        }
        let many: Vec<String> = (0..70).map(|n| n.to_string()).collect();
        assert!(
            variants(&[&format!("panicThreshold={}", many.join(","))]).unwrap_err().contains("more than 64")
        );
    }
}
