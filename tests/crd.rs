//! The definition in `crds/` is generated from the code, and has the same bounds as the checks of manifests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::{fs, path::Path, process::Command};

use kubervisor::api::{
    self, Context, Detectors, crd,
    fields::{FIELDS, Form},
};
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `UPDATE=1 cargo test --test crd`, or `make crd`, regenerates the file.
#[test]
fn the_definition_in_the_repository_is_the_one_in_the_code() {
    let path = root().join("crds/kubervisorservices.yaml");
    let made = crd::yaml().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(kept == made, "{} differs from the code: run make crd", path.display());
}

#[test]
fn the_command_prints_the_definition_in_the_repository() {
    let printed = Command::new(env!("CARGO_BIN_EXE_kubervisor")).arg("crd").output().unwrap();
    assert!(printed.status.success());
    let kept = fs::read(root().join("crds/kubervisorservices.yaml")).unwrap();
    assert!(printed.stdout == kept);
}

/// A manifest with every field, one detector of each kind.
fn everything() -> Value {
    let text = fs::read_to_string(root().join("tests/policy/good/everything.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// The pointer of the table's path in the manifest, in the first breaker that has it.
fn place(manifest: &mut Value, path: &str) -> Option<String> {
    let candidates: Vec<String> = match path.strip_prefix("spec.breakers[]") {
        Some(rest) => (0..7).map(|at| format!("/spec/breakers/{at}{}", rest.replace('.', "/"))).collect(),
        None => vec![format!("/{}", path.replace('.', "/"))],
    };
    candidates.into_iter().find(|pointer| manifest.pointer(pointer).is_some())
}

/// Whether the manifest passes the checks, with `value` at the pointer.
fn passes(mut manifest: Value, pointer: &str, value: Value) -> Result<(), String> {
    *manifest.pointer_mut(pointer).unwrap() = value;
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    api::parse("it", &manifest.to_string(), context).map(drop).map_err(|problems| problems.to_string())
}

/// Values just inside and just outside of the form's bounds.
fn edges(form: Form) -> (Vec<Value>, Vec<Value>) {
    match form {
        Form::Whole { least, most } => {
            let below = i64::from(least) - 1;
            (vec![json!(least), json!(most)], vec![json!(below), json!(i64::from(most) + 1), json!(1.5)])
        }
        Form::Number { least, above, most } => {
            let (mut inside, mut outside) = (vec![], vec![json!("1")]);
            if least.is_finite() {
                outside.push(json!(least - 1e-6));
                if above { &mut outside } else { &mut inside }.push(json!(least));
                inside.push(json!(least + 1e-6));
            }
            if most.is_finite() {
                inside.push(json!(most));
                outside.push(json!(most * 1.000_001));
            }
            (inside, outside)
        }
        Form::Words(words) => {
            (words.iter().map(|word| json!(word)).chain([json!("")]).collect(), vec![json!("sometimes")])
        }
        Form::Flag => (vec![json!(true), json!(false)], vec![json!("true"), json!(1)]),
        Form::Map => (vec![], vec![json!("text"), json!([1])]),
        Form::Text { longest, .. } => (vec![], vec![json!(7), json!("a".repeat(longest as usize + 1))]),
        Form::Port => (vec![json!(1), json!(65_535), json!("http")], vec![json!(true), json!(1.5)]),
        Form::List { .. } | Form::Any => (vec![], vec![]),
    }
}

/// Fields whose bounds another field narrows: `maxPeriod` by `period`, `bad` by `of`, `min` by `max`.
const NARROWED: [&str; 8] = [
    "spec.defaultActivator.period",
    "spec.defaultActivator.maxPeriod",
    "spec.breakers[].outlier.consecutive.of",
    "spec.breakers[].outlier.consecutive.bad",
    "spec.breakers[].keepalive.min",
    "spec.breakers[].keepalive.max",
    "metadata.name",
    "metadata.namespace",
];

#[test]
fn the_schema_and_the_checks_of_manifests_have_the_same_bounds() {
    let mut tried = 0;
    for field in FIELDS {
        if NARROWED.contains(&field.path)
            || ["apiVersion", "kind", "metadata", "status"].contains(&field.path)
        {
            continue;
        }
        let mut manifest = everything();
        let Some(pointer) = place(&mut manifest, field.path) else { continue };
        let (inside, outside) = edges(field.form);
        for value in inside {
            let judged = passes(everything(), &pointer, value.clone());
            assert!(judged.is_ok(), "{} = {value} fits the schema, but: {judged:?}", field.path);
            tried += 1;
        }
        for value in outside {
            let judged = passes(everything(), &pointer, value.clone());
            assert!(judged.is_err(), "{} = {value} does not fit the schema, but passes", field.path);
            tried += 1;
        }
    }
    assert!(tried > 120, "{tried}");
}
