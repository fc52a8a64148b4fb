//! Each manifest in `bad/` has its expected messages in a `.txt` beside it; each in `good/` must load.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kubervisor::{
    api::{
        self, Context, Detectors, Manifest, Timing,
        fields::{FIELDS, Field},
    },
    decide::{
        detect::{
            Consecutive, Detector, Direction, Good, OutlierSource, Values,
            metric_source::{Credential, SourceAuth},
        },
        policy::{ActivatorMode, OnNoData},
    },
};
use serde_json::{Value, json};

const ANY: Context = Context { detectors: Detectors::All, timing: None, sources: &[] };

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy").join(name)
}

fn manifests_in(name: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e != "txt")).collect();
    files.sort();
    files
}

fn good(name: &str) -> Manifest {
    api::load(&folder("good").join(name), ANY).unwrap()
}

#[test]
fn every_bad_manifest_is_rejected_with_line_field_and_correction() {
    let files = manifests_in("bad");
    assert!(files.len() >= 16, "{}", files.len());
    for path in files {
        let problems = api::load_all(&path, ANY).expect_err(&path.display().to_string());
        let name = path.file_name().unwrap().to_str().unwrap();
        let messages = problems.to_string().replace(&problems.file, name);
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        assert_eq!(messages.trim_end(), expected.trim_end(), "{name}");
    }
}

