//! The container image that `make image` packs: its content, its rights, its size, its start, and that two builds can be equal.
//! Run by `make test-node`: it builds the programs of the `dist` profile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Read,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use serde_json::Value;

use plane::User;

const MIB: f64 = (1 << 20) as f64;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `scripts/image`: the digest of the manifest.
fn build() -> String {
    let mut build = Command::new(root().join("scripts/image"));
    let built = build.env("CARGO_TARGET_DIR", root().join("target")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).unwrap().trim().to_owned()
}

/// The image: its folder, and the digest.
fn image() -> &'static (PathBuf, String) {
    static BUILT: OnceLock<(PathBuf, String)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let digest = build();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
        let _from_before = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        tar(&[
            "-xf",
            root().join("target/image/kubervisor.tar").to_str().unwrap(),
            "-C",
            folder.to_str().unwrap(),
        ]);
        (folder, digest)
    })
}

fn tar(arguments: &[&str]) -> String {
    let done = Command::new("tar").args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn blob(digest: &str) -> PathBuf {
    image().0.join("blobs").join(digest.replace(':', "/"))
}

fn document(digest: &str) -> Value {
    serde_json::from_slice(&fs::read(blob(digest)).unwrap()).unwrap()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// The unpacked file system.
fn file_system() -> &'static Path {
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let folder = image().0.join("root");
        fs::create_dir_all(&folder).unwrap();
        let layer = blob(text(&document(&image().1), "/layers/0/digest"));
        tar(&["-xzpf", layer.to_str().unwrap(), "-C", folder.to_str().unwrap()]);
        folder
    })
}

/// A hash map's order in a program of this name that is started twice, with what `scripts/programs` loads before it.
fn orders_of_a_hash_map(name: &str) -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let (source, program, library) =
        (folder.path().join("main.rs"), folder.path().join(name), folder.path().join("fixed-random.so"));
    let order =
        "fn main() { for n in (0..64).collect::<std::collections::HashSet<u8>>() { print!(\"{n} \"); } }";
    fs::write(&source, order).unwrap();
    let done = |command: &mut Command| {
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    done(Command::new("rustc").arg(&source).arg("-o").arg(&program));
    let c = root().join("scripts/fixed-random.c");
    done(Command::new("cc").args(["-fPIC", "-shared", "-o"]).arg(&library).arg(c));
    [(); 2].map(|()| done(Command::new(&program).env("LD_PRELOAD", &library)))
}

/// promql-parser's build script writes its grammar's tables in the order of a hash map.
#[test]
fn build_scripts_have_the_same_random_numbers_at_each_run_and_no_other_program_has() {
    let [first, second] = orders_of_a_hash_map("build-script-build");
    assert_eq!(first, second);
    let [first, second] = orders_of_a_hash_map("rustc");
    assert_ne!(first, second);
}

/// Two builds are equal only if neither has a path of its machine; `make soak` compares two builds from nothing.
#[test]
fn no_path_of_this_machine_is_in_the_programs() {
    let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cargo");
    let cargo = env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from);
    let has = |program: &Path, text: &str| {
        let found = Command::new("grep").args(["-qaF", "--", text]).arg(program).status().unwrap();
        found.success()
    };
    for name in ["kubervisor", "kubectl-kubervisor"] {
        let program = file_system().join("usr/local/bin").join(name);
        assert!(has(&program, "/cargo/registry/"), "{name}: the compiler names its sources");
        for path in [root(), &cargo] {
            assert!(!has(&program, path.to_str().unwrap()), "{name} has {}", path.display());
        }
    }
}

#[test]
fn the_same_programs_packed_in_another_folder_give_the_same_digest() {
    let other = tempfile::tempdir().unwrap();
    fs::copy(root().join("scripts/pack-image"), other.path().join("pack-image")).unwrap();
    fs::copy(root().join("Cargo.toml"), other.path().join("Cargo.toml")).unwrap();
    let config = document(text(&document(&image().1), "/config/digest"));
    let mut pack = Command::new("./pack-image");
    pack.args(["again.tar", text(&config, "/architecture")])
        .arg(file_system().join("usr/local/bin"))
        .current_dir(other.path());
    let packed = pack.output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    assert_eq!(image().1, String::from_utf8(packed.stdout).unwrap().trim());
    let archive = |path: PathBuf| fs::read(path).unwrap();
    let equal =
        archive(root().join("target/image/kubervisor.tar")) == archive(other.path().join("again.tar"));
    assert!(equal, "one digest, and the archives differ");
}

