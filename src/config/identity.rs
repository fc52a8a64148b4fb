//! The identity of this process: variables first, then the pod's metadata.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::decide::{keepalive::is_printable, label::is_label_value};

use super::{Identity, PodFacts, environment::Reader, mode::Mode};

/// Longest id in bytes, that of a pod's name.
const ID_LIMIT: usize = 253;

/// Whether the variables leave out something that the pod's metadata can supply.
pub(super) fn leaves_open(reader: &Reader<'_>, mode: Mode) -> bool {
    let unset = |name| reader.get(name).is_none();
    !mode.debug
        && (["KONTROL_ID", "KONTROL_IP", "KONTROL_LABELS"].into_iter().any(unset)
            || (mode.slave && unset("KONTROL_ANNOTATIONS")))
}

/// The address of pod and master in mode `debug`.
pub(super) fn debug_host(reader: &mut Reader<'_>) -> Ipv4Addr {
    reader.ipv4("KONTROL_HOST").unwrap_or(Ipv4Addr::LOCALHOST)
}

pub(super) fn read(reader: &mut Reader<'_>, mode: Mode, pod: Option<&PodFacts>) -> Option<Identity> {
    let namespace = reader.get("NAMESPACE").unwrap_or("default").to_owned();
    if !is_label_value(&namespace) {
        reader.complain("NAMESPACE", "not a Kubernetes namespace; write letters, digits and dashes");
    }
    let (id, ip) = (id(reader, mode, pod), ip(reader, mode, pod));
    let labels = labels(reader, mode, pod);
    let annotations = match reader.string_map("KONTROL_ANNOTATIONS") {
        Some(annotations) => annotations,
        None => pod.map(|pod| pod.annotations.clone()).unwrap_or_default(),
    };
    let labels = labels?;
    let (app, role) = (label(reader, &labels, "app"), label(reader, &labels, "role"));
    Some(Identity { namespace, id: id?, ip: ip?, app: app?, role: role?, labels, annotations })
}

fn id(reader: &mut Reader<'_>, mode: Mode, pod: Option<&PodFacts>) -> Option<String> {
    let from_pod = || pod.map(|pod| pod.name.clone());
    let from_mode = || mode.debug.then(|| "local".to_owned());
    let id = reader.get("KONTROL_ID").map(str::to_owned).or_else(from_mode).or_else(from_pod);
    match &id {
        None => reader.complain(
            "KONTROL_ID",
            "not set, and this is no pod; write a name, for example KONTROL_ID=web-1",
        ),
        Some(id) if id.len() > ID_LIMIT || !is_printable(id) => {
            reader.complain("KONTROL_ID", format!("not a name of at most {ID_LIMIT} printable characters"));
        }
        Some(_) => {}
    }
    id
}

fn ip(reader: &mut Reader<'_>, mode: Mode, pod: Option<&PodFacts>) -> Option<Ipv4Addr> {
    if reader.get("KONTROL_IP").is_some() {
        return reader.ipv4("KONTROL_IP");
    }
    match pod {
        _ if mode.debug => Some(debug_host(reader)),
        Some(pod) => {
            let has = pod.addresses.join(", ");
            let none = format!("this pod has no IPv4 address (it has {has:?}); IPv6-only pods are not supported");
            let mut addresses = pod.addresses.iter();
            addresses.find_map(|one| one.parse().ok()).or_else(|| reader.refuse("KONTROL_IP", none))
        }
        None => reader.refuse(
            "KONTROL_IP",
            "not set, and this is no pod; write this machine's IPv4 address, for example KONTROL_IP=172.16.123.1",
        ),
    }
}

fn labels(reader: &mut Reader<'_>, mode: Mode, pod: Option<&PodFacts>) -> Option<BTreeMap<String, String>> {
    if reader.get("KONTROL_LABELS").is_some() {
        return reader.string_map("KONTROL_LABELS");
    }
    if mode.debug {
        return Some(["app", "role"].map(|label| (label.to_owned(), "test".to_owned())).into());
    }
    let unset =
        r#"not set, and this is no pod; write a JSON object, for example {"app":"shop","role":"web"}"#;
    pod.map(|pod| pod.labels.clone()).or_else(|| reader.refuse("KONTROL_LABELS", unset))
}

fn label(reader: &mut Reader<'_>, labels: &BTreeMap<String, String>, name: &str) -> Option<String> {
    let value = labels.get(name);
    match value {
        None => reader
            .complain("KONTROL_LABELS", format!("no label {name:?}; both \"app\" and \"role\" are needed")),
        Some(value) if !is_label_value(value) => reader.complain(
            "KONTROL_LABELS",
            format!("{name:?} is {value:?}; write 1 to 63 letters, digits, dots, dashes or underscores"),
        ),
        Some(_) => {}
    }
    value.cloned()
}
