//! `--view-addr` on a real API server: who reads is asked there, and sees the namespaces that it may read.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use reqwest::{Client, RequestBuilder, StatusCode, header, redirect::Policy};

use crate::{
    controller::Recipe as ControllerRecipe,
    plane::{self, Plane, User, until},
    ports,
    shop::{self, Recipe},
};

const NAME: &str = "view.test";

fn free() -> SocketAddr {
    ports::free(Ipv4Addr::LOCALHOST).into()
}

fn kubectl(plane: &Plane, arguments: &[&str], input: &str) -> String {
    let output = plane.kubectl(User::Admin, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A token of a new account that may get the resources of these namespaces; `None`: of all.
fn reader(plane: &Plane, home: &str, name: &str, namespaces: Option<&[&str]>) -> String {
    let account = format!("--serviceaccount={home}:{name}");
    kubectl(plane, &["create", "serviceaccount", name, "-n", home], "");
    let role = ["--verb=get", "--resource=kubervisorservices.kubervisor.k8s.io"];
    match namespaces {
        None => {
            let unique = format!("{home}-{name}");
            kubectl(plane, &["create", "clusterrole", &unique, role[0], role[1]], "");
            let cluster_role = format!("--clusterrole={unique}");
            kubectl(plane, &["create", "clusterrolebinding", &unique, &cluster_role, &account], "");
        }
        Some(namespaces) => {
            for namespace in namespaces {
                kubectl(plane, &["create", "role", name, "-n", namespace, role[0], role[1]], "");
                let of = format!("--role={name}");
                kubectl(plane, &["create", "rolebinding", name, "-n", namespace, &of, &account], "");
            }
        }
    }
    kubectl(plane, &["create", "token", name, "-n", home], "")
}

/// A certificate for [`NAME`] in two files, and a client that trusts it and finds the name at `at`.
fn secured(directory: &std::path::Path, at: SocketAddr) -> (String, String, Client) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let (certificate, key) = (directory.join("view.crt"), directory.join("view.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client =
        Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([root]).resolve(NAME, at);
    (certificate.display().to_string(), key.display().to_string(), client.build().unwrap())
}

async fn asked(request: RequestBuilder) -> (StatusCode, String) {
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn each_reader_sees_the_namespaces_whose_resources_it_may_get_and_nothing_without_a_token() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let (mine, other) = (plane.namespace(&client, "mine").await, plane.namespace(&client, "other").await);
    let signals = crate::signals::Signals::start();
    for namespace in [&mine, &other] {
        Recipe::of("web", 2)
            .breaker("errors", &signals.service("bad"), 50)
            .apply(&plane, &client, namespace)
            .await;
    }
    let (directory, at) = (tempfile::tempdir().unwrap(), free());
    let (certificate, key, browser) = secured(directory.path(), at);
    let controller = ControllerRecipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor))
        .namespace(&mine)
        .namespace(&other)
        .variable("KUBERVISOR_VIEW_ADDR", &at.to_string())
        .variable("KUBERVISOR_VIEW_TLS_CERT", &certificate)
        .variable("KUBERVISOR_VIEW_TLS_KEY", &key)
        .variable("KUBERVISOR_VIEW_HOST", NAME)
        .start();
    controller.ready().await;
    let url = |path: &str| format!("https://{NAME}:{}{path}", at.port());
    let get = |path: &str| browser.get(url(path));
    until("both are worked on", async || {
        let (_, page) = controller.admin("/view").await.ok()?;
        (page.contains(&format!("{mine}/web")) && page.contains(&format!("{other}/web"))).then_some(())
    })
    .await;

    // The right to ask is missing: said, with its name, and nothing is shown.
    let all = reader(&plane, &mine, "all", None);
    let (code, page) = asked(get("/view").bearer_auth(&all)).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{page}");
    assert!(page.contains("tokenreviews") && !page.contains("/web"), "{page}");
    kubectl(
        &plane,
        &[
            "create",
            "clusterrolebinding",
            "view-delegator",
            "--clusterrole=system:auth-delegator",
            "--user=kubervisor",
        ],
        "",
    );
    until("the right is in force", async || {
        (asked(get("/view").bearer_auth(&all)).await.0 == StatusCode::OK).then_some(())
    })
    .await;
    let (_, page) = asked(get("/view").bearer_auth(&all)).await;
    assert!(page.contains(&format!("{mine}/web")) && page.contains(&format!("{other}/web")), "{page}");
    assert_eq!(asked(get("/view/members").bearer_auth(&all)).await.0, StatusCode::OK);

    // Without a token: the form, on every page.
    for path in ["/view", "/view/live", "/view/members", &format!("/view/services/{mine}/web")] {
        let (code, page) = asked(get(path)).await;
        assert_eq!(code, StatusCode::UNAUTHORIZED, "{path}");
        assert!(page.contains("name=\"token\"") && !page.contains(&format!("{mine}/web")), "{page}");
    }
    assert_eq!(asked(get("/view").bearer_auth("nonsense")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(asked(get("/services").bearer_auth(&all)).await.0, StatusCode::NOT_FOUND, "JSON stays inside");

    // The form once, then the cookie.
    let one = reader(&plane, &mine, "one", Some(&[&mine]));
    let login = || browser.post(url("/view/login")).form(&[("token", &one)]);
    let (code, _) = asked(login().header("sec-fetch-site", "cross-site")).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "another site sends the form");
    let entered = login().header("sec-fetch-site", "same-origin").send().await.unwrap();
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    let cookie = entered.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains(&one), "the token stays with the server");
    let cookie = cookie.split(';').next().unwrap();
    let with_cookie = |path: &str| get(path).header(header::COOKIE, cookie);
    let (code, page) = asked(with_cookie("/view")).await;
    assert_eq!(code, StatusCode::OK, "{page}");
    assert!(page.contains(&format!("{mine}/web")) && !page.contains(&other), "{page}");
    assert_eq!(asked(with_cookie(&format!("/view/services/{mine}/web"))).await.0, StatusCode::OK);
    for hidden in [
        format!("/view/services/{other}/web"),
        format!("/view/live?of=service&namespace={other}&name=web"),
        "/view/ensemble".to_owned(),
        "/view/members".to_owned(),
    ] {
        let (code, page) = asked(with_cookie(&hidden)).await;
        assert_eq!(code, StatusCode::NOT_FOUND, "{hidden}: {page}");
    }
    let forged = cookie.replace('a', "b").replace('1', "2");
    assert_eq!(asked(get("/view").header(header::COOKIE, forged)).await.0, StatusCode::UNAUTHORIZED);

    // Another user's token shows another user's namespaces: here none.
    let nothing = reader(&plane, &mine, "nothing", Some(&[]));
    let (code, page) = asked(get("/view").bearer_auth(&nothing)).await;
    assert_eq!(code, StatusCode::OK);
    assert!(!page.contains("/web") && page.contains("No service"), "{page}");

    let (code, _) = asked(with_cookie("/view").header(header::HOST, "evil.example")).await;
    assert_eq!(code, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn the_page_of_a_service_has_its_events_and_what_a_dry_run_would_do() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "dry").await;
    let signals = crate::signals::Signals::start();
    let recipe =
        Recipe::of("web", 4).breaker("errors", &signals.service("bad"), 50).spec("dryRun", true.into());
    let shop = recipe.apply(&plane, &client, &namespace).await;
    let controller =
        ControllerRecipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor)).namespace(&namespace).start();
    controller.ready().await;
    let bad = shop.names().await.unwrap().remove(0);
    signals.bad("bad", &namespace, [bad.clone()]);
    let (page, _) = until("the page tells it", async || {
        let (_, page) = controller.admin(&format!("/view/services/{namespace}/web")).await.ok()?;
        let told = page.contains("WouldWithhold") && page.contains(&format!("Pod {bad}"));
        (told && page.contains("1 would be withheld")).then_some(page)
    })
    .await;
    assert!(page.contains("0 withheld"), "nothing is in fact: {page}");
    assert!(page.contains("only by the dry run"), "{page}");
    signals.bad("bad", &namespace, Vec::<String>::new());
    let (episode, _) = until("the dry run's episode has ended", async || {
        let (_, page) = controller.admin(&format!("/services/{namespace}/web")).await.ok()?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        let episodes = page["episodes"].as_array()?.clone();
        episodes.into_iter().find(|episode| episode["to"].is_number())
    })
    .await;
    assert_eq!((&episode["kind"], &episode["pod"]), (&"dryRun".into(), &bad.as_str().into()));
    until("the overview follows", async || {
        let (_, overview) = controller.admin("/view").await.ok()?;
        overview.contains("yes, 0 would be").then_some(())
    })
    .await;
}

