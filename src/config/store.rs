//! The store: `KUBERVISOR_STORE`, else `KONTROL_ETCD`, else in a pod Kubernetes, else an embedded file.

use std::path::PathBuf;

use super::{
    EtcdConfig, Identity, KubernetesConfig, StoreConfig, address,
    environment::{Environment, Reader},
    mode::Mode,
};
use crate::{decide::label::is_dns_label, exit::Exit};

pub(super) fn read(
    reader: &mut Reader<'_>,
    mode: Mode,
    in_pod: bool,
    identity: Option<&Identity>,
) -> Option<StoreConfig> {
    if let Some(store) = reader.get("KUBERVISOR_STORE") {
        return named(reader, store.trim());
    }
    if reader.get("KONTROL_ETCD").is_some() {
        return etcd(reader, "KONTROL_ETCD", reader.get("KONTROL_ETCD")?);
    }
    if in_pod && !mode.debug {
        return Some(kubernetes(reader, &identity?.namespace));
    }
    default_file(reader, identity?)
}

/// Where the controller's replicas coordinate; `None`: this process is alone. `namespace` is the pod's.
///
/// # Errors
/// [`Exit::Usage`] with all complaints.
pub fn of_replicas(env: &Environment, in_pod: bool, namespace: &str) -> Result<Option<StoreConfig>, Exit> {
    let mut reader = Reader::new(env);
    let found = match (reader.get("KUBERVISOR_STORE"), reader.get("KONTROL_ETCD")) {
        (Some(store), _) => named(&mut reader, store.trim()),
        (None, Some(endpoints)) => etcd(&mut reader, "KONTROL_ETCD", endpoints),
        (None, None) => in_pod.then(|| kubernetes(&reader, namespace)),
    };
    // A file is one process's: its keepalives' store.
    reader.finish(Some(found.filter(|store| !matches!(store, StoreConfig::Embedded(_)))))
}

fn named(reader: &mut Reader<'_>, store: &str) -> Option<StoreConfig> {
    match store.split_once(':') {
        Some(("embedded", path)) if !path.is_empty() => Some(StoreConfig::Embedded(PathBuf::from(path))),
        Some(("etcd", endpoints)) => etcd(reader, "KUBERVISOR_STORE", endpoints),
        Some(("kubernetes", namespace)) if is_dns_label(namespace) => Some(kubernetes(reader, namespace)),
        _ => reader.refuse(
            "KUBERVISOR_STORE",
            "no store; write embedded:PATH, etcd:HOST[:PORT][,...] or kubernetes:NAMESPACE",
        ),
    }
}

fn kubernetes(reader: &Reader<'_>, namespace: &str) -> StoreConfig {
    StoreConfig::Kubernetes(KubernetesConfig {
        namespace: namespace.to_owned(),
        kubeconfig: reader.get("KUBERVISOR_KUBECONFIG").map(PathBuf::from),
        server: reader.get("KUBERVISOR_MASTER").map(str::to_owned),
    })
}

fn default_file(reader: &mut Reader<'_>, identity: &Identity) -> Option<StoreConfig> {
    let absolute = |name| reader.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    let Some(state) = absolute("XDG_STATE_HOME").or_else(home) else {
        return reader.refuse(
            "KUBERVISOR_STORE",
            "not set, and neither XDG_STATE_HOME nor HOME says where a file could be; write embedded:PATH",
        );
    };
    let folder = state.join("kubervisor").join(&identity.namespace);
    Some(StoreConfig::Embedded(folder.join(format!("{}.redb", identity.app))))
}

fn etcd(reader: &mut Reader<'_>, name: &str, endpoints: &str) -> Option<StoreConfig> {
    let ca = reader.get("KUBERVISOR_ETCD_CA_FILE").map(PathBuf::from);
    let client = match (reader.get("KUBERVISOR_ETCD_CERT_FILE"), reader.get("KUBERVISOR_ETCD_KEY_FILE")) {
        (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
        (None, None) => None,
        (Some(_), None) => missing_half(reader, "KUBERVISOR_ETCD_CERT_FILE", "KUBERVISOR_ETCD_KEY_FILE"),
        (None, Some(_)) => missing_half(reader, "KUBERVISOR_ETCD_KEY_FILE", "KUBERVISOR_ETCD_CERT_FILE"),
    };
    let secured = ca.is_some() || client.is_some();
    let scheme = if secured { "https" } else { "http" };
    let mut urls = Vec::new();
    for entry in endpoints.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match address::etcd(entry, scheme) {
            Ok(url) if secured && url.starts_with("http:") => reader.complain(
                name,
                format!(
                    "{entry:?} is plain http, but certificates are configured; write https:// or no scheme"
                ),
            ),
            Ok(url) => urls.push(url),
            Err(error) => {
                reader.complain(name, format!("{error}; write HOST[:PORT] or http(s)://HOST[:PORT]"))
            }
        }
    }
    if urls.is_empty() {
        return reader.refuse(name, "names no endpoint; write HOST[:PORT][,...]");
    }
    let login = login(reader);
    Some(StoreConfig::Etcd(EtcdConfig { endpoints: urls, login, ca, client }))
}

fn missing_half<T>(reader: &mut Reader<'_>, given: &str, missing: &str) -> Option<T> {
    reader.refuse(missing, format!("not set, but {given} is; both belong together"))
}

fn login(reader: &mut Reader<'_>) -> Option<(String, PathBuf)> {
    match (reader.get("KUBERVISOR_ETCD_USER"), reader.get("KUBERVISOR_ETCD_PASSWORD_FILE")) {
        (None, None) => None,
        (Some(_), None) => missing_half(reader, "KUBERVISOR_ETCD_USER", "KUBERVISOR_ETCD_PASSWORD_FILE"),
        (None, Some(_)) => missing_half(reader, "KUBERVISOR_ETCD_PASSWORD_FILE", "KUBERVISOR_ETCD_USER"),
        (Some(user), Some(file)) => {
            let login = (user.to_owned(), PathBuf::from(file));
            if let Err(error) = std::fs::read_to_string(&login.1) {
                reader.complain("KUBERVISOR_ETCD_PASSWORD_FILE", format!("cannot be read: {error}"));
            }
            Some(login)
        }
    }
}
