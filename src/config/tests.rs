//! The tables that hold configuration to its specification.

mod stores;

use std::time::Duration;

use super::{environment::Environment, reading::read, *};
use crate::exit::Exit;

/// A slave with everything that it needs, outside a pod.
const SLAVE: &[(&str, &str)] = &[
    ("KONTROL_ID", "web-1"),
    ("KONTROL_IP", "172.16.123.1"),
    ("KONTROL_LABELS", r#"{"app":"shop","role":"web"}"#),
    ("KONTROL_ANNOTATIONS", r#"{"kontrol.unity3d.com/master":"monitor"}"#),
    ("HOME", "/home/k"),
];

fn env(base: &[(&str, &str)], more: &[(&str, &str)]) -> Environment {
    let mut env: Environment = base.iter().copied().collect();
    more.iter().for_each(|(name, value)| env.set(name, value));
    env
}

fn slave(more: &[(&str, &str)]) -> Config {
    read(&env(SLAVE, more), false, None).unwrap()
}

fn master(more: &[(&str, &str)]) -> MasterConfig {
    let config = read(&env(&env_with_mode("master"), more), false, None).unwrap();
    config.master.unwrap()
}

fn env_with_mode(mode: &'static str) -> Vec<(&'static str, &'static str)> {
    SLAVE.iter().copied().chain([("KONTROL_MODE", mode)]).collect()
}

fn complaint(env: &Environment) -> String {
    match read(env, false, None) {
        Err(Exit::Usage(text)) => text,
        other => panic!("expected a complaint, got {other:?}"),
    }
}

/// What a master with these settings is told.
fn refused(more: &[(&str, &str)]) -> String {
    complaint(&env(&env_with_mode("slave,master"), more))
}

#[test]
fn the_mode_is_a_set_of_tokens() {
    let roles = |mode| {
        let config = slave(&[("KONTROL_MODE", mode)]);
        (config.agent.is_some(), config.master.is_some())
    };
    for (mode, expected) in [
        ("", (true, false)),
        ("slave", (true, false)),
        ("verbose", (true, false)),
        ("master", (false, true)),
        ("master, slave", (true, true)),
        ("verbose,master", (false, true)),
        ("debug", (true, true)),
        ("slave,debug", (true, true)),
    ] {
        assert_eq!(roles(mode), expected, "{mode}");
    }
    let text = refused(&[("KONTROL_MODE", "slave,boss")]);
    assert!(
        text.contains(r#"KONTROL_MODE="slave,boss""#) && text.contains("slave, master, debug, verbose"),
        "{text}"
    );
}

#[test]
fn a_slave_needs_little_and_opens_no_store() {
    let config = slave(&[]);
    assert_eq!(config.identity.app, "shop");
    assert_eq!(config.identity.role, "web");
    assert_eq!(config.identity.namespace, "default");
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8000");
    assert_eq!((config.listen.max_connections, config.listen.max_per_peer), (16_384, 4_096));
    assert_eq!(config.listen.idle, Duration::from_secs(60));
    assert!(config.master.is_none());
    let agent = config.agent.unwrap();
    assert_eq!(
        agent.masters,
        [MasterTarget { host: "monitor".into(), port: 8000, dialect: Dialect::ZeroRpc }]
    );
    assert!((agent.ping_every.as_secs_f64() - 25.0 / 3.0).abs() < 1e-6);
    assert_eq!(agent.ping_deadline, Duration::from_secs(2));
    assert!(matches!(agent.invoke, InvokePolicy::Off));
    assert!(agent.payload.is_none());
    assert_eq!(agent.user, RunAs::KontrolIfThere);
}

#[test]
fn several_masters_are_named_in_the_annotation_each_once_and_our_port_is_the_default() {
    let named = r#"{"kontrol.unity3d.com/master":"a, b:9,http://c ,a,"}"#;
    let config = slave(&[("KONTROL_ANNOTATIONS", named), ("KONTROL_PORT", "7000")]);
    let masters = config.agent.unwrap().masters;
    let seen: Vec<_> = masters.iter().map(|m| (m.host.as_str(), m.port, m.dialect)).collect();
    assert_eq!(seen, [("a", 7000, Dialect::ZeroRpc), ("b", 9, Dialect::ZeroRpc), ("c", 7000, Dialect::Http)]);
}

#[test]
fn debug_is_a_self_contained_pod_on_the_host_address() {
    let config = read(&env(&[("KONTROL_MODE", "debug"), ("HOME", "/h")], &[]), false, None).unwrap();
    assert_eq!((config.identity.id.as_str(), config.identity.ip), ("local", Ipv4Addr::LOCALHOST));
    assert_eq!((config.identity.app.as_str(), config.identity.role.as_str()), ("test", "test"));
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:8000");
    assert_eq!(config.agent.unwrap().masters[0].host, "127.0.0.1");
    let StoreConfig::Embedded(path) = config.master.unwrap().store else { panic!("not embedded") };
    assert_eq!(path, PathBuf::from("/h/.local/state/kubervisor/default/test.redb"));

    let pairs = [("KONTROL_MODE", "debug"), ("KONTROL_HOST", "172.16.123.1"), ("XDG_STATE_HOME", "/s")];
    let config = read(&env(&pairs, &[]), true, None).unwrap();
    assert_eq!(config.identity.ip, Ipv4Addr::new(172, 16, 123, 1));
    assert_eq!(config.agent.unwrap().masters[0].host, "172.16.123.1");
    let StoreConfig::Embedded(path) = config.master.unwrap().store else { panic!("not embedded") };
    assert_eq!(path, PathBuf::from("/s/kubervisor/default/test.redb"));
}

#[test]
fn on_a_loopback_address_only_that_address_is_bound_unless_told_otherwise() {
    let bound = |more: &[(&str, &str)]| slave(more).listen.address.to_string();
    assert_eq!(bound(&[("KONTROL_IP", "127.3.2.1")]), "127.3.2.1:8000");
    assert_eq!(bound(&[("KONTROL_IP", "127.3.2.1"), ("KONTROL_BIND", "0.0.0.0")]), "0.0.0.0:8000");
    assert_eq!(bound(&[("KONTROL_BIND", "10.0.0.1"), ("KONTROL_PORT", "9")]), "10.0.0.1:9");
}

#[test]
fn all_complaints_come_at_once_and_each_names_variable_and_value() {
    let text = refused(&[
        ("KONTROL_PORT", "70000"),
        ("KONTROL_TTL", "25s"),
        ("KONTROL_LABELS", r#"{"app":"shop"}"#),
        ("KUBERVISOR_MAX_CONNECTIONS", "0"),
        ("KUBERVISOR_KEEPALIVE_TRUSTED", "10.0.0.0/8,here"),
    ]);
    for part in [
        r#"KONTROL_PORT="70000": not a TCP port"#,
        r#"KONTROL_TTL="25s": not a number of seconds"#,
        "for example KONTROL_TTL=25",
        r#"no label "role""#,
        r#"KUBERVISOR_MAX_CONNECTIONS="0""#,
        r#""here" is no CIDR"#,
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn without_a_pod_what_is_missing_is_asked_for_by_name() {
    let text = complaint(&env(&[], &[]));
    for name in ["KONTROL_ID", "KONTROL_IP", "KONTROL_LABELS"] {
        assert!(text.contains(name), "{text}");
    }
    let text = complaint(&env(SLAVE, &[("KONTROL_ANNOTATIONS", "{}")]));
    assert!(text.contains("names no master") && text.contains("kontrol.unity3d.com/master"), "{text}");
}

#[test]
fn ipv6_is_refused_by_name() {
    for name in ["KONTROL_IP", "KONTROL_BIND"] {
        let text = refused(&[(name, "fd00::1")]);
        assert!(text.contains(name) && text.contains("IPv6 is not supported"), "{text}");
    }
    let text = refused(&[("KONTROL_ANNOTATIONS", r#"{"kontrol.unity3d.com/master":"[fd00::1]:8000"}"#)]);
    assert!(text.contains("IPv6"), "{text}");
    let pod = PodFacts { name: "p".into(), addresses: vec!["fd00::1".into()], ..PodFacts::default() };
    let Err(Exit::Usage(text)) = read(&env(&[], &[]), true, Some(&pod)) else { panic!("taken") };
    assert!(text.contains("IPv6-only pods are not supported"), "{text}");
}

#[test]
fn in_a_pod_what_is_not_set_comes_from_its_metadata() {
    let pod = PodFacts {
        name: "web-7".into(),
        addresses: vec!["fd00::1".into(), "10.1.2.3".into()],
        labels: [("app", "shop"), ("role", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        annotations: [(reading::MASTER_ANNOTATION.to_owned(), "monitor.test.svc".to_owned())].into(),
    };
    let config = read(&env(&[], &[("NAMESPACE", "test")]), true, Some(&pod)).unwrap();
    assert_eq!((config.identity.id.as_str(), config.identity.ip), ("web-7", Ipv4Addr::new(10, 1, 2, 3)));
    assert_eq!(config.identity.namespace, "test");
    assert_eq!(config.agent.unwrap().masters[0].host, "monitor.test.svc");
    let config = read(&env(&[], &[("KONTROL_ID", "mine")]), true, Some(&pod)).unwrap();
    assert_eq!(config.identity.id, "mine");
}

#[test]
fn the_pod_is_asked_only_for_what_is_open() {
    assert!(!reading::needs_pod(&env(SLAVE, &[])));
    assert!(!reading::needs_pod(&env(&[("KONTROL_MODE", "debug")], &[])));
    assert!(reading::needs_pod(&env(SLAVE, &[("KONTROL_IP", "")])));
    assert!(reading::needs_pod(&env(SLAVE, &[("KONTROL_ANNOTATIONS", "")])));
    assert!(!reading::needs_pod(&env(SLAVE, &[("KONTROL_ANNOTATIONS", ""), ("KONTROL_MODE", "master")])));
}

#[test]
fn times_are_plain_numbers_of_seconds_and_bounded() {
    let config = master(&[
        ("KONTROL_TTL", "1.5"),
        ("KONTROL_DAMPER", "0"),
        ("KONTROL_FOVER", "3"),
        ("KONTROL_PING", "0.2"),
    ]);
    assert_eq!(config.ttl, Duration::from_millis(1500));
    assert_eq!(config.damper, Duration::ZERO);
    assert_eq!(config.lease, Duration::from_secs(3));
    assert_eq!(config.ping_every, Duration::from_millis(200));
    let agent = slave(&[("KONTROL_TTL", "6")]).agent.unwrap();
    assert_eq!((agent.ping_every, agent.ping_deadline), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!(slave(&[("KONTROL_TTL", "100")]).listen.idle, Duration::from_secs(200));
    for value in ["0", "-1", "nan", "inf", "1e9", "1m", "25 s"] {
        assert!(refused(&[("KONTROL_TTL", value)]).contains("KONTROL_TTL"), "{value}");
    }
    assert!(refused(&[("KONTROL_FOVER", "0.5")]).contains("KONTROL_FOVER"));
    assert!(refused(&[("KONTROL_TTL", "6"), ("KONTROL_PING", "6")]).contains("expire between two pings"));
    let original = slave(&[("KONTROL_PING", "18.75")]).agent.unwrap();
    assert_eq!(original.ping_every, Duration::from_millis(18_750));
}

#[test]
fn a_callback_is_split_on_spaces_unless_the_shell_runs_it() {
    let command = |more: &[(&str, &str)]| master(more).callback.map(|callback| callback.command);
    let words = |words: &[&str]| Some(CommandLine::Words(words.iter().map(|&w| w.to_owned()).collect()));
    assert_eq!(command(&[]), None);
    assert_eq!(command(&[("KONTROL_CALLBACK", "  ")]), None);
    let line = ("KONTROL_CALLBACK", "a  b 'c d'");
    assert_eq!(command(&[line]), words(&["a", "b", "'c", "d'"]));
    assert_eq!(command(&[line, ("KONTROL_SHELL_CALLBACK", "true")]), words(&["a", "b", "'c", "d'"]));
    let shell = command(&[line, ("KONTROL_SHELL_CALLBACK", "TRUE")]);
    assert_eq!(shell, Some(CommandLine::Shell("a  b 'c d'".into())));
}

#[test]
fn the_pages_are_on_loopback_outside_a_pod_and_can_be_turned_off() {
    let config = master(&[]);
    assert_eq!(config.addr.unwrap().to_string(), "127.0.0.1:8086");
    assert_eq!(config.admin_addr.unwrap().to_string(), "127.0.0.1:8087");
    let config =
        master(&[("KUBERVISOR_ADDR", ":9"), ("KUBERVISOR_ADMIN_ADDR", "off"), ("KUBERVISOR_DRY_RUN", "yes")]);
    assert_eq!(config.addr.unwrap().to_string(), "0.0.0.0:9");
    assert!(config.admin_addr.is_none());
    assert!(config.dry_run);
    let debug = env(&env_with_mode("debug"), &[]);
    assert_eq!(read(&debug, true, None).unwrap().master.unwrap().addr.unwrap().to_string(), "0.0.0.0:8086");
    assert!(refused(&[("KUBERVISOR_ADDR", "here")]).contains("KUBERVISOR_ADDR"));
    assert!(refused(&[("KUBERVISOR_DRY_RUN", "maybe")]).contains("true nor false"));
}

#[test]
fn commands_are_signed_as_soon_as_there_is_a_public_key() {
    let invoke = |more: &[(&str, &str)]| slave(more).agent.unwrap().invoke;
    let key = ("KONTROL_INVOKE_PUBKEY_FILE", "/k.pub");
    assert!(matches!(invoke(&[]), InvokePolicy::Off));
    assert!(matches!(invoke(&[key]), InvokePolicy::Signed { allow: None, .. }));
    assert!(matches!(invoke(&[key, ("KONTROL_INVOKE", "off")]), InvokePolicy::Off));
    assert!(matches!(invoke(&[("KONTROL_INVOKE", "open")]), InvokePolicy::Open(None)));
    let allow = ("KONTROL_INVOKE_ALLOW", "/a");
    assert!(matches!(invoke(&[key, allow]), InvokePolicy::Signed { allow: Some(_), .. }));
    assert!(refused(&[("KONTROL_INVOKE", "signed")]).contains("KONTROL_INVOKE_PUBKEY_FILE"));
    assert!(refused(&[("KONTROL_INVOKE", "on")]).contains("off, signed or open"));
}

#[test]
fn the_user_is_looked_up_when_it_is_named() {
    assert_eq!(slave(&[("KONTROL_USER", "")]).agent.unwrap().user, RunAs::Ourselves);
    assert_eq!(slave(&[("KONTROL_USER", "root")]).agent.unwrap().user, RunAs::User("root".into()));
    assert!(refused(&[("KONTROL_USER", "nobody-of-that-name")]).contains("no such user"));
}

#[test]
fn a_flag_wins_over_its_variable() {
    let flags = flags::Flags {
        store: Some("embedded:/flag".into()),
        dry_run: Some("true".into()),
        ..Default::default()
    };
    let mut env = env(&env_with_mode("master"), &[("KUBERVISOR_STORE", "etcd:e")]);
    flags.as_variables().for_each(|(name, value)| env.set(&name, &value));
    let config = read(&env, false, None).unwrap().master.unwrap();
    assert!(matches!(config.store, StoreConfig::Embedded(path) if path.as_os_str() == "/flag"));
    assert!(config.dry_run);
}

#[test]
fn the_port_variable_of_a_service_link_is_explained() {
    let text = refused(&[("KONTROL_PORT", "tcp://10.0.0.1:8000")]);
    assert!(text.contains("enableServiceLinks"), "{text}");
}

#[test]
fn names_that_would_break_the_prefix_are_refused() {
    assert!(refused(&[("KONTROL_LABELS", r#"{"app":"a/b","role":"r"}"#)]).contains("KONTROL_LABELS"));
    assert!(refused(&[("KONTROL_LABELS", r#"{"app":"","role":"r"}"#)]).contains("KONTROL_LABELS"));
    assert!(refused(&[("NAMESPACE", "../x")]).contains("NAMESPACE"));
    assert!(refused(&[("KONTROL_ID", "a\nb")]).contains("KONTROL_ID"));
}

#[test]
fn texts_that_no_setting_can_mean_are_told_all_at_once_and_escaped() {
    let text = refused(&[
        ("KONTROL_ID", "m\r"),
        ("KONTROL_TTL", "\"25\""),
        ("KUBERVISOR_POLICY", "/p.yaml "),
        ("KONTROL_LABELS", "\u{feff}{\"app\":\"t\",\"role\":\"m\"}"),
    ]);
    for part in [
        r#"KONTROL_ID="m\r": has a control character"#,
        "CRLF",
        r#"KONTROL_TTL="\"25\"": has quotes around it"#,
        r#"KUBERVISOR_POLICY="/p.yaml ": has blanks around it"#,
        "KONTROL_LABELS=",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A line for the shell may have its own quotes, and several lines.
    let config = master(&[
        ("KONTROL_CALLBACK", "\"/my own/prog\" \"an argument\"\necho 1\n"),
        ("KONTROL_SHELL_CALLBACK", "TRUE"),
    ]);
    assert!(matches!(config.callback.unwrap().command, CommandLine::Shell(_)));
}
