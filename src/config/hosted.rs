//! The configuration of a master inside the controller: `--keepalives ADDR` and the `KONTROL_*` variables.
//!
//! All settings that a separate master requires have a default here, so that the flag is enough. Policy and endpoints
//! are ignored, because the controller gates.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use super::{Config, PodFacts, address::serving, environment::Environment, reading};
use crate::exit::Exit;

/// Default labels: `app` is part of the store's prefix.
const LABELS: &str = r#"{"app":"kubervisor","role":"master"}"#;

/// Variables that are ignored, with a warning.
const LEFT_OUT: [&str; 2] = ["KUBERVISOR_POLICY", "KUBERVISOR_ENDPOINTS"];

/// Reads `--keepalives`: `IP:PORT`, or `:PORT` for all addresses.
///
/// # Errors
/// What to write instead.
pub fn address(text: &str) -> Result<SocketAddrV4, String> {
    match serving(text) {
        Some(SocketAddr::V4(address)) if address.port() != 0 => Ok(address),
        _ => Err("not an IPv4 address with a port; write IP:PORT or :PORT, for example :8000".to_owned()),
    }
}

/// The process's own variables, with those that flags set and in a pod its namespace; the ignored ones are logged.
///
/// # Errors
/// [`Exit::Usage`] for a variable of ours that is not UTF-8, and for a path in `flags` that is not.
pub fn environment(flags: &[(&str, Option<&OsStr>)]) -> Result<Environment, Exit> {
    let mut env = Environment::of_process()?;
    for (name, value) in flags.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        let value = value.to_str().ok_or_else(|| Exit::Usage(format!("{name} is not UTF-8: {value:?}")))?;
        env.set(name, value);
    }
    if let Some(namespace) = super::pod_namespace() {
        env.set_if_unset("NAMESPACE", &namespace);
    }
    for name in LEFT_OUT.into_iter().filter(|name| env.get(name).is_some()) {
        tracing::warn!("{name} is set, but the controller follows KubervisorServices only");
    }
    Ok(env)
}

/// Reads `env` with a hosted master's defaults; what both leave open comes from `pod`.
///
/// # Errors
/// [`Exit::Usage`] with all complaints.
pub fn read(
    env: &Environment,
    address: SocketAddrV4,
    in_pod: bool,
    pod: Option<&PodFacts>,
) -> Result<Config, Exit> {
    let mut config = reading::read(&with_defaults(env, address, in_pod), in_pod, pod)?;
    if let Some(master) = &mut config.master {
        master.own_address_only = true;
    }
    Ok(config)
}

