//! Callbacks that heal: signed commands from a master's callback to an agent, and who else may not.

use std::time::Duration;

use crate::stage::{PROGRAM, Stage, get, kubervisor, said, until};

/// A key pair of `kubervisor keygen`.
fn keys(stage: &Stage) -> (String, String) {
    let private = stage.file("key.pem").display().to_string();
    let output = kubervisor(&["keygen", "--out", &private], &[]);
    assert!(output.status.success(), "{}", said(&output));
    let public = format!("{private}.pub");
    (private, public)
}

#[tokio::test]
async fn a_callback_heals_a_pod_by_a_signed_command() {
    let stage = Stage::new();
    let (private, public) = keys(&stage);
    // The pod's target is looked up in PODS; its own address and port are in the payload.
    let heal = stage.script(
        "heal.sh",
        &format!(
            "#!/bin/sh\n\
             grep -q '\"state\":\"down\"' \"$PODS_FILE\" || exit 0\n\
             target=$(sed 's/.*\"agent\":\"\\([^\"]*\\)\".*/\\1/' \"$PODS_FILE\")\n\
             {PROGRAM} invoke \"$target\" --timeout 10 --json why=ill --cmd 'echo healed by $KONTROL_ID; cat > {input}; cp {up} {payload}' \
             >> {out} 2>&1\n\
             echo \"exit $?\" >> {out}\n",
            input = stage.file("input").display(),
            up = stage.file("up").display(),
            payload = stage.file("payload").display(),
            out = stage.file("healed").display(),
        ),
    );
    let master = stage
        .master(1)
        .env("KONTROL_CALLBACK", heal.display())
        .env("KONTROL_INVOKE_KEY_FILE", &private)
        .start()
        .await;
    let agent = stage
        .agent(2, &[&master])
        .env("KONTROL_PAYLOAD", stage.file("payload").display())
        .env("KONTROL_INVOKE_PUBKEY_FILE", &public);
    let address = agent.address;
    let payload = |state: &str| format!("{{\"agent\":\"{address}\",\"state\":\"{state}\"}}");
    stage.write("up", &payload("up"));
    stage.write("payload", &payload("down"));
    let _agent = agent.start().await;
    until("it is healed", async || stage.lines("healed").contains(&"exit 0".to_owned())).await;
    assert!(stage.read("healed").starts_with("healed by"), "{}", stage.read("healed"));
    assert!(
        stage.read("input").contains("\"why\":\"ill\""),
        "the whole request is on stdin: {}",
        stage.read("input")
    );
    until("and says so", async || stage.read("payload").contains("up")).await;
}

#[tokio::test]
async fn the_example_heals_for_real() {
    let stage = Stage::new();
    let (private, public) = keys(&stage);
    std::os::unix::fs::symlink(PROGRAM, stage.file("kubervisor")).unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/self_heal.py");
    let path = format!("{}:{}", stage.file("").display(), std::env::var("PATH").unwrap());
    let up = stage.write("up", r#"{"state": "up"}"#);
    let payload = stage.write("payload", r#"{"state": "down"}"#);
    let master = stage
        .master(1)
        .env("KONTROL_CALLBACK", example)
        .env("PATH", path)
        .env("HEAL", format!("cp {} {}", up.display(), payload.display()))
        .env("KONTROL_INVOKE_KEY_FILE", &private);
    // The example takes every agent to be on the master's port, as in a cluster.
    let port = master.address.port();
    let master = master.start().await;
    let mut agent = stage
        .agent(2, &[&master])
        .env("KONTROL_PORT", port)
        .env("KONTROL_PAYLOAD", payload.display())
        .env("KONTROL_INVOKE_PUBKEY_FILE", &public);
    agent.address.set_port(port);
    let _agent = agent.start().await;
    until("it is healed", async || stage.read("payload").contains("up")).await;
    until("and the example forgets it", async || {
        get(&format!("http://{}/state", master.address)).await.unwrap().1.trim() == r#"{"tried": {}}"#
    })
    .await;
}

#[tokio::test]
async fn who_has_no_key_or_another_one_runs_nothing() {
    let stage = Stage::new();
    let (_, public) = keys(&stage);
    let master = stage.master(1).start().await;
    let agent = stage.agent(2, &[&master]).env("KONTROL_INVOKE_PUBKEY_FILE", &public).start().await;
    let target = agent.address.to_string();
    let touch = format!("touch {}", stage.file("touched").display());
    let other = stage.file("other.pem").display().to_string();
    assert!(kubervisor(&["keygen", "--out", &other], &[]).status.success());
    let unsigned = kubervisor(&["invoke", &target, "--cmd", &touch], &[]);
    let forged =
        kubervisor(&["invoke", &target, "--id", &agent.id, "--key-file", &other, "--cmd", &touch], &[]);
    for output in [unsigned, forged] {
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
    assert!(!stage.file("touched").exists());
}

#[tokio::test]
async fn a_pure_master_runs_no_command() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    let connection = kubervisor::adapters::wire::client::Connection::connect(
        &master.target(),
        None,
        Duration::from_secs(5),
    )
    .await
    .unwrap();
    let answer = connection.invoke(r#"{"cmd": "id"}"#, Duration::from_secs(5)).await;
    assert_eq!(answer.unwrap(), None, "as the original");
}
