//! Names from the command line, checked before they become part of a path at the API server.

use std::time::Duration;

use crate::roles::report::time_range::span;

/// `web-1` or `pod/web-1`.
pub(super) fn pod(text: &str) -> Result<String, String> {
    bare(text, &["pod", "pods", "po"], "web-1 or pod/web-1")
}

/// `web`, or with any name of the resource before it.
pub(in crate::roles) fn service(text: &str) -> Result<String, String> {
    let kinds = ["kvs", "rdc", "kubervisorservice", "kubervisorservices"];
    let text = match text.split_once('/') {
        // `kubectl -o name` writes the group, too.
        Some((kind, name)) if kind.ends_with(".kubervisor.k8s.io") => {
            format!("{}/{name}", kind.trim_end_matches(".kubervisor.k8s.io"))
        }
        _ => text.to_owned(),
    };
    bare(&text, &kinds, "web, kvs/web or rdc/web")
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestTarget {
    Service(String),
    Pod(String),
}

/// `web` or `kvs/web`, or `pod/web-1`.
pub(super) fn request_target(text: &str) -> Result<RequestTarget, String> {
    match text.split_once('/') {
        Some(("pod" | "pods" | "po", _)) => pod(text).map(RequestTarget::Pod),
        _ => service(text).map(RequestTarget::Service),
    }
}

/// A name as Kubernetes lets an object have one.
pub(in crate::roles) fn object(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let whole = text.chars().all(fits) && text.starts_with(edge) && text.ends_with(edge);
    if whole && text.len() <= 253 {
        return Ok(text.to_owned());
    }
    Err("a name has small letters, digits, '-' and '.', and begins and ends with a letter or digit".into())
}

/// `10s` or `2m`; a number alone is of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds
        .or_else(|| span(text))
        .ok_or_else(|| "write a time such as 10s or 2m, or a number of seconds".to_owned())
}

fn bare(text: &str, kinds: &[&str], example: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => object(text),
        Some((kind, name)) if kinds.contains(&kind) => object(name),
        Some((kind, _)) => Err(format!("{kind} is another kind of resource: write {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_resource_may_stand_before_its_own() {
        let kinds = ["kvs", "rdc", "kubervisorservice", "kubervisorservices"];
        for kind in kinds {
            assert_eq!(service(&format!("{kind}/shop.web")).as_deref(), Ok("shop.web"));
            assert_eq!(service(&format!("{kind}.kubervisor.k8s.io/web")).as_deref(), Ok("web"));
        }
        assert_eq!(service("web").as_deref(), Ok("web"));
        assert_eq!(pod("po/web-1").as_deref(), Ok("web-1"));
    }

    #[test]
    fn a_time_has_a_unit_or_is_of_seconds() {
        let seconds = Duration::from_secs;
        for (text, expected) in [("10s", 10), ("2m", 120), ("1m30s", 90), ("7", 7), ("0", 0)] {
            assert_eq!(duration(text), Ok(seconds(expected)), "{text}");
        }
        for text in ["", "-1s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_is_about_a_resource_unless_a_pod_is_named_as_one() {
        assert_eq!(request_target("web"), Ok(RequestTarget::Service("web".into())));
        assert_eq!(request_target("pod/web-1"), Ok(RequestTarget::Pod("web-1".into())));
        assert!(request_target("svc/web").is_err());
    }

    #[test]
    fn nothing_else_becomes_part_of_a_path() {
        for text in ["", "..", "a/b/c", "svc/web", "kvs/", "kvs/../x", "a?b", "a%2f", "-a", "A"] {
            assert!(service(text).is_err(), "{text}");
        }
        assert!(object(&"a".repeat(254)).is_err());
    }
}
