//! What people see of a live master: pages, probes, and the terminal's view of them.

use crate::stage::{Puppet, Stage, TTL, get, keeping_alive, kubervisor, said, until};

#[tokio::test]
async fn pages_and_probes_of_a_live_master() {
    let stage = Stage::new();
    let master = stage
        .master(1)
        .env("KUBERVISOR_ENDPOINTS", stage.file("endpoints").display())
        .env("KUBERVISOR_TARGET_PORT", 80)
        .start()
        .await;
    let mut pods: Vec<_> = (2..6).map(|host| Puppet::new(&stage, host)).collect();
    let listed = async {
        until("the file lists them", async || stage.lines("endpoints").len() == 4).await;
        until("they serve", async || {
            let service = master.page("services/test/shop").await;
            service["pods"].as_array().is_some_and(|pods| pods.len() == 4)
        })
        .await;
        let probe =
            async |path: &str| get(&format!("http://{}/{path}", master.probes.unwrap())).await.unwrap();
        assert_eq!(probe("live").await, (200, "alive\n".to_owned()));
        assert_eq!(probe("ready").await, (200, "ready\n".to_owned()));
        assert_eq!(probe("services").await.0, 404, "that is the other port's");
        let ensemble = master.page("ensemble").await;
        assert_eq!(ensemble["leadership"]["posture"], "leading");
        assert_eq!(ensemble["ttlSeconds"], TTL);
        let pod = &ensemble["pods"][0];
        assert_eq!((&pod["id"], &pod["seq"], &pod["status"]), (&"pod-2".into(), &0.into(), &"live".into()));
        assert!(pod["ageSeconds"].as_f64().unwrap() < TTL);
        let cluster = master.page("cluster").await;
        assert_eq!(cluster["name"], "/kontrol/test/shop/");
        assert_eq!(cluster["members"].as_array().unwrap().len(), 1);
        let services = master.page("services").await;
        assert_eq!(services["services"][0]["name"], "shop");
        assert_eq!(services["services"][0]["floor"]["floor"], 2, "half of four");
        // Explained by id, by key and by address.
        let key = pod["key"].as_str().unwrap();
        for name in ["pod-2", key, pod["ip"].as_str().unwrap()] {
            let told = master.page(&format!("explain/test/{name}")).await;
            assert_eq!(told["pod"]["id"], "pod-2", "{name}: {told}");
        }
        let missing = get(&format!("http://{}/explain/test/nobody", master.admin.unwrap())).await.unwrap();
        assert_eq!(missing.0, 404, "{}", missing.1);
    };
    keeping_alive(&master, &mut pods, listed).await;
}

#[tokio::test]
async fn status_and_explain_in_a_terminal() {
    let stage = Stage::new();
    stage.write("answer", r#"{"traffic": {"pod-3": "withhold"}}"#);
    let master = stage
        .master(1)
        .env("KUBERVISOR_ENDPOINTS", stage.file("endpoints").display())
        .env("KUBERVISOR_TARGET_PORT", 80)
        .env("KUBERVISOR_FLEET_SIZE", 4)
        .start()
        .await;
    let admin = master.admin.unwrap().to_string();
    let env = [("KUBERVISOR_ADMIN_ADDR", admin.as_str())];
    let mut pods: Vec<_> = (2..6).map(|host| Puppet::new(&stage, host)).collect();
    let shown = async {
        master.until_withheld("pod-3").await;
        // On another thread: this one keeps the pods alive.
        let ask = async |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let asked = tokio::task::spawn_blocking(move || {
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                kubervisor(&arguments, &[(&env[0].0, &env[0].1)])
            });
            asked.await.unwrap()
        };
        let output = ask(&["status"]).await;
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        let line =
            text.lines().find(|line| line.contains("pod-3") && line.contains("no")).unwrap_or_default();
        assert!(line.contains(&format!("{}:80", stage.ip(3))), "{text}");
        assert!(text.contains("cluster /kontrol/test/shop/  leading  masters 1  pods 4  digest "), "{text}");
        assert!(text.contains("floor"), "the arithmetic: {text}");
        let output = ask(&["explain", "pod-3", "--namespace", "test"]).await;
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.starts_with("traffic no\npod-3: "), "{text}");
        assert!(text.lines().any(|line| line.contains("  withheld; callback")), "the history: {text}");
        let output = ask(&["explain", "nobody", "--namespace", "test"]).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("/ensemble"), "{}", said(&output));
        let output = ask(&["status", "--json"]).await;
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(all["cluster"]["members"].as_array().unwrap().len(), 1);
    };
    keeping_alive(&master, &mut pods, shown).await;
    let nobody = kubervisor(&["status", "--admin-addr", &format!("{}:1", stage.ip(99))], &[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(said(&nobody).contains("is a master running there?"), "{}", said(&nobody));
}