#[test]
fn the_view_is_not_exposed_without_tls_or_a_proxy_and_not_with_an_unusable_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.pem");
    std::fs::write(&broken, "no certificate").unwrap();
    let broken = broken.to_str().unwrap();
    let refused = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
            .args(["controller", "--addr", "off", "--admin-addr", "off", "--view-addr"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["127.0.0.1:0"]).contains("--view-behind-proxy"));
    assert!(refused(&["nowhere"]).contains("IP:PORT"));
    let both = ["127.0.0.1:0", "--view-tls-cert", broken, "--view-tls-key", broken];
    assert!(refused(&both).contains("broken.pem has no usable certificate"));
    let missing =
        ["127.0.0.1:0", "--view-tls-cert", "/none", "--view-tls-key", "/none", "--view-behind-proxy"];
    assert!(refused(&missing).contains("not both"));
}

/// Longer than a test waits for anything else: a stalled handshake must not hold up the next reader.
#[tokio::test]
async fn a_peer_that_does_not_shake_hands_holds_nobody_up() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "silent").await;
    let (directory, at) = (tempfile::tempdir().unwrap(), free());
    let (certificate, key, browser) = secured(directory.path(), at);
    let controller = ControllerRecipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor))
        .namespace(&namespace)
        .variable("KUBERVISOR_VIEW_ADDR", &at.to_string())
        .variable("KUBERVISOR_VIEW_TLS_CERT", &certificate)
        .variable("KUBERVISOR_VIEW_TLS_KEY", &key)
        .variable("KUBERVISOR_VIEW_HOST", NAME)
        .start();
    controller.ready().await;
    let silent: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
    let request = browser.get(format!("https://{NAME}:{}/view/style.css", at.port()));
    let (code, _) = tokio::time::timeout(Duration::from_secs(5), asked(request)).await.unwrap();
    assert_eq!(code, StatusCode::OK);
    drop(silent);
}
