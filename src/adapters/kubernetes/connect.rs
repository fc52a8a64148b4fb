//! A client for the Kubernetes API, found and configured as kubectl does it.
//!
//! It does not retry by itself: a withdrawal may only be sent while its plan's LIST is young, so the caller decides.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::client::proxy::matcher::Matcher;
use kube::{
    Client, Config,
    config::{AuthInfo, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use reqwest::header::{HeaderName, HeaderValue, USER_AGENT};
use secrecy::SecretString;

/// For establishing a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Which API server is asked, and as whom; everything may be left out.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// The kubeconfig; else those of `KUBECONFIG`, `~/.kube/config`, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The server, in place of the kubeconfig's.
    pub server: Option<String>,
    /// Context, cluster and user of the kubeconfig, in place of the current ones.
    pub names: KubeConfigOptions,
    /// The bearer token, in place of all credentials of the kubeconfig's user.
    pub token: Option<SecretString>,
    /// Impersonation: the user, and groups.
    pub impersonate: Option<String>,
    /// The groups beside it.
    pub groups: Vec<String>,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or is invalid.
    #[error("cannot use the kubeconfig {0}")]
    ReadKubeconfig(String, #[source] KubeconfigError),
    /// There is neither a kubeconfig nor a service account.
    #[error("no Kubernetes API is configured: write --kubeconfig FILE, set KUBECONFIG, or run in a pod")]
    Infer(#[source] InClusterError),
    /// The kubeconfig has no such user, and would be used without credentials.
    #[error("the kubeconfig has no user {0:?}")]
    UnknownUser(String),
    /// `--master` is no URL.
    #[error("{0:?} is no URL of an API server: write for instance https://10.0.0.1:6443")]
    ParseMaster(String),
    /// A user or group to impersonate that HTTP cannot carry.
    #[error("cannot act as {0:?}: it has a character that no HTTP header may have")]
    Impersonate(String),
    /// The certificates, the credentials or the proxy are unusable.
    #[error("cannot make a client for the Kubernetes API at {0}")]
    Build(String, #[source] kube::Error),
}

/// A client that sends no request yet.
///
/// Requests have no timeout, since a watch may be silent for minutes: callers set their own.
///
/// # Errors
/// When there is no usable configuration.
pub async fn client(options: &ConnectOptions) -> Result<Client, ConnectError> {
    let mut config = configuration(options).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = None;
    build(config)
}

/// The client of a configuration.
///
/// # Errors
/// [`ConnectError::Build`].
pub(super) fn build(mut config: Config) -> Result<Client, ConnectError> {
    config.default_retry = false;
    // Its part before the slash is also the name of the field manager of all writes.
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(concat!("kubervisor/", env!("CARGO_PKG_VERSION")))));
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ConnectError::Build(server, source))
}

/// The configuration that kubectl would use.
///
/// # Errors
/// As [`client`].
pub(super) async fn configuration(options: &ConnectOptions) -> Result<Config, ConnectError> {
    // Fails only if a provider is installed already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let server = options.server.as_deref().map(server).transpose()?;
    let mut config = match (found(options).await, &server) {
        (Ok(config), _) => config,
        // A server without authentication needs no configuration.
        (Err(ConnectError::Infer(_)), Some(server)) => Config::new(server.clone()),
        (Err(error), _) => return Err(error),
    };
    if let Some(server) = server {
        config.cluster_url = server;
    }
    impersonate(options, &mut config)?;
    if let Some(token) = &options.token {
        config.auth_info = AuthInfo { token: Some(token.clone()), ..AuthInfo::default() };
    }
    Ok(config)
}

/// The files' configuration, or that of the pod.
async fn found(options: &ConnectOptions) -> Result<Config, ConnectError> {
    let (paths, required) = files(options.kubeconfig.as_deref(), env::var_os("KUBECONFIG").as_deref());
    let mut merged = Kubeconfig::default();
    let unusable = |path: &Path| {
        let path = path.display().to_string();
        |source| ConnectError::ReadKubeconfig(path, source)
    };
    // Of a list kubectl leaves out what is not there.
    for path in paths.iter().filter(|path| required || path.exists()) {
        let read = Kubeconfig::read_from(path).and_then(|next| merged.merge(next));
        merged = read.map_err(unusable(path))?;
    }
    if merged.clusters.is_empty() && merged.contexts.is_empty() {
        return Config::incluster().map(through_proxy).map_err(ConnectError::Infer);
    }
    let unknown = |user: &&String| merged.auth_infos.iter().all(|known| known.name != **user);
    if let Some(user) = options.names.user.as_ref().filter(unknown) {
        return Err(ConnectError::UnknownUser(user.clone()));
    }
    let list = env::join_paths(&paths).unwrap_or_default();
    let has_proxy = has_proxy(&merged, &options.names);
    let config = Config::from_custom_kubeconfig(merged, &options.names).await;
    let config = config.map_err(unusable(Path::new(&list)))?;
    Ok(if has_proxy { config } else { through_proxy(config) })
}

/// Whether the kubeconfig itself names a proxy for the cluster.
fn has_proxy(kubeconfig: &Kubeconfig, names: &KubeConfigOptions) -> bool {
    let context = names.context.as_ref().or(kubeconfig.current_context.as_ref());
    let context = kubeconfig.contexts.iter().find(|known| Some(&known.name) == context);
    let cluster = context.and_then(|known| Some(&known.context.as_ref()?.cluster));
    let cluster = names.cluster.as_ref().or(cluster);
    let cluster = kubeconfig.clusters.iter().find(|known| Some(&known.name) == cluster);
    cluster.and_then(|known| known.cluster.as_ref()?.proxy_url.as_ref()).is_some_and(|url| !url.is_empty())
}

/// The proxy of `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY`, unless `NO_PROXY` names the server. (kube compares
/// `NO_PROXY` with the proxy's own host.)
fn through_proxy(mut config: Config) -> Config {
    let found = Matcher::from_env().intercept(&config.cluster_url);
    config.proxy_url = found.map(|proxy| proxy.uri().clone());
    config
}

/// The kubeconfigs, and whether they must exist.
fn files(named: Option<&Path>, variable: Option<&std::ffi::OsStr>) -> (Vec<PathBuf>, bool) {
    if let Some(path) = named {
        return (vec![path.to_owned()], true);
    }
    let listed = variable.into_iter().flat_map(env::split_paths);
    let listed: Vec<PathBuf> = listed.filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        return (listed, false);
    }
    (env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(), false)
}

