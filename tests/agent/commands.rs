//! `kubervisor invoke` against an agent, as processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;
use tokio::time::timeout;

use crate::fixture::{Agent, CAP, Master, Recipe, address, kubervisor, with_hosts};

/// Runs the binary to its end.
async fn run(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = kubervisor(arguments);
    command.envs(env.iter().copied());
    timeout(CAP, command.output()).await.expect("it ends in time").unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Keys in a directory, made by `keygen`.
struct Keys {
    folder: TempDir,
}

impl Keys {
    async fn make() -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap() };
        let (code, _, stderr) = said(&run(&["keygen", "--out", &keys.private()], &[]).await);
        assert_eq!(code, Some(0), "{stderr}");
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn private(&self) -> String {
        self.path("key.pem").display().to_string()
    }

    fn public(&self) -> String {
        self.path("key.pem.pub").display().to_string()
    }
}

struct Scene {
    recipe: Recipe,
    keys: Keys,
    _master: Master,
    _agent: Agent,
}

impl Scene {
    async fn signed() -> Self {
        Self::with(|recipe, keys| recipe.with("KONTROL_INVOKE_PUBKEY_FILE", keys.public())).await
    }

    async fn with(settings: impl FnOnce(Recipe, &Keys) -> Recipe) -> Self {
        let (master, keys) = (Master::open(), Keys::make().await);
        let recipe = settings(Recipe::of_master(&master).quiet(), &keys);
        let _agent = recipe.start_listening().await;
        Self { recipe, keys, _master: master, _agent }
    }

    /// `kubervisor invoke` with our key.
    async fn invoke(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let key = self.keys.private();
        self.invoke_with(&[&["--key-file", key.as_str()], more].concat(), &[]).await
    }

    async fn invoke_with(&self, more: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let endpoint = self.recipe.endpoint();
        said(&run(&[&["invoke", endpoint.as_str()], more].concat(), env).await)
    }
}

#[tokio::test]
async fn a_signed_command_runs_and_its_output_comes_back() {
    let scene = Scene::signed().await;
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "echo one; echo; echo two"]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "one\n\ntwo\n"), "{stderr}");
}

#[tokio::test]
async fn a_command_that_fails_says_so_by_the_exit_code() {
    let scene = Scene::signed().await;
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "echo why; exit 3"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), "why\n"));
    assert!(stderr.contains("exit code 3"), "{stderr}");
}

#[tokio::test]
async fn a_command_reads_the_whole_request_on_stdin_and_in_input_and_nothing_of_our_environment() {
    let scene = Scene::signed().await;
    let script = r#"test "$(cat)" = "$INPUT" && printf '%s\n' "$INPUT"; env | cut -d= -f1 | sort"#;
    let (code, stdout, stderr) =
        scene.invoke(&["--id", "web-1", "--cmd", script, "--json", "n=1.50", "--json", "why=just so"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let (request, names) = stdout.split_once('\n').unwrap();
    let request: serde_json::Value = serde_json::from_str(request).unwrap();
    assert_eq!((request["n"].as_f64(), request["why"].as_str()), (Some(1.5), Some("just so")));
    assert_eq!(request["cmd"], script);
    assert!(!names.contains("KONTROL"), "{names}");
    assert!(names.contains("INPUT") && names.contains("PATH") && names.contains("HOME"), "{names}");
}

#[tokio::test]
async fn a_large_request_comes_on_stdin_only() {
    let scene = Scene::signed().await;
    let (big, cmd) =
        (format!("big={}", "x".repeat(100_000)), format!("echo ${{#INPUT}}; wc -c # {}", "y".repeat(60_000)));
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-1", "--cmd", &cmd, "--json", &big]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let mut lines = stdout.lines();
    assert_eq!(lines.next(), Some("0"));
    assert!(lines.next().unwrap().trim().parse::<usize>().unwrap() > 160_000);
}

#[tokio::test]
async fn an_order_for_another_agent_is_refused() {
    let scene = Scene::signed().await;
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-2", "--cmd", "echo no"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("does not fit"), "{stderr}");
}

#[tokio::test]
async fn an_order_signed_by_a_stranger_is_refused() {
    let (scene, stranger) = (Scene::signed().await, Keys::make().await);
    let key = stranger.private();
    let (code, stdout, stderr) =
        scene.invoke_with(&["--key-file", &key, "--id", "web-1", "--cmd", "echo no"], &[]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("does not fit"), "{stderr}");
}

#[tokio::test]
async fn an_unsigned_order_is_refused_and_says_what_to_do() {
    let scene = Scene::signed().await;
    let (code, stdout, stderr) = scene.invoke_with(&["--cmd", "echo no"], &[]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("--key-file"), "{stderr}");
}

#[tokio::test]
async fn commands_are_off_by_default() {
    let scene = Scene::with(|recipe, _| recipe).await;
    let (code, _, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "echo no"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("commands are off"), "{stderr}");
}

#[tokio::test]
async fn an_open_agent_runs_anybodys_command() {
    let scene = Scene::with(|recipe, _| recipe.with("KONTROL_INVOKE", "open")).await;
    let (code, stdout, stderr) = scene.invoke_with(&["--cmd", "echo yes; exit 1"], &[]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), "yes\n"), "{stderr}");
    // The original's other door.
    let url = format!("http://{}/script", scene.recipe.endpoint());
    let _ring = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::Client::new().put(url).body(r#"{"cmd":"echo a; echo b"}"#).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "a\nb");
}

#[tokio::test]
async fn only_named_commands_run_where_there_is_an_allow_list() {
    let allow = |keys: &Keys| {
        fs::write(keys.path("allow.yaml"), "greet: echo \"hello $(cat | wc -c)\" > /dev/null; echo hi\n")
            .unwrap();
        keys.path("allow.yaml").display().to_string()
    };
    let scene = Scene::with(|recipe, keys| {
        recipe.with("KONTROL_INVOKE_PUBKEY_FILE", keys.public()).with("KONTROL_INVOKE_ALLOW", allow(keys))
    })
    .await;
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "greet"]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "hi\n"), "{stderr}");
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "echo no"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("allow-list"), "{stderr}");
}