#[test]
fn the_image_has_the_programs_certificates_and_time_zones_and_nothing_else() {
    let layer = blob(text(&document(&image().1), "/layers/0/digest"));
    let names: BTreeSet<String> =
        tar(&["-tzf", layer.to_str().unwrap()]).lines().map(str::to_owned).collect();
    let zones = names.iter().filter(|name| name.starts_with("usr/share/zoneinfo/")).count();
    assert!(zones > 300 && names.contains("usr/share/zoneinfo/Europe/Berlin"), "{zones}");
    let others: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("usr/share/zoneinfo") && !name.ends_with('/'))
        .collect();
    let expected = [
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/local/bin/kubectl-kubervisor",
        "usr/local/bin/kubervisor",
    ];
    assert_eq!(others, expected, "no shell, no library, no package manager");
    let certificates = fs::read_to_string(file_system().join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(certificates.matches("BEGIN CERTIFICATE").count() > 50);
}

#[test]
fn the_image_says_who_runs_what_and_carries_the_labels_of_the_standard() {
    let manifest = document(&image().1);
    let config = document(text(&manifest, "/config/digest"));
    assert_eq!(text(&config, "/config/User"), "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/local/bin/kubervisor"]));
    let labels: BTreeMap<String, String> =
        serde_json::from_value(config["config"]["Labels"].clone()).unwrap();
    let prefix = "org.opencontainers.image.";
    for label in ["title", "description", "version", "licenses", "created", "revision"] {
        assert!(
            labels.get(&format!("{prefix}{label}")).is_some_and(|value| !value.is_empty()),
            "{label}: {labels:?}"
        );
    }
    assert_eq!(labels[&format!("{prefix}version")], env!("CARGO_PKG_VERSION"));
    let index: Value = serde_json::from_slice(&fs::read(image().0.join("index.json")).unwrap()).unwrap();
    assert_eq!(
        text(&index, "/manifests/0/annotations/io.containerd.image.name"),
        "kubervisor.test/kubervisor:dev"
    );
    let mut layer = Vec::new();
    GzDecoder::new(fs::File::open(blob(text(&manifest, "/layers/0/digest"))).unwrap())
        .read_to_end(&mut layer)
        .unwrap();
    assert!(layer.len() > 1 << 20);
}

#[test]
fn the_archive_has_at_most_25_mb() {
    let bytes = {
        image();
        fs::metadata(root().join("target/image/kubervisor.tar")).unwrap().len()
    };
    println!("image, compressed: {:.1} MB", bytes as f64 / 1e6);
    assert!(bytes <= 25_000_000, "{bytes} bytes");
}

#[test]
fn the_bill_of_materials_names_every_crate_with_its_version() {
    image();
    let bill =
        fs::read_to_string(root().join("target/image/kubervisor.cdx.json")).expect("run scripts/need image");
    let bill: Value = serde_json::from_str(&bill).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let components = bill["components"].as_array().unwrap();
    for name in ["tokio", "kube", "rustls", "hyper"] {
        let found = components.iter().find(|component| component["name"] == name);
        assert!(
            found.is_some_and(|component| component["version"].is_string() && component["purl"].is_string()),
            "{name}"
        );
    }
    assert!(components.len() > 100, "{}", components.len());
}

/// A program of the image, in its file system, as this user.
fn run(user: u32, program: &str) -> Command {
    // The empty environment has no PATH, by which `chroot` would be found.
    let mut command = Command::new("/usr/sbin/chroot");
    command
        .arg(format!("--userspec={user}:{user}"))
        .arg(file_system())
        .arg(format!("/usr/local/bin/{program}"));
    command.env_clear().stdin(Stdio::null());
    command
}

