//! The ways to an API server that kubectl knows: lists of kubeconfigs, proxies, exec plugins, impersonation.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    fixture::{PLUGIN, err, install, out},
    plane::{self, Plane, User},
};

/// The plugin with these variables, started without kubectl, which would read its own flags. Again while the API server
/// sets up the definition that another test has applied.
fn plugin(plane: &Plane, arguments: &[&str], environment: &[(&str, String)]) -> Output {
    let run = || {
        let mut command = Command::new(PLUGIN);
        command
            .args(arguments)
            .env("KUBECONFIG", plane.kubeconfig(User::Admin))
            .env("HOME", plane.directory());
        command.env_remove("NO_PROXY").env_remove("no_proxy").envs(environment.iter().cloned());
        command.output().unwrap()
    };
    let began = Instant::now();
    loop {
        let output = run();
        if !err(&output).contains("(re)initializing") || began.elapsed() > Duration::from_secs(20) {
            return output;
        }
    }
}

/// The administrator's kubeconfig, changed.
fn kubeconfig(plane: &Plane, file: &Path, change: impl FnOnce(&mut Value)) -> String {
    let text = std::fs::read_to_string(plane.kubeconfig(User::Admin)).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(file, config.to_string()).unwrap();
    file.display().to_string()
}

/// A proxy that opens tunnels (CONNECT, or SOCKS 5), its address, and the number of its tunnels.
async fn proxy() -> (String, Arc<AtomicUsize>) {
    let tunnels = Arc::<AtomicUsize>::default();
    let opened = Arc::clone(&tunnels);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let opened = Arc::clone(&opened);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let socks = stream.fill_buf().await.unwrap().first() == Some(&5);
                let wanted =
                    if socks { asked_by_socks(&mut stream).await } else { asked_by_http(&mut stream).await };
                let mut server = TcpStream::connect(wanted).await.unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                let granted: &[u8] =
                    if socks { &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0] } else { b"HTTP/1.1 200 OK\r\n\r\n" };
                stream.write_all(granted).await.unwrap();
                let _ended = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, tunnels)
}

/// Where a CONNECT goes to.
async fn asked_by_http(stream: &mut BufReader<TcpStream>) -> String {
    let mut lines = Vec::new();
    while !lines.last().is_some_and(String::is_empty) {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        lines.push(line.trim().to_owned());
    }
    let mut words = lines[0].split(' ');
    assert_eq!(words.next(), Some("CONNECT"));
    words.next().unwrap().to_owned()
}

/// Where a SOCKS 5 client without credentials goes to, by an address or a name.
async fn asked_by_socks(stream: &mut BufReader<TcpStream>) -> String {
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.read_exact(&mut vec![0; usize::from(greeting[1])]).await.unwrap();
    stream.write_all(&[5, 0]).await.unwrap();
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    let host = match request[3] {
        1 => {
            let mut address = [0; 4];
            stream.read_exact(&mut address).await.unwrap();
            std::net::Ipv4Addr::from(address).to_string()
        }
        _ => {
            let length = usize::from(stream.read_u8().await.unwrap());
            let mut name = vec![0; length];
            stream.read_exact(&mut name).await.unwrap();
            String::from_utf8(name).unwrap()
        }
    };
    format!("{host}:{}", stream.read_u16().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_kubeconfig_or_the_environment_is_used_unless_no_proxy_names_the_server() {
    let plane = plane::shared().await;
    install(&plane);
    let dir = tempfile::tempdir().unwrap();
    let (proxy, tunnels) = proxy().await;
    let named = kubeconfig(&plane, &dir.path().join("config"), |config| {
        config["clusters"][0]["cluster"]["proxy-url"] = format!("http://{proxy}").into();
    });
    let found = "No KubervisorServices";
    let of = |file: &str, environment: &[(&str, String)]| {
        plugin(&plane, &["-n", "nowhere", "--kubeconfig", file], environment)
    };
    assert!(err(&of(&named, &[])).contains(found), "{}", err(&of(&named, &[])));
    let before = tunnels.load(Ordering::SeqCst);
    assert!(before > 0);
    let socks = kubeconfig(&plane, &dir.path().join("socks"), |config| {
        config["clusters"][0]["cluster"]["proxy-url"] = format!("socks5://{proxy}").into();
    });
    assert!(err(&of(&socks, &[])).contains(found), "{}", err(&of(&socks, &[])));
    let after = tunnels.load(Ordering::SeqCst);
    assert!(after > before, "through SOCKS");
    let before = after;
    let plain = kubeconfig(&plane, &dir.path().join("plain"), |_| {});
    let alive = [("HTTPS_PROXY", format!("http://{proxy}"))];
    assert!(err(&of(&plain, &alive)).contains(found), "{}", err(&of(&plain, &alive)));
    assert!(tunnels.load(Ordering::SeqCst) > before);
    let dead = ("HTTPS_PROXY", "http://127.0.0.1:1".to_owned());
    assert!(err(&of(&plain, std::slice::from_ref(&dead))).contains("cannot reach"));
    let past = [dead, ("NO_PROXY", "127.0.0.0/8".to_owned())];
    assert!(err(&of(&plain, &past)).contains(found), "{}", err(&of(&plain, &past)));
}

#[tokio::test]
async fn of_a_list_of_kubeconfigs_those_that_are_there_count_and_names_choose_among_them() {
    let plane = plane::shared().await;
    install(&plane);
    let list = format!("/nowhere/config:{}", plane.kubeconfig(User::Admin).display());
    let listed = plugin(&plane, &["-n", "nowhere"], &[("KUBECONFIG", list)]);
    assert!(err(&listed).contains("No KubervisorServices"), "{}", err(&listed));
    for flag in ["--context", "--cluster", "--user"] {
        let unknown = plugin(&plane, &[flag, "nobody"], &[]);
        assert!(err(&unknown).contains("nobody"), "{flag}: {}", err(&unknown));
    }
    let elsewhere = plugin(&plane, &["--server", "https://127.0.0.1:1", "--request-timeout", "3s"], &[]);
    assert!(
        err(&elsewhere).contains("cannot reach the API server https://127.0.0.1:1"),
        "{}",
        err(&elsewhere)
    );
}

#[tokio::test]
async fn impersonation_has_the_rights_of_that_user_and_groups() {
    let plane = plane::shared().await;
    install(&plane);
    let nobody = plugin(&plane, &["-n", "default", "--as", "somebody"], &[]);
    assert!(err(&nobody).contains("\"somebody\" cannot list"), "{}", err(&nobody));
    let master = plugin(&plane, &["-n", "nowhere", "--as", "somebody", "--as-group", "system:masters"], &[]);
    assert!(err(&master).contains("No KubervisorServices"), "{}", err(&master));
}

#[tokio::test]
async fn a_credential_plugin_is_run() {
    let plane = plane::shared().await;
    install(&plane);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("login");
    let file = kubeconfig(&plane, &dir.path().join("config"), |config| {
        let user = &mut config["users"][0]["user"];
        let status = json!({"token": user["token"]});
        let version = "client.authentication.k8s.io/v1";
        let credential = json!({"apiVersion": version, "kind": "ExecCredential", "status": status});
        std::fs::write(&script, format!("#!/bin/sh\ncat <<'E'\n{credential}\nE\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        *user = json!({"exec": {"apiVersion": version, "command": script, "interactiveMode": "Never"}});
    });
    let asked = plugin(&plane, &["-o", "name", "-n", "nowhere", "--kubeconfig", &file], &[]);
    assert_eq!(out(&asked), "");
}
