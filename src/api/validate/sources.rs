//! `spec.sources`, the operator's own list of sources, and credentials.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        Context, Detectors,
        raw::{RawAuth, RawCredential, RawHeader, RawOAuth2, RawSecretKey, RawSigV4, RawSource, RawTls},
        report::Report,
    },
    forms,
    take::Take,
};
use crate::decide::detect::{
    MetricSource,
    metric_source::{Credential, SourceAuth, SourceHeader, SourceText, SourceTls},
};

/// The sources that a breaker may name: the manifest's own first.
pub(in crate::api) type SourcesByName = BTreeMap<String, Arc<MetricSource>>;

/// Who wrote a source, which decides where its credentials may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// The owner of a namespace: Secrets and ConfigMaps of that namespace.
    Manifest,
    /// The owner of a manifest for a process without Kubernetes: none.
    Policy,
    /// The operator of the process: its files and variables.
    Operator,
}

/// The manifest's own sources and the operator's.
pub(super) fn of_manifest(
    raw: Option<&[RawSource]>,
    context: Context,
    report: &mut Report<'_>,
) -> SourcesByName {
    let author = match context.detectors {
        Detectors::WithoutSecrets => Author::Policy,
        Detectors::All | Detectors::Keepalives => Author::Manifest,
    };
    let mut all: SourcesByName = context.sources.iter().cloned().collect();
    all.extend(list(raw.unwrap_or_default(), author, report));
    all
}

/// Every source of the list at `spec.sources`.
pub(super) fn list(raw: &[RawSource], author: Author, report: &mut Report<'_>) -> SourcesByName {
    let mut found = SourcesByName::new();
    for (index, raw) in raw.iter().enumerate() {
        let path = format!("spec.sources[{index}]");
        let mut take = Take { report, path: &path };
        let name = take.label("name", raw.name.as_deref());
        let url = take.required("url", raw.url.as_deref());
        if raw.url.is_some() && !forms::is_service_url(&url) {
            take.misfit("url", format!("is {url:?}"));
        }
        let headers = raw.headers.iter().flatten().enumerate();
        let headers = headers
            .map(|(index, raw)| header(&format!("{path}.headers[{index}]"), raw, author, report))
            .collect();
        let tls = tls(&format!("{path}.tls"), raw.tls.as_ref(), author, report);
        let auth = auth(&format!("{path}.auth"), raw, author, report);
        let source = MetricSource { url, headers, tls, auth };
        if found.insert(name.clone(), Arc::new(source)).is_some() {
            report.misfit(&format!("{path}.name"), format!("is {name:?}, as that of another source"));
        }
    }
    found
}

fn header(path: &str, raw: &RawHeader, author: Author, report: &mut Report<'_>) -> SourceHeader {
    let mut take = Take { report, path };
    let name = take.required("name", raw.name.as_deref());
    if raw.name.is_some() && !forms::is_header_name(&name) {
        take.misfit("name", format!("is {name:?}"));
    }
    let value = match (&raw.value, &raw.from) {
        (Some(value), None) => {
            if value.chars().any(char::is_control) {
                take.misfit("value", format!("is {value:?}, which has a control character"));
            }
            SourceText::Plain(value.clone())
        }
        (None, Some(raw)) => {
            let credential = credential(&format!("{path}.from"), raw, author, report);
            SourceText::From(credential)
        }
        (both, _) => {
            let what = if both.is_some() { "has both value and from" } else { "has neither value nor from" };
            report.add(path, what, "write one of them");
            SourceText::Plain(String::new())
        }
    };
    SourceHeader { name, value }
}

fn tls(path: &str, raw: Option<&RawTls>, author: Author, report: &mut Report<'_>) -> SourceTls {
    let Some(raw) = raw else { return SourceTls::default() };
    let mut of = |field: &str, raw: &Option<RawCredential>| {
        raw.as_ref().map(|raw| credential(&format!("{path}.{field}"), raw, author, report))
    };
    let ca = of("ca", &raw.ca);
    let identity = match (of("certificate", &raw.certificate), of("key", &raw.key)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => report.refuse(path, "has a certificate or a key alone", "write both, or neither"),
    };
    let server_name = raw.server_name.clone();
    if let Some(name) = server_name.as_ref().filter(|name| !forms::is_host(name)) {
        report.misfit(&format!("{path}.serverName"), format!("is {name:?}"));
    }
    SourceTls { ca, identity, server_name }
}

fn auth(path: &str, raw: &RawSource, author: Author, report: &mut Report<'_>) -> Option<SourceAuth> {
    let raw = raw.auth.as_ref()?;
    let mut found = Vec::new();
    if let Some(raw) = &raw.bearer {
        found.push(SourceAuth::Bearer(credential(&format!("{path}.bearer"), raw, author, report)));
    }
    if let Some(raw) = &raw.basic {
        found.push(basic(&format!("{path}.basic"), raw, author, report));
    }
    if let Some(raw) = &raw.oauth2 {
        found.push(oauth2(&format!("{path}.oauth2"), raw, author, report));
    }
    if let Some(raw) = &raw.sig_v4 {
        found.push(sig_v4(&format!("{path}.sigV4"), raw, author, report));
    }
    if found.len() != 1 {
        report.misfit(path, format!("has {} of bearer, basic, oauth2 and sigV4", found.len()));
    }
    found.pop()
}