#[test]
fn the_check_command_exits_by_validity_and_names_every_file() {
    let check = |files: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
            .arg("check")
            .args(files)
            .current_dir(folder(""))
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = check(&["good/smallest.yaml", "good/client-of-2018.json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "good/smallest.yaml:1: KubervisorService web: 1 breaker, good\n\
         good/client-of-2018.json:1: KubervisorService shop/web: 2 breakers, good\n"
    );
    let (code, out, err) = check(&["good/smallest.yaml", "bad/ratio-of-101.yaml", "nowhere.yaml"]);
    assert_eq!(code, Some(2));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(
        err.contains("bad/ratio-of-101.yaml:9: spec.breakers[0].minPodsAvailableRatio: is 101; "),
        "{err}"
    );
    assert!(err.contains("nowhere.yaml:1: cannot be read"), "{err}");
    assert!(err.contains("2 of 3 files"), "{err}");
    let (code, _, err) = check(&["good/smallest.yaml", "good/among-others.yaml"]);
    assert_eq!(code, Some(2), "one name twice");
    assert!(err.contains("as that of the one at good/smallest.yaml:1"), "{err}");
    assert_eq!(check(&[]).0, Some(2));
}

#[test]
fn what_kubectl_prints_is_checked_from_a_pipe_with_the_lines_of_the_list() {
    let check = |list: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubervisor"));
        let piped = command.args(["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let item = |detector: &str| {
        format!(
            "- apiVersion: kubervisor.k8s.io/v1alpha1\n  kind: KubervisorService\n  metadata: {{name: web, namespace: \
             shop}}\n  spec:\n    service: web\n    breakers:\n    - {{name: a, {detector}}}\n"
        )
    };
    let of = |detector: &str| format!("apiVersion: v1\nkind: List\nitems:\n{}", item(detector));
    let (code, out, err) = check(&of("customService: \"detector:8080\""));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, "-:4: KubervisorService shop/web: 1 breaker, good\n");
    let (code, _, err) = check(&of("customService: \"detector:x\""));
    assert_eq!(code, Some(2));
    assert!(err.contains("-:10: spec.breakers[0].customService: is"), "{err}");
    let (code, _, err) = check("apiVersion: v1\nkind: List\nitems: []\n");
    assert_eq!(code, Some(2));
    assert!(err.contains("holds no KubervisorService"), "{err}");
}

#[test]
fn omitted_fields_have_the_documented_defaults() {
    let Manifest { policy, rules, .. } = good("smallest.yaml");
    assert_eq!((policy.name.as_str(), policy.service.as_str()), ("web", "web"));
    assert_eq!(policy.panic_threshold, Some(50), "a detector over keepalives");
    assert!(!policy.paused && !policy.dry_run && policy.revert_if_no_better.is_none());
    let breaker = &policy.breakers[0];
    assert_eq!(breaker.evaluation_period, Duration::from_secs(5));
    assert_eq!((breaker.floor.min_available_count, breaker.floor.min_available_ratio), (1, None));
    assert_eq!((breaker.on_no_data, breaker.min_coverage), (OnNoData::Hold, 50));
    let activator = &breaker.activator;
    assert_eq!((activator.mode, activator.period), (ActivatorMode::Periodic, Duration::from_secs(10)));
    assert_eq!((activator.max_retry, activator.max_pause), (3, 1));
    assert_eq!((activator.max_period, activator.jitter), (Duration::from_secs(300), 0.1));
    assert_eq!((activator.batch, activator.max_kills_per_hour), (None, None));
    assert_eq!(policy.default_activator.jitter, 0.0);
    assert!(matches!(&rules[0].detector, Detector::Silence(s) if s.after == Duration::from_secs(20)));
}

#[test]
fn every_field_reaches_the_policy_and_activators_inherit_field_by_field() {
    let Manifest { namespace, policy, rules, .. } = good("everything.yaml");
    assert_eq!(namespace.as_deref(), Some("shop"));
    assert_eq!((policy.panic_threshold, policy.dry_run), (Some(60), true));
    assert_eq!(policy.revert_if_no_better, Some(Duration::from_secs(120)));
    let errors = &policy.breakers[0];
    assert_eq!(errors.evaluation_period, Duration::from_millis(2500));
    assert_eq!((errors.floor.min_available_count, errors.floor.min_available_ratio), (3, Some(75)));
    assert_eq!((errors.on_no_data, errors.min_coverage, errors.dry_run), (OnNoData::Restore, 80, true));
    assert_eq!((errors.activator.mode, errors.activator.max_retry), (ActivatorMode::RetryAndKill, 1));
    assert_eq!(errors.activator.period, Duration::from_secs(15), "from the default");
    assert_eq!((errors.activator.batch, errors.activator.max_kills_per_hour), (Some(3), Some(6)));
    assert_eq!(policy.breakers[1].activator, policy.default_activator);
    let patient = &policy.breakers[5].activator;
    assert_eq!(patient.max_period, Duration::from_secs(900), "a cap of the default gives way");
    let Detector::Payload(bounds) = &rules[0].detector else { panic!("{:?}", rules[0]) };
    assert_eq!(bounds.good, Good::Within { min: Some(0.0), max: Some(0.05) });
    let Detector::Outlier(slow) = &rules[2].detector else { panic!("{:?}", rules[2]) };
    assert_eq!((slow.threshold, slow.min_peers), (4.0, 6));
    assert_eq!((slow.min_deviation, slow.min_relative_deviation), (0.1, 0.25));
    assert_eq!((slow.direction, slow.consecutive), (Direction::Both, Consecutive { of: 10, bad: 6 }));
    let Detector::Outlier(queried) = &rules[3].detector else { panic!("{:?}", rules[3]) };
    let OutlierSource::Query(query) = &queried.source else { panic!("{queried:?}") };
    assert_eq!((query.timeout, query.max_sample_age), (Duration::from_secs(3), Duration::from_secs(30)));
    assert!(query.source.auth.is_some());
    let Detector::Discrete(codes) = &rules[4].detector else { panic!("{:?}", rules[4]) };
    assert_eq!((codes.tolerance, codes.min_activity), (30, 0));
    assert!(matches!(&codes.values, Values::Good(values) if *values == ["200", "201"]));
    assert!(matches!(&rules[5].detector, Detector::Deviation(d) if d.direction == Direction::High));
}

#[test]
fn min_relative_deviation_defaults_to_one_with_direction_high_and_else_to_zero() {
    let share = |fields: Value| {
        let mut outlier = json!({"pointer": "/x"});
        outlier.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let resource = json!({
            "apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": {"name": "web"},
            "spec": {"service": "web", "breakers": [{"name": "slow", "outlier": outlier}]},
        });
        let manifest = api::parse("it", &resource.to_string(), ANY).unwrap().remove(0);
        let Detector::Outlier(outlier) = &manifest.rules[0].detector else { panic!("{manifest:?}") };
        outlier.min_relative_deviation
    };
    assert_eq!(share(json!({})), 1.0);
    assert_eq!(share(json!({"direction": "high"})), 1.0);
    assert_eq!(share(json!({"direction": "low"})), 0.0);
    assert_eq!(share(json!({"direction": "both"})), 0.0);
    assert_eq!(share(json!({"minRelativeDeviation": 0})), 0.0, "an explicit 0 turns it off");
    assert_eq!(share(json!({"direction": "low", "minRelativeDeviation": 0.3})), 0.3);
}

#[test]
fn empty_values_of_clients_of_2018_are_unset() {
    let Manifest { policy, rules, .. } = good("client-of-2018.json");
    assert_eq!(policy.panic_threshold, None, "none for the original's detectors");
    assert_eq!(policy.breakers[1].activator, policy.default_activator);
    assert_eq!(policy.breakers[0].activator.jitter, 0.0);
    let Detector::Discrete(codes) = &rules[0].detector else { panic!("{:?}", rules[0]) };
    assert_eq!((codes.tolerance, codes.min_activity), (50, 2));
    assert!(matches!(&rules[1].detector, Detector::Deviation(d) if d.max_percent == 75.0));
}

#[test]
fn a_detector_that_this_process_lacks_is_refused_by_name() {
    let context = Context { detectors: Detectors::Keepalives, timing: None, sources: &[] };
    let problems = api::load(&folder("good").join("everything.yaml"), context).unwrap_err();
    let fields: Vec<_> = problems.list.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.breakers[3].outlier",
            "spec.breakers[4].discreteValueOutOfList",
            "spec.breakers[5].continuousValueDeviation",
            "spec.breakers[6].customService"
        ]
    );
    assert!(problems.list[1].what.contains("discreteValueOutOfList needs a source"), "{problems}");
}