/// The headers of an impersonation; those of the kubeconfig's user when no other is named.
fn impersonate(options: &ConnectOptions, config: &mut Config) -> Result<(), ConnectError> {
    let auth = &config.auth_info;
    let (user, groups) = match &options.impersonate {
        Some(user) => (Some(user.clone()), options.groups.clone()),
        None => (auth.impersonate.clone(), auth.impersonate_groups.clone().unwrap_or_default()),
    };
    let users = user.map(|user| ("impersonate-user", user));
    for (name, value) in users.into_iter().chain(groups.into_iter().map(|group| ("impersonate-group", group)))
    {
        let field = HeaderValue::try_from(&value).map_err(|_| ConnectError::Impersonate(value))?;
        config.headers.push((HeaderName::from_static(name), field));
    }
    Ok(())
}

fn server(master: &str) -> Result<hyper::Uri, ConnectError> {
    let wrong = || ConnectError::ParseMaster(master.to_owned());
    let server: hyper::Uri = master.parse().map_err(|_| wrong())?;
    let complete = matches!(server.scheme_str(), Some("http" | "https")) && server.host().is_some();
    if complete { Ok(server) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kubeconfig: Option<&str>, server: Option<&str>) -> ConnectOptions {
        ConnectOptions {
            kubeconfig: kubeconfig.map(Into::into),
            server: server.map(Into::into),
            ..ConnectOptions::default()
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let missing = client(&named(Some("no/such/file"), None)).await.err().unwrap();
        assert!(missing.to_string().contains("no/such/file"), "{missing}");
        let wrong = client(&named(None, Some("10.0.0.1:6443"))).await.err().unwrap();
        assert!(wrong.to_string().contains("10.0.0.1:6443"), "{wrong}");
    }

    #[tokio::test]
    async fn a_server_alone_is_enough() {
        assert!(client(&named(None, Some("http://localhost:8080"))).await.is_ok());
    }

    #[test]
    fn a_named_file_must_exist_and_one_of_a_list_need_not() {
        let path = |text: &str| vec![PathBuf::from(text)];
        let list = std::ffi::OsStr::new("a::b");
        assert_eq!(files(Some(Path::new("x")), Some(list)), (path("x"), true));
        assert_eq!(files(None, Some(list)), (vec!["a".into(), "b".into()], false));
    }

    #[test]
    fn the_user_of_the_command_line_is_impersonated_before_that_of_the_kubeconfig() {
        let mut config = Config::new("http://localhost".parse().unwrap());
        config.auth_info.impersonate = Some("ann".into());
        config.auth_info.impersonate_groups = Some(vec!["staff".into()]);
        let fields = |options: &ConnectOptions| {
            let mut config = config.clone();
            impersonate(options, &mut config).unwrap();
            config
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(&named(None, None)), ["impersonate-user=ann", "impersonate-group=staff"]);
        let bob = ConnectOptions { impersonate: Some("bob".into()), ..ConnectOptions::default() };
        assert_eq!(fields(&bob), ["impersonate-user=bob"]);
        let odd = ConnectOptions { impersonate: Some("a\nb".into()), ..ConnectOptions::default() };
        assert!(impersonate(&odd, &mut config.clone()).is_err());
    }
}
