//! Syntax of texts: names, addresses, pointers.

/// A resource's name that also fits into a label: DNS-1123, with dots, at most 63 characters.
pub(super) fn is_resource_name(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 63 && text.split('.').all(part)
}

/// RFC 6901: empty, or `/` before each step; `~` only as `~0` and `~1`.
pub(super) fn is_pointer(text: &str) -> bool {
    let escaped = |step: &str| step.starts_with(['0', '1']);
    (text.is_empty() || text.starts_with('/')) && text.split('~').skip(1).all(escaped)
}

/// host:port, or a URL of http or https; with an optional path and query.
pub(super) fn is_service_url(text: &str) -> bool {
    match without_scheme(text) {
        Some(rest) => is_authority_and_path(rest, false),
        None => is_authority_and_path(text, true),
    }
}

/// `host[:port][/path]`, or a URL of http or https.
pub(super) fn is_custom_service(text: &str) -> bool {
    is_authority_and_path(without_scheme(text).unwrap_or(text), false)
}

/// A path with an optional query.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic())
}

/// A token of RFC 9110.
pub(super) fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// A DNS name or an IPv4 address.
pub(super) fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

fn without_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))
}

fn is_authority_and_path(text: &str, needs_port: bool) -> bool {
    let end = text.find(['/', '?']).unwrap_or(text.len());
    let (authority, path) = text.split_at(end);
    let is_path = path.chars().all(|c| c.is_ascii_graphic() && c != '#');
    is_path && is_authority(authority, needs_port)
}

/// A host or an IPv6 address in brackets, and a port.
fn is_authority(text: &str, needs_port: bool) -> bool {
    let host_ends = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[host_ends..].rfind(':') {
        Some(colon) => (&text[..host_ends + colon], Some(&text[host_ends + colon + 1..])),
        None => (text, None),
    };
    let port_fits = port.map_or(!needs_port, |port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    host_fits && port_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(fits: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(fits(text), "{text:?} is good");
        }
        for text in bad {
            assert!(!fits(text), "{text:?} is bad");
        }
    }

    #[test]
    fn resource_names_may_have_dots_and_start_with_a_digit() {
        let longer = "a".repeat(64);
        all(is_resource_name, &["web", "1.web-2"], &["", ".", "a..b", "a-.b", "Web", &longer]);
    }

    #[test]
    fn pointers_are_rfc_6901() {
        all(is_pointer, &["", "/", "/a/0", "/a~0b~1", "/ü"], &["a", "/a~", "/a~2", "#/a"]);
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        all(
            is_service_url,
            &[
                "prometheus:9090",
                "prom.mon.svc:80",
                "https://prom.example",
                "http://p:9/",
                "http://p:9/select/0/prometheus?tenant=a",
                "[fd00:10::9]:9090",
                "https://[::1]/prometheus",
            ],
            &[
                "",
                "prometheus",
                ":9090",
                "p:0",
                "p:65536",
                "p:x",
                "ftp://p:9",
                "http://u:p@p:9",
                "http://p#x",
                "a b:1",
                "[fd00::9]",
                "[x]:1",
            ],
        );
        all(
            is_custom_service,
            &["d", "d:80", "d:80/a/b?c=d", "d/x", "https://d/x", "[::1]:80/x"],
            &["", "/x", "d:0/x", "d d", "d/a b"],
        );
    }
}