#[test]
fn silence_must_be_longer_than_two_pings_and_shorter_than_the_ttl() {
    let load = |ttl, ping| {
        let seconds = Duration::from_secs_f64;
        let timing = Some(Timing { ttl: seconds(ttl), ping_every: seconds(ping) });
        let context = Context { detectors: Detectors::Keepalives, timing, sources: &[] };
        api::load(&folder("good").join("smallest.yaml"), context).map_err(|problems| problems.list[0].clone())
    };
    assert!(load(25.0, 8.0).is_ok());
    assert!(load(25.0, 10.0).is_ok(), "exactly two pings");
    let late = load(20.0, 5.0).unwrap_err();
    assert_eq!((late.line, late.field.as_str()), (10, "spec.breakers[0].keepalive.silentAfter"));
    assert!(late.what.contains("not below KONTROL_TTL of 20 s"), "{late:?}");
    assert!(
        load(25.0, 10.5).unwrap_err().what.contains("less than two pings"),
        "one late ping is no silence"
    );
}

#[test]
fn a_policy_file_holds_one_policy() {
    let text = fs::read_to_string(folder("good").join("smallest.yaml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("two.yaml");
    fs::write(&path, format!("{text}---\n{}", text.replace("name: web", "name: shop"))).unwrap();
    assert_eq!(api::load_all(&path, ANY).unwrap().len(), 2);
    let problems = api::load(&path, ANY).unwrap_err();
    assert_eq!(problems.list[0].line, 12);
    assert!(problems.to_string().contains("a second KubervisorService"), "{problems}");
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odd.yaml");
    let refusal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        api::load(&path, ANY).unwrap_err().to_string()
    };
    assert!(refusal(&vec![b'#'; (1 << 20) + 1]).contains("larger than 1 MiB"));
    assert!(refusal(b"kind: \xff\n").contains("not UTF-8"));
}

#[test]
fn the_reference_lists_every_field_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md");
    let text = fs::read_to_string(&path).unwrap();
    let head = "| field | what to write | when left out |\n|---|---|---|\n";
    let (before, after) = text.split_once(head).unwrap();
    let rest = after.find("\n\n").map_or("", |end| &after[end + 1..]);
    let row = |field: &Field| format!("| `{}` | {} | {} |\n", field.path, field.write, field.default);
    let rows: String = FIELDS.iter().map(row).collect();
    let expected = format!("{before}{head}{rows}{rest}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(text == expected, "docs/policy.md is behind: UPDATE_DOCS=1 cargo test --test policy reference");
}

#[test]
fn sources_reach_the_detectors_with_their_windows_and_credentials() {
    let rules = good("sources.yaml").rules;
    let Detector::Discrete(codes) = &rules[0].detector else { panic!("{:?}", rules[0]) };
    let source = &codes.query.source;
    assert_eq!(source.url, "https://thanos.example/select/0/prometheus?tenant=1");
    assert_eq!(source.tls.server_name.as_deref(), Some("thanos.internal"));
    assert_eq!(codes.query.namespace_key, "kubernetes_namespace");
    assert_eq!(codes.query.min_pod_age, Duration::from_secs(180), "range and offset");
    let of = |key: &str| Credential::Secret { name: "thanos".into(), key: key.into() };
    assert_eq!(source.auth, Some(SourceAuth::BasicPair(of("username"), of("password"))));
    let Detector::Outlier(latency) = &rules[1].detector else { panic!("{:?}", rules[1]) };
    let OutlierSource::Query(query) = &latency.source else { panic!("{latency:?}") };
    assert_eq!((query.namespace_key.as_str(), query.min_pod_age), ("namespace", Duration::ZERO));
    let Detector::Outlier(disks) = &rules[3].detector else { panic!("{:?}", rules[3]) };
    let OutlierSource::Custom(custom) = &disks.source else { panic!("{disks:?}") };
    assert_eq!((custom.source.url.as_str(), custom.path.as_str()), ("https://adapter:8443", "/disks"));
    assert_eq!(custom.min_pod_age, Duration::from_secs(5), "one evaluation");
}

#[test]
fn an_operator_s_sources_may_be_named_and_have_files_and_a_manifest_s_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sources.yaml");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        api::load_sources(&path)
    };
    let text = "sources:\n- {name: central, url: 'https://p', auth: {bearer: {file: /run/token}}}\n\
                - {name: aws, url: 'https://a', auth: {sigV4: {region: eu-west-1}}}\n";
    let sources = load(text).unwrap();
    assert_eq!(sources[1].1.auth, Some(SourceAuth::Bearer(Credential::File("/run/token".into()))));
    let Some(SourceAuth::SigV4 { access_key_id, .. }) = &sources[0].1.auth else { panic!("{sources:?}") };
    assert_eq!(*access_key_id, Credential::Variable("AWS_ACCESS_KEY_ID".into()));
    let manifest = "{apiVersion: kubervisor.k8s.io/v1alpha1, kind: KubervisorService, metadata: {name: shop}, spec: \
                    {service: shop, breakers: [{name: a, source: central, outlier: {promQL: x, podNamekey: pod}}]}}";
    let context = Context { sources: sources.leak(), ..ANY };
    assert!(api::parse("m", manifest, context).is_ok());
    let unknown = api::parse("m", manifest, ANY).unwrap_err().to_string();
    assert!(unknown.contains("is \"central\", which is no source"), "{unknown}");

    let refused = load("sources:\n- name: a\n  url: https://p\n  auth: {bearer: {secret: x, key: y}}\n");
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("sources.yaml:4: spec.sources[0].auth.bearer: names an object"), "{refused}");
    let none = load("sources: []\nother: 1\n").unwrap_err().to_string();
    assert!(none.contains("other"), "{none}");
}
