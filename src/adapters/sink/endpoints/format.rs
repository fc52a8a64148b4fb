//! Renders and parses the four formats of the endpoints file.
//!
//! The bytes depend only on the name and the sorted addresses, so all masters write the same file and an unchanged list is
//! an unchanged file. Parsing serves to rebuild a lost roster and to tell an empty list.

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddrV4};

use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::config::EndpointsFormat;

const LOAD_ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The empty list for nginx, where an upstream without a server is a configuration error.
const NGINX_NOBODY: &str = "server 127.0.0.1:1 down;\n";

/// The file's bytes for `addresses`; `name` is Envoy's cluster name or Prometheus' label `kubervisor_fleet`.
pub fn render(format: EndpointsFormat, name: &str, addresses: &BTreeSet<SocketAddrV4>) -> Vec<u8> {
    match format {
        EndpointsFormat::Plain => lines(addresses, "", ""),
        EndpointsFormat::Nginx if addresses.is_empty() => NGINX_NOBODY.to_owned(),
        EndpointsFormat::Nginx => lines(addresses, "server ", ";"),
        EndpointsFormat::Envoy => pretty(&envoy(name, addresses)),
        EndpointsFormat::FileSd => pretty(&file_sd(name, addresses)),
    }
    .into_bytes()
}

/// The addresses in a file; anything else is skipped.
pub fn parse(format: EndpointsFormat, bytes: &[u8]) -> BTreeSet<SocketAddrV4> {
    let text = String::from_utf8_lossy(bytes);
    match format {
        EndpointsFormat::Plain => text.lines().filter_map(|line| line.trim().parse().ok()).collect(),
        EndpointsFormat::Nginx => text.lines().filter_map(nginx_server).collect(),
        EndpointsFormat::Envoy => envoy_addresses(&parse_json(&text)),
        EndpointsFormat::FileSd => file_sd_addresses(&parse_json(&text)),
    }
}

fn lines(addresses: &BTreeSet<SocketAddrV4>, before: &str, after: &str) -> String {
    addresses.iter().fold(String::new(), |mut text, address| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{before}{address}{after}");
        text
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// A `DiscoveryResponse` for Envoy; its version is a digest of the addresses.
fn envoy(name: &str, addresses: &BTreeSet<SocketAddrV4>) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|a| json!({"endpoint": {"address": {"socket_address": {"address": a.ip(), "port_value": a.port()}}}}))
        .collect();
    json!({
        "version_info": version(addresses),
        "type_url": LOAD_ASSIGNMENT,
        "resources": [{
            "@type": LOAD_ASSIGNMENT,
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}],
        }],
    })
}

fn version(addresses: &BTreeSet<SocketAddrV4>) -> String {
    let digest = Md5::digest(lines(addresses, "", "").as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn file_sd(name: &str, addresses: &BTreeSet<SocketAddrV4>) -> Value {
    let targets: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    json!([{"targets": targets, "labels": {"kubervisor_fleet": name}}])
}

fn nginx_server(line: &str) -> Option<SocketAddrV4> {
    let mut words = line.trim().strip_prefix("server ")?.strip_suffix(';')?.split_whitespace();
    let address = words.next()?.parse().ok()?;
    words.all(|word| word != "down").then_some(address)
}

fn envoy_addresses(response: &Value) -> BTreeSet<SocketAddrV4> {
    each(response, "/resources")
        .flat_map(|resource| each(resource, "/endpoints"))
        .flat_map(|locality| each(locality, "/lb_endpoints"))
        .filter_map(|endpoint| endpoint.pointer("/endpoint/address/socket_address"))
        .filter_map(|socket| {
            let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
            Some(SocketAddrV4::new(socket.get("address")?.as_str()?.parse().ok()?, port))
        })
        .collect()
}

fn file_sd_addresses(groups: &Value) -> BTreeSet<SocketAddrV4> {
    each(groups, "")
        .flat_map(|group| each(group, "/targets"))
        .filter_map(|target| target.as_str()?.parse().ok())
        .collect()
}

fn each<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [EndpointsFormat; 4] =
        [EndpointsFormat::Plain, EndpointsFormat::Envoy, EndpointsFormat::FileSd, EndpointsFormat::Nginx];

    fn addresses(list: &[&str]) -> BTreeSet<SocketAddrV4> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_format_reads_back_what_it_wrote_and_nobody_is_nobody() {
        for format in ALL {
            for list in [&[][..], &["10.0.0.2:80"], &["10.0.0.10:80", "10.0.0.2:8080", "10.0.0.2:80"]] {
                let written = addresses(list);
                assert_eq!(parse(format, &render(format, "web", &written)), written, "{format:?}");
            }
        }
    }

    #[test]
    fn the_order_is_by_address_as_a_number_and_lines_are_as_documented() {
        let list = addresses(&["10.0.0.10:80", "10.0.0.2:8080", "10.0.0.2:80"]);
        assert_eq!(
            render(EndpointsFormat::Plain, "web", &list),
            b"10.0.0.2:80\n10.0.0.2:8080\n10.0.0.10:80\n"
        );
        assert_eq!(
            String::from_utf8(render(EndpointsFormat::Nginx, "web", &list)).unwrap(),
            "server 10.0.0.2:80;\nserver 10.0.0.2:8080;\nserver 10.0.0.10:80;\n"
        );
    }

    #[test]
    fn the_version_for_envoy_changes_exactly_with_the_list() {
        let of = |list: &[&str]| envoy("web", &addresses(list))["version_info"].clone();
        assert_eq!(of(&["10.0.0.2:80", "10.0.0.3:80"]), of(&["10.0.0.3:80", "10.0.0.2:80"]));
        assert_ne!(of(&["10.0.0.2:80"]), of(&["10.0.0.3:80"]));
    }

    #[test]
    fn a_damaged_file_holds_no_address_and_breaks_nothing() {
        for format in ALL {
            for damaged in
                [&b"\xff\xfe"[..], b"{", b"[{}]", b"{\"resources\": 3}", b"server ;\n", b"10.0.0.1"]
            {
                assert_eq!(parse(format, damaged), BTreeSet::new(), "{format:?} {damaged:?}");
            }
        }
    }
}