#[test]
fn both_programs_run_without_any_library_as_any_user() {
    for (user, program) in [65532, 0, 12_345]
        .into_iter()
        .flat_map(|user| ["kubervisor", "kubectl-kubervisor"].map(|program| (user, program)))
    {
        let done = run(user, program).arg("--version").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success() && said.contains(env!("CARGO_PKG_VERSION")),
            "{user} {program}: {said}"
        );
    }
}

#[test]
fn the_plugins_archive_has_program_completion_and_licence_and_krews_manifest_its_checksum() {
    image();
    let mut pack = Command::new(root().join("scripts/plugin-archive"));
    let packed = pack.env("CARGO_TARGET_DIR", root().join("target")).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let archive = PathBuf::from(String::from_utf8(packed.stdout).unwrap().trim());
    let folder = tempfile::tempdir().unwrap();
    tar(&["-xzf", archive.to_str().unwrap(), "-C", folder.path().to_str().unwrap()]);
    let mut files: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    assert_eq!(files, ["LICENSE", "kubectl-kubervisor", "kubectl_complete-kubervisor"]);
    let version = Command::new(folder.path().join("kubectl-kubervisor")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));

    let summed = Command::new("sha256sum").arg(&archive).output().unwrap();
    let sum = String::from_utf8(summed.stdout).unwrap().split(' ').next().unwrap().to_owned();
    let read = |name: &str| fs::read_to_string(archive.with_file_name(name)).unwrap();
    let name = archive.file_name().unwrap().to_str().unwrap();
    assert_eq!(read(&format!("{name}.sha256")), format!("{sum}  {name}\n"));
    let manifest: Value = serde_saphyr::from_str(&read("kubervisor.yaml")).unwrap();
    assert_eq!(manifest["spec"]["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    let ours = platforms.iter().find(|platform| text(platform, "/uri").ends_with(name)).unwrap();
    assert_eq!(text(ours, "/sha256"), sum);
    for file in ours["files"].as_array().unwrap() {
        assert!(files.contains(&text(file, "/from").to_owned()), "{file}");
    }
}

/// From the start to the first 200 of /ready, and the resident memory then.
async fn start(kubeconfig: &str) -> (Duration, f64) {
    let port = ports::free(Ipv4Addr::LOCALHOST).port();
    let mut controller = run(65532, "kubervisor");
    controller.args([
        "controller",
        "--kubeconfig",
        kubeconfig,
        "--admin-addr",
        "off",
        "--addr",
        &format!("127.0.0.1:{port}"),
    ]);
    let began = Instant::now();
    let mut child = controller.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (http, url) = (reqwest::Client::new(), format!("http://127.0.0.1:{port}/ready"));
    while http.get(&url).send().await.map_or(0, |answer| answer.status().as_u16()) != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "not ready within 30 s: {:?}", child.try_wait());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    (took, kilobytes * 1024.0 / MIB)
}

#[tokio::test]
async fn the_controller_of_the_image_is_ready_within_300_ms_and_rests_within_20_mib() {
    let plane = plane::shared().await;
    let definition = root().join("crds/kubervisorservices.yaml");
    let made =
        plane.kubectl(User::Admin, &["apply", "--server-side", "-f", definition.to_str().unwrap()], "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::copy(plane.kubeconfig(User::Kubervisor), file_system().join("tmp/kubeconfig")).unwrap();
    let copied = file_system().join("tmp/kubeconfig");
    std::os::unix::fs::chown(&copied, Some(65532), Some(65532)).unwrap();
    // The definition is served a moment after it was made.
    start("/tmp/kubeconfig").await;
    let mut starts = Vec::new();
    for _ in 0..7 {
        starts.push(start("/tmp/kubeconfig").await);
    }
    fs::remove_file(copied).unwrap();
    starts.sort_by_key(|(took, _)| *took);
    let (took, resident) = starts[3];
    println!(
        "start to ready: median {} ms of 7, best {} ms; RSS at rest {resident:.1} MiB",
        took.as_millis(),
        starts[0].0.as_millis()
    );
    // The best one: other work on the machine makes the median longer.
    assert!(starts[0].0 <= Duration::from_millis(300), "{starts:?}");
    assert!(resident <= 20.0, "{starts:?}");
}