#[tokio::test]
async fn inside_a_callback_the_id_is_looked_up() {
    let scene = Scene::signed().await;
    let pods = format!(r#"[{{"id":"web-1","ip":"{}","seq":0}}]"#, scene.recipe.ip);
    let key = scene.keys.private();
    let in_callback = [("PODS", pods.as_str()), ("KONTROL_INVOKE_KEY_FILE", key.as_str())];
    assert_eq!(scene.invoke_with(&["--cmd", "echo yes"], &in_callback).await.1, "yes\n");
    let file = scene.keys.path("pods.json");
    fs::write(&file, &pods).unwrap();
    let file = file.display().to_string();
    let in_callback = [("PODS_FILE", file.as_str()), ("KONTROL_INVOKE_KEY_FILE", key.as_str())];
    assert_eq!(scene.invoke_with(&["--cmd", "echo yes"], &in_callback).await.1, "yes\n");
    let (code, _, stderr) = scene.invoke(&["--cmd", "echo no"]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--id"), "{stderr}");
}

#[tokio::test]
async fn when_the_time_runs_out_the_exit_code_is_124() {
    let scene = Scene::signed().await;
    let (code, _, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "sleep 5", "--timeout", "0.7"]).await;
    assert_eq!(code, Some(124), "{stderr}");
}

#[tokio::test]
async fn where_nobody_listens_it_fails_with_one() {
    let (code, _, stderr) = said(&run(&["invoke", "127.0.0.1:1", "--cmd", "x"], &[]).await);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
}

#[tokio::test]
async fn keys_that_openssl_made_work_for_both_sides() {
    let openssl = |folder: &Path, arguments: &[&str]| {
        let done =
            std::process::Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let scene = Scene::with(|recipe, keys| {
        let folder = keys.folder.path();
        fs::remove_file(keys.private()).unwrap();
        openssl(folder, &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"]);
        openssl(folder, &["pkey", "-in", "key.pem", "-pubout", "-out", "key.pem.pub"]);
        recipe.with("KONTROL_INVOKE_PUBKEY_FILE", keys.public())
    })
    .await;
    let (code, stdout, stderr) = scene.invoke(&["--id", "web-1", "--cmd", "echo yes"]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "yes\n"), "{stderr}");
}

#[tokio::test]
async fn keygen_writes_a_private_file_and_never_over_another() {
    use std::os::unix::fs::PermissionsExt;
    let keys = Keys::make().await;
    let mode = |path: String| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(keys.private()), 0o600);
    let before = fs::read_to_string(keys.private()).unwrap();
    let (code, _, stderr) = said(&run(&["keygen", "--out", &keys.private()], &[]).await);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("there already"), "{stderr}");
    assert_eq!(fs::read_to_string(keys.private()).unwrap(), before);
    // A public key that is in the way takes the new private one with it.
    fs::remove_file(keys.private()).unwrap();
    let (code, _, _) = said(&run(&["keygen", "--out", &keys.private()], &[]).await);
    assert_eq!(code, Some(2));
    assert!(!Path::new(&keys.private()).exists());
}

/// Found under load: the connection's own deadline was seen before the whole one, and the exit code was 1.
#[tokio::test]
async fn when_the_time_runs_out_on_a_mute_peer_the_exit_code_is_124_too() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = mute.local_addr().unwrap().to_string();
    for _ in 0..5 {
        let (code, _, stderr) =
            said(&run(&["invoke", &endpoint, "--cmd", "x", "--timeout", "0.2"], &[]).await);
        assert_eq!(code, Some(124), "{stderr}");
    }
}

#[tokio::test]
async fn a_signed_command_reaches_its_agent_past_a_frozen_machine_of_the_same_name() {
    let scene = Scene::signed().await;
    let (frozen, port) = (address(), scene.recipe.port);
    // The kernel takes connections for it, and nobody answers.
    let _mute = std::net::TcpListener::bind((frozen, port)).unwrap();
    for addresses in [[frozen, scene.recipe.ip], [scene.recipe.ip, frozen]] {
        let hosts: String = addresses.iter().map(|address| format!("{address} agents\n")).collect();
        let Some(command) = with_hosts(scene.keys.folder.path(), &hosts) else { return };
        let (target, key) = (format!("agents:{port}"), scene.keys.private());
        let mut invoke = tokio::process::Command::new(&command[0]);
        invoke.args(&command[1..]).args([env!("CARGO_BIN_EXE_kubervisor"), "invoke", &target]);
        invoke.args(["--key-file", &key, "--id", "web-1", "--cmd", "echo reached"]);
        let output = timeout(CAP, invoke.output()).await.expect("it ends in time").unwrap();
        let (code, stdout, stderr) = said(&output);
        assert_eq!((code, stdout.trim()), (Some(0), "reached"), "{stderr}");
    }
}
