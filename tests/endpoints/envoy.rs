//! Envoy's format against Envoy's published schema, parsed by its Go module with protobuf's strict JSON.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use kubervisor::{adapters::sink::endpoints::format::render, config::EndpointsFormat};

use crate::stage::listing;

fn checker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xds-check");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/xds");
        let built =
            Command::new("go").current_dir(source).args(["build", "-o"]).arg(&program).arg(".").output();
        let built = built.expect("go is needed: run scripts/need test");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        program
    })
}

fn check(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("eds.json");
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new(checker()).arg(&path).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn the_eds_file_is_what_the_published_schema_reads_with_every_address_in_it() {
    let full = render(EndpointsFormat::Envoy, "web", &listing(["10.0.0.2:80", "10.0.0.10:8080"]).addresses);
    assert_eq!(check(&full).unwrap(), ["web 10.0.0.10:8080", "web 10.0.0.2:80"].map(str::to_owned).into());
    let nobody = render(EndpointsFormat::Envoy, "web", &BTreeSet::new());
    assert_eq!(check(&nobody).unwrap(), BTreeSet::new());
}

#[test]
fn the_schema_check_refuses_what_envoy_would_refuse() {
    let good = String::from_utf8(render(EndpointsFormat::Envoy, "web", &listing(["10.0.0.2:80"]).addresses))
        .unwrap();
    for (was, wrong) in
        [("port_value", "port_valu"), ("\"port_value\": 80", "\"port_value\": 70000"), ("\"web\"", "\"\"")]
    {
        assert!(good.contains(was), "{good}");
        assert!(check(good.replace(was, wrong).as_bytes()).is_err(), "{wrong} was taken");
    }
}