/// `env` with a hosted master's defaults for what it leaves open.
pub fn with_defaults(env: &Environment, address: SocketAddrV4, in_pod: bool) -> Environment {
    let mut env = env.clone();
    for name in LEFT_OUT {
        env.set(name, "");
    }
    env.set("KONTROL_MODE", "master");
    env.set("KONTROL_BIND", &address.ip().to_string());
    env.set("KONTROL_PORT", &address.port().to_string());
    let id = env.get("HOSTNAME").unwrap_or("kubervisor").to_owned();
    env.set_if_unset("KONTROL_ID", &id);
    env.set_if_unset("KONTROL_LABELS", LABELS);
    let shared = |store: &str| store.starts_with("etcd:") || store.starts_with("kubernetes:");
    let is_shared = env.get("KUBERVISOR_STORE").map_or(in_pod || env.get("KONTROL_ETCD").is_some(), shared);
    if !address.ip().is_unspecified() {
        env.set_if_unset("KONTROL_IP", &address.ip().to_string());
    } else if !is_shared {
        // Only other masters connect to this address, and a file store has none.
        env.set_if_unset("KONTROL_IP", &Ipv4Addr::LOCALHOST.to_string());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MasterConfig, StoreConfig};

    fn config(address: &str, in_pod: bool, variables: &[(&str, &str)]) -> Result<Config, Exit> {
        let env: Environment = variables.iter().copied().collect();
        read(&env, super::address(address).unwrap(), in_pod, None)
    }

    fn file(master: Option<MasterConfig>) -> String {
        let Some(StoreConfig::Embedded(path)) = master.map(|master| master.store) else { panic!("a file") };
        path.display().to_string()
    }

    #[test]
    fn one_flag_is_enough_in_a_pod_and_outside() {
        let variables = [("HOSTNAME", "kubervisor-7d9f"), ("NAMESPACE", "ops"), ("KONTROL_IP", "10.0.0.9")];
        let in_pod = config(":8000", true, &variables).unwrap();
        assert_eq!(in_pod.listen.address.to_string(), "0.0.0.0:8000");
        let identity = &in_pod.identity;
        assert_eq!(
            (
                identity.namespace.as_str(),
                identity.id.as_str(),
                identity.app.as_str(),
                identity.role.as_str()
            ),
            ("ops", "kubervisor-7d9f", "kubervisor", "master")
        );
        let store = in_pod.master.unwrap().store;
        assert!(matches!(store, StoreConfig::Kubernetes(at) if at.namespace == "ops"));
        let outside = config("127.0.0.7:9000", false, &[("HOME", "/home/ali")]).unwrap();
        assert_eq!(
            (outside.identity.id.as_str(), outside.identity.ip.to_string().as_str()),
            ("kubervisor", "127.0.0.7")
        );
        assert!(outside.agent.is_none());
        assert_eq!(file(outside.master), "/home/ali/.local/state/kubervisor/default/kubervisor.redb");
    }

    #[test]
    fn it_gates_nothing_by_itself_and_takes_a_pods_word_only_for_itself() {
        let variables = [
            ("HOME", "/root"),
            ("KONTROL_MODE", "debug"),
            ("KUBERVISOR_POLICY", "policy.yaml"),
            ("KUBERVISOR_ENDPOINTS", "endpoints"),
        ];
        let config = config(":8000", false, &variables).unwrap();
        let master = config.master.unwrap();
        assert!(master.policy.is_none() && master.endpoints.is_none() && config.agent.is_none());
        assert!(master.own_address_only);
    }

    #[test]
    fn what_is_said_stays_said() {
        let variables = [
            ("KONTROL_ID", "me"),
            ("KONTROL_IP", "10.0.0.9"),
            ("KONTROL_LABELS", r#"{"app":"shop","role":"ops"}"#),
            ("KONTROL_TTL", "9"),
            ("KUBERVISOR_STORE", "embedded:/data/x.redb"),
        ];
        let config = config(":8000", true, &variables).unwrap();
        assert_eq!((config.identity.id.as_str(), config.identity.app.as_str()), ("me", "shop"));
        assert_eq!(config.identity.ip.to_string(), "10.0.0.9");
        assert_eq!(config.master.as_ref().map(|master| master.ttl.as_secs()), Some(9));
        assert_eq!(file(config.master), "/data/x.redb");
    }

    #[test]
    fn masters_that_share_an_etcd_must_know_their_own_address() {
        let Err(Exit::Usage(text)) = config(":8000", false, &[("KONTROL_ETCD", "etcd")]) else {
            panic!("refused")
        };
        assert!(text.contains("KONTROL_IP"), "{text}");
        let shared = config("10.0.0.9:8000", true, &[("KONTROL_ETCD", "etcd")]).unwrap();
        assert!(matches!(shared.master.unwrap().store, StoreConfig::Etcd(_)));
    }

    #[test]
    fn an_address_is_four_numbers_and_a_port() {
        assert_eq!(address(":8000").unwrap().to_string(), "0.0.0.0:8000");
        for wrong in ["8000", "10.0.0.1", "[::1]:8000", ":0", ":99999", "host:8000", ""] {
            assert!(address(wrong).unwrap_err().contains("IP:PORT"), "{wrong}");
        }
    }
}
