//! The store, its credentials, and the endpoints file.

use super::*;

#[test]
fn the_store_is_the_named_one_else_etcd_else_a_file() {
    let store = |more: &[(&str, &str)]| match master(more).store {
        StoreConfig::Embedded(path) => path.display().to_string(),
        StoreConfig::Etcd(etcd) => etcd.endpoints.join(" "),
        StoreConfig::Kubernetes(kubernetes) => kubernetes.namespace,
    };
    assert_eq!(store(&[]), "/home/k/.local/state/kubervisor/default/shop.redb");
    assert_eq!(store(&[("XDG_STATE_HOME", "/s"), ("NAMESPACE", "n")]), "/s/kubervisor/n/shop.redb");
    assert_eq!(store(&[("XDG_STATE_HOME", "relative")]), "/home/k/.local/state/kubervisor/default/shop.redb");
    assert_eq!(store(&[("KONTROL_ETCD", "e")]), "http://e:2379");
    assert_eq!(store(&[("KONTROL_ETCD", "e:1, https://f/ ,g")]), "http://e:1 https://f:2379 http://g:2379");
    assert_eq!(store(&[("KONTROL_ETCD", "e"), ("KUBERVISOR_STORE", "embedded:/x")]), "/x");
    assert_eq!(store(&[("KUBERVISOR_STORE", "etcd:e:1,f")]), "http://e:1 http://f:2379");
    assert_eq!(store(&[("KUBERVISOR_STORE", "etcd:https://e:1")]), "https://e:1");
    assert_eq!(
        store(&[("KUBERVISOR_STORE", "etcd:e"), ("KUBERVISOR_ETCD_CA_FILE", "/ca")]),
        "https://e:2379"
    );
}

#[test]
fn in_a_pod_kubernetes_is_the_store_unless_another_is_named() {
    let store = |more: &[(&str, &str)]| {
        let config = read(&env(&env_with_mode("master"), more), true, None).unwrap();
        config.master.unwrap().store
    };
    let StoreConfig::Kubernetes(default) = store(&[("NAMESPACE", "shop")]) else { panic!("another store") };
    assert_eq!((default.namespace.as_str(), default.kubeconfig), ("shop", None));
    let StoreConfig::Kubernetes(named) = store(&[("KUBERVISOR_STORE", "kubernetes:kube-x")]) else {
        panic!("another store")
    };
    assert_eq!(named.namespace, "kube-x");
    let reached = [("KUBERVISOR_KUBECONFIG", "/etc/kube"), ("KUBERVISOR_MASTER", "https://api")];
    let StoreConfig::Kubernetes(reached) = store(&reached) else { panic!("another store") };
    assert_eq!(reached.kubeconfig, Some("/etc/kube".into()));
    assert_eq!(reached.server.as_deref(), Some("https://api"));
    assert!(matches!(store(&[("KONTROL_ETCD", "e")]), StoreConfig::Etcd(_)));
}

#[test]
fn a_store_that_cannot_be_is_refused_with_what_to_write() {
    for value in [
        "embedded:",
        "kubernetes:",
        "kubernetes:Upper",
        "kubernetes:a/b",
        "redis:x",
        "etcd:",
        "etcd:,",
        "etcd:a b",
        "plain",
    ] {
        assert!(refused(&[("KUBERVISOR_STORE", value)]).contains("KUBERVISOR_STORE"), "{value}");
    }
    assert!(refused(&[("HOME", "")]).contains("XDG_STATE_HOME"));
}

#[test]
fn etcd_credentials_belong_together() {
    let etcd = ("KONTROL_ETCD", "e");
    let refused = |name, value| refused(&[etcd, (name, value)]);
    assert!(refused("KUBERVISOR_ETCD_USER", "u").contains("KUBERVISOR_ETCD_PASSWORD_FILE: not set"));
    assert!(refused("KUBERVISOR_ETCD_PASSWORD_FILE", "/p").contains("KUBERVISOR_ETCD_USER: not set"));
    assert!(refused("KUBERVISOR_ETCD_CERT_FILE", "/c").contains("KUBERVISOR_ETCD_KEY_FILE: not set"));
    assert!(refused("KUBERVISOR_ETCD_KEY_FILE", "/c").contains("KUBERVISOR_ETCD_CERT_FILE: not set"));
}