/// A Secret without a key is one of type `kubernetes.io/basic-auth`.
fn basic(path: &str, raw: &RawCredential, author: Author, report: &mut Report<'_>) -> SourceAuth {
    if let (Some(name), None) = (&raw.secret, &raw.key) {
        credential(path, &RawCredential { key: Some("username".to_owned()), ..raw.clone() }, author, report);
        return basic_pair(name);
    }
    SourceAuth::Basic(credential(path, raw, author, report))
}

fn basic_pair(name: &str) -> SourceAuth {
    let of = |key: &str| Credential::Secret { name: name.to_owned(), key: key.to_owned() };
    SourceAuth::BasicPair(of("username"), of("password"))
}

fn oauth2(path: &str, raw: &RawOAuth2, author: Author, report: &mut Report<'_>) -> SourceAuth {
    let mut take = Take { report, path };
    let token_url = take.required("tokenUrl", raw.token_url.as_deref());
    if raw.token_url.is_some() && !(forms::is_service_url(&token_url) && token_url.contains("://")) {
        take.misfit("tokenUrl", format!("is {token_url:?}"));
    }
    let client_id = take.required("clientId", raw.client_id.as_deref());
    let client_secret = required(&format!("{path}.clientSecret"), raw.client_secret.as_ref(), author, report);
    SourceAuth::OAuth2 { token_url, client_id, client_secret, scopes: raw.scopes.clone().unwrap_or_default() }
}

fn sig_v4(path: &str, raw: &RawSigV4, author: Author, report: &mut Report<'_>) -> SourceAuth {
    let mut take = Take { report, path };
    let region = take.required("region", raw.region.as_deref());
    let service = raw.service.clone().unwrap_or_else(|| "aps".to_owned());
    let mut key = |field: &str, raw: &Option<RawCredential>, variable: &str| {
        // What an AWS client reads by itself, where the operator names nothing else.
        if raw.is_none() && author == Author::Operator {
            return Credential::Variable(variable.to_owned());
        }
        required(&format!("{path}.{field}"), raw.as_ref(), author, report)
    };
    let access_key_id = key("accessKeyId", &raw.access_key_id, "AWS_ACCESS_KEY_ID");
    let secret_access_key = key("secretAccessKey", &raw.secret_access_key, "AWS_SECRET_ACCESS_KEY");
    SourceAuth::SigV4 { region, service, access_key_id, secret_access_key }
}

fn required(path: &str, raw: Option<&RawCredential>, author: Author, report: &mut Report<'_>) -> Credential {
    match raw {
        Some(raw) => credential(path, raw, author, report),
        None => {
            report.missing(path);
            Credential::File(PathBuf::new())
        }
    }
}

fn credential(path: &str, raw: &RawCredential, author: Author, report: &mut Report<'_>) -> Credential {
    let key = raw.key.clone().unwrap_or_default();
    let (found, in_kubernetes) = match raw {
        RawCredential { secret: Some(name), config_map: None, file: None, variable: None, .. } => {
            (Credential::Secret { name: name.clone(), key }, true)
        }
        RawCredential { secret: None, config_map: Some(name), file: None, variable: None, .. } => {
            (Credential::ConfigMap { name: name.clone(), key }, true)
        }
        RawCredential { secret: None, config_map: None, file: Some(file), variable: None, .. } => {
            (Credential::File(Path::new(file).to_owned()), false)
        }
        RawCredential { secret: None, config_map: None, file: None, variable: Some(name), .. } => {
            (Credential::Variable(name.clone()), false)
        }
        _ => {
            report.add(path, "does not name exactly one place", of_author(author));
            return Credential::File(PathBuf::new());
        }
    };
    match author {
        Author::Manifest if !in_kubernetes => {
            report.add(path, "names a file or a variable of the controller", of_author(author));
        }
        Author::Policy => {
            report.add(path, "needs a credential, which a policy may not name", of_author(author));
        }
        Author::Operator if in_kubernetes => {
            report.add(path, "names an object of Kubernetes", of_author(author));
        }
        Author::Manifest if raw.key.is_none() => report.missing(&format!("{path}.key")),
        Author::Manifest | Author::Operator => {}
    }
    found
}

/// A key of a Secret in the same namespace.
pub(super) fn secret_key(path: &str, raw: &RawSecretKey, report: &mut Report<'_>) -> Credential {
    let mut take = Take { report, path };
    let name = take.required("name", raw.name.as_deref());
    Credential::Secret { name, key: take.required("key", raw.key.as_deref()) }
}

fn of_author(author: Author) -> &'static str {
    match author {
        Author::Manifest => "write secret and key, or configMap and key, of this namespace",
        Author::Policy => "write the source into the file of --sources, and its name here",
        Author::Operator => "write file, or variable",
    }
}

/// `spec.breakers[].auth`, of a source that is written as an address.
pub(super) fn of_address(path: &str, raw: &RawAuth, report: &mut Report<'_>) -> Option<SourceAuth> {
    let mut secret = |field: &str, raw| secret_key(&format!("{path}.{field}"), raw, report);
    match (&raw.bearer_secret, &raw.basic_secret) {
        (Some(raw), None) => Some(SourceAuth::Bearer(secret("bearerSecret", raw))),
        (None, Some(RawSecretKey { name: Some(name), key: None })) => Some(basic_pair(name)),
        (None, Some(raw)) => Some(SourceAuth::Basic(secret("basicSecret", raw))),
        (Some(_), Some(_)) => {
            report.refuse(path, "has both bearerSecret and basicSecret", "write one of them")
        }
        (None, None) => {
            report.misfit(path, "has neither bearerSecret nor basicSecret");
            None
        }
    }
}
