//! A person's requests through the plugin: the gate carries them out, and their name is in Events and explanations.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    plane::{Plane, User},
    scene::{Scene, Stage, label},
    shop,
};

const REQUESTS: &str = "kubervisor/requests";

/// `kubectl kubervisor` in the scene's namespace.
fn plugin(stage: &Stage, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-kubervisor"))
        .args(arguments)
        .args(["-n", &stage.namespace])
        .env("KUBECONFIG", stage.plane.kubeconfig(User::Admin))
        .output()
        .unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Waits until the plugin explains the pod in these words.
async fn until_explained(scene: &Scene, pod: &str, words: &str) {
    let said = async || done(&plugin(&scene.stage, &["explain", pod])).contains(words);
    scene.until(&format!("{pod} is explained: {words}"), said).await;
}

#[tokio::test]
async fn a_person_withholds_a_pod_for_a_time_with_the_name_in_events_and_explain() {
    let scene = Scene::simple("asked", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    let began = Instant::now();
    let answer = done(&plugin(&scene.stage, &["withhold", &chosen, "--for", "5", "--reason", "bad disk"]));
    assert!(answer.contains("is to be withheld until") && answer.contains("explain"), "{answer}");
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    assert_eq!(label(&scene.pod(&chosen).await, "kubervisor/strategy").as_deref(), Some("person"));
    let note = scene.until_event("Pod", "Withheld").await;
    assert!(note.contains("person: asked for by") && note.contains("(as stated)"), "{note}");
    assert!(note.ends_with("bad disk"), "{note}");
    until_explained(&scene, &chosen, "bad disk").await;
    until_explained(&scene, &chosen, "the request ends at").await;
    scene.until_those("yes", 4).await;
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    scene.until_event("Pod", "Admitted").await;
}

#[tokio::test]
async fn people_cannot_take_more_than_the_floor_allows() {
    let scene = Scene::simple("askfloor", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    let names = scene.names().await;
    for pod in &names[..3] {
        done(&plugin(&scene.stage, &["withhold", &format!("pod/{pod}"), "--for", "1h"]));
    }
    let out = scene.until_those("no", 2).await;
    let third = names[..3].iter().find(|pod| !out.contains(pod)).unwrap();
    until_explained(&scene, third, "the floor allows no more to be withheld").await;
    scene.throughout(3, "never more", async || scene.those("no").await.len() == 2).await;
    // One that is taken back makes room for the other.
    done(&plugin(&scene.stage, &["resume", &format!("pod/{}", out[0])]));
    scene.until("the third is withheld", async || scene.those("no").await.contains(third)).await;
}

#[tokio::test]
async fn a_request_to_admit_beats_a_breaker_as_long_as_it_holds() {
    let scene = Scene::simple("askadmit", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    done(&plugin(&scene.stage, &["admit", &chosen, "--for", "1h", "--reason", "known"]));
    scene.until_those("yes", 4).await;
    let note = scene.until_event("Pod", "Admitted").await;
    assert!(note.contains("asked for by") && note.ends_with("known"), "{note}");
    until_explained(&scene, &chosen, "serves on a person's request").await;
    scene.throughout(4, "it serves", async || scene.those("yes").await.len() == 4).await;
    done(&plugin(&scene.stage, &["resume", &format!("pod/{chosen}")]));
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
}

#[tokio::test]
async fn a_pause_leaves_every_pod_as_it_is_until_it_is_resumed() {
    let scene = Scene::simple("askpause", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    done(&plugin(&scene.stage, &["pause", "web", "--for", "1h", "--reason", "load test"]));
    let note = scene.until_event("KubervisorService", "PauseRequested").await;
    assert!(note.contains("asked for by") && note.ends_with("load test"), "{note}");
    let gating = async || scene.condition("Gating").await.is_some_and(|it| it.reason == "PauseRequested");
    scene.until("the condition says so", gating).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.throughout(4, "nothing is withheld", async || scene.those("yes").await.len() == 4).await;
    until_explained(&scene, &chosen, "nothing is withheld at the moment").await;
    done(&plugin(&scene.stage, &["resume", "kvs/web", "--reason", "over"]));
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    let note = scene.until_event("KubervisorService", "PauseEnded").await;
    assert!(note.contains("asked for by") && note.ends_with("over"), "{note}");
}

#[tokio::test]
async fn a_dry_run_and_a_panic_win_over_requests() {
    let stage = Stage::set("askdry").await;
    let recipe =
        shop::Recipe::of("web", 4).breaker("slow", &stage.asks(), 0).spec("panicThreshold", json!(50));
    let scene = stage.play(&recipe).await;
    scene.until_condition("Ready", "True").await;
    let names = scene.names().await;
    done(&plugin(&scene.stage, &["withhold", &names[0], "--for", "1h"]));
    scene.until_withheld(&names[..1]).await;
    scene.bad(&names[1..]);
    scene.until_condition("Panic", "True").await;
    scene.until_those("yes", 4).await;
    scene.bad::<String>([]);
    scene.until_condition("Panic", "False").await;
    scene.until_withheld(&names[..1]).await;
    scene.set("dryRun", json!(true)).await;
    scene.until_those("yes", 4).await;
    // As an Event only where the rehearsal does not begin with the pod withheld.
    scene
        .until("the dry run would withhold it", async || {
            let status = scene.shop.resource().await.unwrap()["status"].take();
            let said = &status["explanations"][0];
            said["standing"] == "withheld"
                && said["why"].as_str().is_some_and(|why| why.contains("asked for by"))
        })
        .await;
}

#[tokio::test]
async fn requests_that_do_not_count_are_named_and_the_others_hold() {
    let scene = Scene::simple("askodd", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    done(&plugin(&scene.stage, &["withhold", &chosen, "--for", "1h"]));
    let resource = scene.shop.resource().await.unwrap();
    let good = resource["metadata"]["annotations"][REQUESTS].as_str().unwrap().to_owned();
    let endless = good.replace(r#""until":"2"#, r#""until":"9"#);
    let text = format!("nonsense\n{endless}\n{good}");
    scene.edit(json!({"metadata": {"annotations": {REQUESTS: text}}})).await;
    let found = scene.until_condition("RequestsRefused", "True").await;
    assert!(
        found.message.contains("line 1") && found.message.contains("line 2: until is more than 24 h"),
        "{found:?}"
    );
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    scene.edit(json!({"metadata": {"annotations": {REQUESTS: null}}})).await;
    scene.until("no longer named", async || scene.condition("RequestsRefused").await.is_none()).await;
    scene.until_those("yes", 4).await;
}

#[tokio::test]
async fn a_dry_run_of_the_command_stores_nothing_and_wrong_bounds_are_wrong_usage() {
    let scene = Scene::simple("askcheck", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    let answer = done(&plugin(&scene.stage, &["withhold", &chosen, "--dry-run"]));
    assert!(answer.contains("dry run: nothing is stored"), "{answer}");
    let resource = scene.shop.resource().await.unwrap();
    assert_eq!(resource["metadata"]["annotations"][REQUESTS], Value::Null);
    let long = "x".repeat(201);
    for arguments in [
        ["withhold", &chosen, "--for", "25h"],
        ["withhold", &chosen, "--for", "0"],
        ["admit", &chosen, "--reason", &long],
    ] {
        assert_eq!(plugin(&scene.stage, &arguments).status.code(), Some(2), "{arguments:?}");
    }
    let missing = plugin(&scene.stage, &["withhold", "no-such-pod"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no pod no-such-pod"));
    scene.set("paused", json!(true)).await;
    let refused = plugin(&scene.stage, &["resume", "web"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("take it out of the manifest"));
}

#[tokio::test]
async fn with_the_admission_policy_nobody_asks_under_another_name_and_names_are_not_marked() {
    let stage = Stage::set("asknames").await;
    let policy = std::fs::read_to_string("examples/kubernetes/requests.yaml").unwrap();
    // Only this namespace: other tests write such annotations themselves.
    let selector = "validationActions: [Deny]\n  matchResources:\n    namespaceSelector:\n      matchLabels:\n        kubernetes.io/metadata.name: ";
    let policy = policy.replace("validationActions: [Deny]", &format!("{selector}{}", stage.namespace));
    let applied = Plane::kubectl(&stage.plane, User::Admin, &["apply", "-f", "-"], &policy);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let recipe = shop::Recipe::of("web", 3).breaker("slow", &stage.asks(), 50);
    let shop = stage.fleet(&recipe).await;
    let controller = stage.controller().argument("--requests-checked").start();
    controller.ready().await;
    let scene = Scene { stage, shop, controller };
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    done(&plugin(&scene.stage, &["withhold", &chosen, "--for", "1h", "--reason", r#"by "bob""#]));
    let note = scene.until_event("Pod", "Withheld").await;
    assert!(note.contains("asked for by") && !note.contains("as stated"), "{note}");
    let resource = scene.shop.resource().await.unwrap();
    let own = resource["metadata"]["annotations"][REQUESTS].as_str().unwrap().to_owned();
    let name = serde_json::from_str::<Value>(&own).unwrap()["by"].as_str().unwrap().to_owned();
    let forged = own.replace(&format!(r#""by":"{name}""#), r#""by":"bob""#);
    let patch = json!({"metadata": {"annotations": {REQUESTS: forged}}}).to_string();
    let arguments = ["-n", &scene.stage.namespace, "patch", "kvs", "web", "--type", "merge", "-p", &patch];
    // The API server needs a moment to find a new policy.
    scene
        .until("another name is refused", async || {
            let patched = Plane::kubectl(&scene.stage.plane, User::Admin, &arguments, "");
            String::from_utf8_lossy(&patched.stderr).contains("has to name the user who makes it")
        })
        .await;
}