#[test]
fn the_etcd_password_is_read_from_its_file_and_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = master(&[
        ("KONTROL_ETCD", "e"),
        ("KUBERVISOR_ETCD_USER", "u"),
        ("KUBERVISOR_ETCD_PASSWORD_FILE", path),
    ]);
    assert!(!format!("{config:?}").contains("s3cret"));
    let StoreConfig::Etcd(etcd) = config.store else { panic!("not etcd") };
    assert_eq!(etcd.login, Some(("u".to_owned(), path.into())));
    let text = refused(&[("KONTROL_ETCD", "http://e"), ("KUBERVISOR_ETCD_CA_FILE", "/ca")]);
    assert!(text.contains("plain http"), "{text}");
    let text = refused(&[
        ("KONTROL_ETCD", "e"),
        ("KUBERVISOR_ETCD_USER", "u"),
        ("KUBERVISOR_ETCD_PASSWORD_FILE", "/nowhere/p"),
    ]);
    assert!(text.contains("/nowhere/p") && text.contains("cannot be read"), "{text}");
}

#[test]
fn an_endpoints_file_needs_a_port_and_two_formats_need_json() {
    let file = |path, more: &[(&str, &str)]| -> EndpointsConfig {
        let mut all = vec![("KUBERVISOR_ENDPOINTS", path)];
        all.extend_from_slice(more);
        master(&all).endpoints.unwrap()
    };
    let plain = file("/e", &[("KUBERVISOR_TARGET_PORT", "80"), ("KUBERVISOR_ENDPOINTS_ROLES", "web, api")]);
    assert_eq!((plain.format, plain.port), (EndpointsFormat::Plain, TargetPort::Fixed(80)));
    assert_eq!(plain.roles, ["web", "api"]);
    let more = [
        ("KUBERVISOR_ENDPOINTS_FORMAT", "envoy"),
        ("KUBERVISOR_TARGET_PORT_POINTER", "/port"),
        ("KUBERVISOR_FLEET_SIZE", "12"),
        ("KUBERVISOR_ENDPOINTS_COMMAND", "nginx -s reload"),
    ];
    let envoy = file("/e.json", &more);
    assert_eq!((envoy.format, envoy.port), (EndpointsFormat::Envoy, TargetPort::Pointer("/port".into())));
    assert_eq!(envoy.fleet_size, Some(12));
    assert_eq!(envoy.command, Some(CommandLine::Shell("nginx -s reload".into())));

    let refused = |more: &[(&str, &str)]| {
        let mut all = vec![("KUBERVISOR_ENDPOINTS", "/e")];
        all.extend_from_slice(more);
        refused(&all)
    };
    let text = refused(&[]);
    assert!(
        text.contains("KUBERVISOR_TARGET_PORT") && text.contains("KUBERVISOR_TARGET_PORT_POINTER"),
        "{text}"
    );
    let port = ("KUBERVISOR_TARGET_PORT", "80");
    assert!(refused(&[port, ("KUBERVISOR_ENDPOINTS_FORMAT", "file_sd")]).contains(".json"));
    assert!(
        refused(&[port, ("KUBERVISOR_ENDPOINTS_FORMAT", "xml")]).contains("plain, envoy, file_sd, nginx")
    );
    assert!(refused(&[port, ("KUBERVISOR_TARGET_PORT_POINTER", "/p")]).contains("keep one"));
    assert!(refused(&[("KUBERVISOR_TARGET_PORT_POINTER", "port")]).contains("JSON pointer"));
    assert!(refused(&[port, ("KUBERVISOR_FLEET_SIZE", "0")]).contains("KUBERVISOR_FLEET_SIZE"));
}
