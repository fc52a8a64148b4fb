//! The address that a notification may go to, from the pod as the API server has it.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;

use crate::api::notify::NotifyPort;

/// Why a pod is not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetRefusal {
    /// It does not exist any more, or another one has its name.
    #[error("the pod is gone")]
    Gone,
    /// Its address is its node's, on which others listen.
    #[error("the pod is in its host's network, where others listen: it is never notified")]
    HostNetwork,
    /// It has no address, or one that cannot be a pod's own.
    #[error("{0:?} is no address of a pod of its own: it is never notified")]
    Address(String),
    /// No container has that port.
    #[error("no container has a port named {0:?}: correct spec.notify.port")]
    Port(String),
}

/// The pod's own address and port.
pub(super) fn of(
    pod: &Pod,
    uid: &str,
    port: &NotifyPort,
    loopback: bool,
) -> Result<SocketAddr, TargetRefusal> {
    if pod.metadata.uid.as_deref() != Some(uid) {
        return Err(TargetRefusal::Gone);
    }
    let spec = pod.spec.as_ref().ok_or(TargetRefusal::Gone)?;
    if spec.host_network == Some(true) {
        return Err(TargetRefusal::HostNetwork);
    }
    let status = pod.status.as_ref();
    let text = status.and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    let hosts = status.into_iter().flat_map(|status| {
        status.host_ip.iter().chain(status.host_ips.iter().flatten().map(|host| &host.ip))
    });
    let of_host = hosts.filter_map(|host| host.parse::<IpAddr>().ok());
    let hosts: Vec<IpAddr> = of_host.collect();
    let fits = |ip: &IpAddr| is_own(*ip, loopback) && !hosts.contains(ip);
    let ip = text.parse().ok().filter(fits).ok_or(TargetRefusal::Address(text))?;
    let number = match port {
        NotifyPort::Number(number) => *number,
        NotifyPort::Name(name) => {
            let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
            let mut named = ports.filter(|port| port.name.as_ref() == Some(name));
            let number = named.next().and_then(|port| u16::try_from(port.container_port).ok());
            number.ok_or_else(|| TargetRefusal::Port(name.clone()))?
        }
    };
    Ok(SocketAddr::new(ip, number))
}

/// Whether a pod can have the address for itself: not this machine's, a link's (where clouds serve credentials), or one
/// of many receivers.
fn is_own(ip: IpAddr, loopback: bool) -> bool {
    let somebody = !ip.is_unspecified() && !ip.is_multicast();
    somebody
        && match ip {
            IpAddr::V4(ip) => {
                let shared = ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0;
                !shared && (loopback || !ip.is_loopback())
            }
            IpAddr::V6(ip) => {
                !(ip.is_loopback() || ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some())
            }
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn target(status: &Value, host_network: bool, port: &NotifyPort) -> Result<String, TargetRefusal> {
        let pod = json!({
            "metadata": {"uid": "u1"},
            "spec": {"hostNetwork": host_network, "containers": [
                {"name": "a", "ports": [{"containerPort": 1}]},
                {"name": "b", "ports": [{"containerPort": 8080, "name": "http"}]},
            ]},
            "status": status,
        });
        of(&serde_json::from_value(pod).unwrap(), "u1", port, false).map(|target| target.to_string())
    }

    #[test]
    fn the_pods_own_address_and_port_are_the_target() {
        let status = json!({"podIP": "10.1.2.3", "hostIP": "10.0.0.1"});
        assert_eq!(target(&status, false, &NotifyPort::Number(99)).as_deref(), Ok("10.1.2.3:99"));
        assert_eq!(target(&status, false, &NotifyPort::Name("http".into())).as_deref(), Ok("10.1.2.3:8080"));
        let missing = target(&status, false, &NotifyPort::Name("grpc".into()));
        assert_eq!(missing, Err(TargetRefusal::Port("grpc".into())));
        let six = json!({"podIP": "fd00::7"});
        assert_eq!(target(&six, false, &NotifyPort::Number(99)).as_deref(), Ok("[fd00::7]:99"));
    }

    #[test]
    fn no_other_address_is_ever_a_target() {
        let port = NotifyPort::Number(80);
        for ip in [
            "",
            "kubernetes.default",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "10.1.2.3:80",
        ] {
            let refused = target(&json!({"podIP": ip}), false, &port);
            assert_eq!(refused, Err(TargetRefusal::Address(ip.to_owned())), "{ip}");
        }
        let of_host = json!({"podIP": "10.0.0.1", "hostIP": "10.0.0.1"});
        assert!(matches!(target(&of_host, false, &port), Err(TargetRefusal::Address(_))));
        let second = json!({"podIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.9"}, {"ip": "10.0.0.1"}]});
        assert!(matches!(target(&second, false, &port), Err(TargetRefusal::Address(_))));
        assert_eq!(target(&json!({"podIP": "10.1.2.3"}), true, &port), Err(TargetRefusal::HostNetwork));
    }

    #[test]
    fn another_pod_of_the_name_is_not_told() {
        let pod = serde_json::from_value(json!({"metadata": {"uid": "u2"}})).unwrap();
        assert_eq!(of(&pod, "u1", &NotifyPort::Number(80), false), Err(TargetRefusal::Gone));
    }
}
