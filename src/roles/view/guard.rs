//! What every answer of the admin port and of the view passes: the names by which it may be called, and the headers
//! that keep a browser from doing more than showing it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The names by which a listener may be called, beside addresses and `localhost`.
///
/// A page of another site can make its own name lead to this listener (DNS rebinding), and then read what a browser is
/// given. It cannot do so with an address, because no name is looked up for one.
#[derive(Clone, Debug, Default)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// `names`, in any case and without a port.
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    fn allow(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let port_is_a_number = authority.as_str().ends_with(authority.host()) || authority.port().is_some();
        let known = || name == "localhost" || self.0.contains(&name) || name.parse::<IpAddr>().is_ok();
        port_is_a_number && !authority.as_str().contains('@') && known()
    }
}

/// Refuses requests to other names, and sets the headers.
pub async fn guard(State(names): State<HostNames>, request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        // HTTP/1.0 has none; a browser never sends it.
        (None, None) => true,
        (Some(host), None) => names.allow(host),
        _ => false,
    };
    let mut response = if named {
        next.run(request).await
    } else {
        let why = "this name is not one of this server: call it by its address or localhost, or allow the name with \
                   --view-host (KUBERVISOR_VIEW_HOST)\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_localhost_and_the_given_names_are_called() {
        let names = HostNames::new(&["View.Example.org".to_owned()]);
        for good in
            ["127.0.0.1:8087", "10.0.0.7", "[::1]:8087", "localhost:1", "LOCALHOST", "view.example.org:443"]
        {
            assert!(names.allow(good), "{good}");
        }
        for forged in [
            "evil.example",
            "localhost.evil.example:8087",
            "127.0.0.1.nip.io",
            "",
            "a@127.0.0.1",
            "view.example.org.",
            "127.0.0.1:x",
        ] {
            assert!(!names.allow(forged), "{forged}");
        }
    }
}
