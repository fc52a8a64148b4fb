//! Translates etcd's errors into [`StoreError`]: transient, out of space, or permanent with advice.

use std::error::Error as _;

use etcd_client::Error;

use crate::{adapters::store::StoreError, exit::with_causes};

/// Etcd's default limit of a request, in bytes.
const REQUEST_LIMIT: usize = 1_572_864;

/// Permanent errors: a part of etcd's text, and what to do.
const PERMANENT: [(&str, &str); 7] = [
    ("authentication failed", "check KUBERVISOR_ETCD_USER and KUBERVISOR_ETCD_PASSWORD_FILE"),
    ("user name is empty", "it wants a login: set KUBERVISOR_ETCD_USER and KUBERVISOR_ETCD_PASSWORD_FILE"),
    ("authentication is not enabled", "it knows no users: unset KUBERVISOR_ETCD_USER"),
    ("permission denied", "grant the user's role readwrite on the prefix /kontrol/"),
    ("invalid peer certificate", "check KUBERVISOR_ETCD_CA_FILE and that the certificate names this host"),
    ("CertificateRequired", "it wants a client certificate: set KUBERVISOR_ETCD_CERT_FILE and _KEY_FILE"),
    ("BadCertificate", "it refuses our certificate: check KUBERVISOR_ETCD_CERT_FILE and _KEY_FILE"),
];

/// The [`StoreError`] of the request `what`.
pub(super) fn explain(what: &str, error: &Error) -> StoreError {
    let text = chain(error);
    if text.contains("database space exceeded") {
        return StoreError::NoSpace(format!(
            "etcd: {what}: its quota is used up; compact and defragment it, then disarm the NOSPACE alarm"
        ));
    }
    if text.contains("request is too large") {
        return StoreError::TooLarge {
            what: format!("etcd: {what}"),
            size: REQUEST_LIMIT,
            limit: REQUEST_LIMIT,
        };
    }
    match PERMANENT.iter().find(|(sign, _)| text.contains(sign)) {
        Some((_, advice)) => StoreError::Unusable(format!("etcd: {what}: {text}; {advice}")),
        None => StoreError::Unavailable(format!("etcd: {what}: {text}")),
    }
}

/// Whether the lease that the request named is gone.
pub(super) fn is_lease_gone(error: &Error) -> bool {
    matches!(error, Error::LeaseKeepAliveError(_)) || chain(error).contains("lease not found")
}

/// Whether the login of the connection is no longer good: another one gets a new token.
pub(super) fn is_login_stale(error: &Error) -> bool {
    let text = chain(error);
    let signs = [
        "invalid auth token",
        "revision of auth store is old",
        "revision in header is old",
        "user name is empty",
    ];
    signs.iter().any(|sign| text.contains(sign))
}

/// Whether the revision that was asked for has been compacted away.
pub(super) fn is_compacted(reason: &str) -> bool {
    reason.contains("revision has been compacted")
}

/// The texts of the error and its sources; the transport gives the cause only in the last.
fn chain(error: &Error) -> String {
    let (text, source) = match error {
        Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        Error::TransportError(cause) => (error.to_string(), cause.source()),
        other => (other.to_string(), None),
    };
    with_causes(text, source)
}
