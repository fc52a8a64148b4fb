//! The command queue without a network: replays, expiry, order.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use kubervisor::{
    adapters::commands::CommandQueue,
    adapters::{
        commands::{
            request::{InvokeProof, Offer, Reply},
            signing::{Challenge, PrivateKey, SignedOrder},
        },
        wire::{Refusal, RefusalKind},
    },
    clock::Clock,
    config::{Identity, InvokePolicy, RunAs},
    exit::Exit,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PORT: u16 = 8000;
const OURS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), PORT);

fn identity() -> Identity {
    Identity {
        namespace: "default".into(),
        id: "web-1".into(),
        ip: *OURS.ip(),
        app: "shop".into(),
        role: "web".into(),
        labels: [].into(),
        annotations: [].into(),
    }
}

fn open_queue(policy: &InvokePolicy) -> Result<CommandQueue, Exit> {
    CommandQueue::open(&identity(), PORT, policy, &RunAs::Ourselves, Clock::start())
}

fn peer() -> SocketAddr {
    "127.9.9.9:1".parse().unwrap()
}

struct Scene {
    folder: TempDir,
    key: PrivateKey,
    queue: CommandQueue,
}

impl Scene {
    fn signed() -> Self {
        Self::with_allow(None)
    }

    fn with_allow(allow: Option<&str>) -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), PrivateKey::draw().unwrap());
        let public_key = folder.path().join("key.pub");
        fs::write(&public_key, key.public().to_pem().unwrap()).unwrap();
        let allow = allow.map(|text| {
            let path = folder.path().join("allow");
            fs::write(&path, text).unwrap();
            path
        });
        let queue = open_queue(&InvokePolicy::Signed { public_key, allow }).unwrap();
        Self { folder, key, queue }
    }

    fn challenge(&self) -> Challenge {
        let offer: Offer = serde_json::from_str(&self.queue.challenge(peer()).unwrap()).unwrap();
        offer.challenge().unwrap()
    }

    /// A request for `cmd`, signed for this address and id.
    fn signed_for(&self, challenge: &Challenge, address: SocketAddrV4, agent: &str, cmd: &str) -> Value {
        let order = SignedOrder { challenge, address, agent, cmd, members: &[] };
        let proof = InvokeProof::signed(challenge, &self.key.sign(&order));
        json!({ "cmd": cmd, "kubervisor": proof })
    }

    fn order(&self, cmd: &str) -> Value {
        self.signed_for(&self.challenge(), OURS, "web-1", cmd)
    }

    async fn hand_in(&self, request: &Value) -> Result<Option<String>, Refusal> {
        self.queue.invoke(peer(), Bytes::from(request.to_string())).await
    }

    async fn stdout(&self, request: &Value) -> String {
        let reply: Reply = serde_json::from_str(&self.hand_in(request).await.unwrap().unwrap()).unwrap();
        reply.stdout
    }

    async fn refused(&self, request: &Value) -> String {
        let refusal = self.hand_in(request).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
        refusal.message
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test]
async fn a_signed_command_runs_once_and_its_replay_is_refused() {
    let scene = Scene::signed();
    let order = scene.order("echo yes");
    assert_eq!(scene.stdout(&order).await, "yes");
    let why = scene.refused(&order).await;
    assert!(why.contains("used before"), "{why}");
}

#[tokio::test]
async fn whatever_is_changed_the_signature_does_not_fit_any_more() {
    let scene = Scene::signed();
    let elsewhere = SocketAddrV4::new(*OURS.ip(), PORT + 1);
    let other_ip = SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 4), PORT);
    for forged in [
        scene.signed_for(&scene.challenge(), elsewhere, "web-1", "echo no"),
        scene.signed_for(&scene.challenge(), other_ip, "web-1", "echo no"),
        scene.signed_for(&scene.challenge(), OURS, "web-2", "echo no"),
        {
            let mut order = scene.order("echo no");
            order["cmd"] = "echo No".into();
            order
        },
        {
            let mut order = scene.order("echo no");
            order["extra"] = 1.into();
            order
        },
    ] {
        let why = scene.refused(&forged).await;
        assert!(why.contains("does not fit"), "{why}");
    }
}

#[tokio::test]
async fn a_challenge_that_we_did_not_give_is_refused() {
    let scene = Scene::signed();
    let why = scene.refused(&scene.signed_for(&[7; 32], OURS, "web-1", "echo no")).await;
    assert!(why.contains("not ours"), "{why}");
}

#[tokio::test]
async fn a_failed_attempt_uses_its_challenge_up() {
    let scene = Scene::signed();
    let challenge = scene.challenge();
    scene.refused(&scene.signed_for(&challenge, OURS, "web-2", "echo no")).await;
    let why = scene.refused(&scene.signed_for(&challenge, OURS, "web-1", "echo no")).await;
    assert!(why.contains("used before"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_too_old_after_thirty_seconds() {
    let scene = Scene::signed();
    let (young, old) = (scene.order("echo no"), scene.order("echo no"));
    tokio::time::advance(Duration::from_secs(29)).await;
    // Checked on receipt: it is taken although it does not run before the first await.
    let taken = scene.queue.invoke(peer(), Bytes::from(young.to_string()));
    tokio::time::advance(Duration::from_secs(2)).await;
    let why = scene.refused(&old).await;
    assert!(why.contains("30 s"), "{why}");
    tokio::time::resume();
    assert!(taken.await.is_ok());
}

#[tokio::test]
async fn commands_run_one_at_a_time_and_in_order() {
    let scene = Scene::signed();
    let log = scene.path("log");
    let commands = (0..8).map(|n| {
        let line = format!("echo {n} in >> {0}; sleep 0.05; echo {n} out >> {0}", log.display());
        scene.queue.invoke(peer(), Bytes::from(scene.order(&line).to_string()))
    });
    let commands: Vec<_> = commands.collect();
    assert!(futures::future::join_all(commands).await.into_iter().all(|answer| answer.is_ok()));
    let expected: String = (0..8).map(|n| format!("{n} in\n{n} out\n")).collect();
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
}

#[tokio::test]
async fn what_was_taken_runs_to_its_end_even_if_the_caller_goes_away() {
    let scene = Scene::signed();
    let file = scene.path("done");
    let line = format!("sleep 0.2; echo yes > {}", file.display());
    let call = scene.queue.invoke(peer(), Bytes::from(scene.order(&line).to_string()));
    drop(call);
    let second = scene.order("echo second");
    assert_eq!(scene.stdout(&second).await, "second");
    assert_eq!(fs::read_to_string(file).unwrap(), "yes\n");
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let scene = Scene::signed();
    let calls: Vec<_> = (0..32)
        .map(|_| scene.queue.invoke(peer(), Bytes::from(scene.order("sleep 30").to_string())))
        .collect();
    let refusal = scene.hand_in(&scene.order("echo no")).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::TooMuch);
    drop(calls);
}

#[tokio::test]
async fn a_reply_says_how_the_command_ended_and_whether_there_was_more() {
    let scene = Scene::signed();
    let reply = async |cmd: &str| -> Value {
        serde_json::from_str(&scene.hand_in(&scene.order(cmd)).await.unwrap().unwrap()).unwrap()
    };
    assert_eq!(
        reply("printf 'a\\n\\nb\\n'").await,
        json!({ "stdout": "a\n\nb", "exit": 0, "truncated": false })
    );
    assert_eq!(reply("exit 7").await, json!({ "stdout": "", "exit": 7, "truncated": false }));
    assert_eq!(reply("kill -9 $$").await["exit"], 137);
    let flood = reply("head -c 1000000 /dev/zero").await;
    assert_eq!(flood["truncated"], true);
    assert!(flood.to_string().len() <= 1 << 20, "it fits a message: {}", flood.to_string().len());
}

#[tokio::test]
async fn what_is_no_command_is_none_and_what_is_malformed_is_said() {
    let scene = Scene::signed();
    assert_eq!(scene.hand_in(&json!({ "hello": 1 })).await, Ok(None));
    for raw in
        [r#"{"cmd":"#, "[]", r#"{"cmd":1}"#, r#"{"cmd":"a","cmd":"b"}"#, r#"{"cmd":"a","kubervisor":1}"#]
    {
        let refusal = scene.queue.invoke(peer(), Bytes::from(raw)).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Malformed, "{raw}");
    }
    let future = json!({ "cmd": "a", "kubervisor": { "v": 2 } });
    assert!(scene.hand_in(&future).await.unwrap_err().message.contains("version 2"));
    for unsigned in [json!({ "cmd": "a" }), json!({ "cmd": "a", "kubervisor": { "v": 1 } })] {
        scene.refused(&unsigned).await;
    }
}

#[tokio::test]
async fn an_allow_list_turns_commands_into_names() {
    let scene = Scene::with_allow(Some("hello: echo hi\n\"two words\": echo both\n"));
    assert_eq!(scene.stdout(&scene.order("hello")).await, "hi");
    assert_eq!(scene.stdout(&scene.order("two words")).await, "both");
    assert!(scene.refused(&scene.order("echo hi")).await.contains("KONTROL_INVOKE_ALLOW"));
}

#[tokio::test]
async fn an_open_desk_answers_as_the_original_did() {
    let queue = open_queue(&InvokePolicy::Open(None)).unwrap();
    let invoke = |raw: &'static str| queue.invoke(peer(), Bytes::from(raw));
    assert_eq!(invoke(r#"{"cmd":"echo a; echo b"}"#).await, Ok(Some("a\nb".into())));
    assert_eq!(invoke(r#"{"cmd":"echo a; false"}"#).await, Ok(Some("a".into())));
    assert_eq!(
        invoke(r#"{"cmd":"echo $INPUT","x":[1]}"#).await,
        Ok(Some(r#"{"cmd":"echo $INPUT","x":[1]}"#.into()))
    );
    assert_eq!(invoke(r#"{"x":1}"#).await, Ok(None));
    assert!(queue.challenge(peer()).is_err());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad");
    fs::write(&path, "- a list\n").unwrap();
    let policies = [
        InvokePolicy::Signed { public_key: path.clone(), allow: None },
        InvokePolicy::Signed { public_key: folder.path().join("none"), allow: None },
        InvokePolicy::Open(Some(path)),
        InvokePolicy::Open(Some(folder.path().join("none"))),
    ];
    for policy in &policies {
        let Err(Exit::Usage(text)) = open_queue(policy) else { panic!("taken: {policy:?}") };
        assert!(text.contains(folder.path().to_str().unwrap()), "{text}");
    }
    let off = open_queue(&InvokePolicy::Off).unwrap();
    assert_eq!(
        off.invoke(peer(), Bytes::from(r#"{"cmd":"x"}"#)).await.unwrap_err().kind,
        RefusalKind::Forbidden
    );
}
