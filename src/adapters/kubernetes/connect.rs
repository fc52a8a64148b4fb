//! A client for the Kubernetes API.
//!
//! It does not retry by itself: a withdrawal may only be sent while its plan's LIST is young, so the caller decides.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// For establishing a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or is invalid.
    #[error("cannot use the kubeconfig {path}")]
    ReadKubeconfig {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: KubeconfigError,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error("no Kubernetes API is configured: write --kubeconfig FILE, set KUBECONFIG, or run in a pod")]
    Infer(#[source] InferConfigError),
    /// `--master` is no URL.
    #[error("{master:?} is no URL of an API server: write for instance https://10.0.0.1:6443")]
    ParseMaster {
        /// The value of `--master`.
        master: String,
    },
    /// The certificates or the credentials are unusable.
    #[error("cannot make a client for the Kubernetes API at {server}")]
    Build {
        /// Its URL.
        server: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
}

/// A client: from the file if one is named, else from `KUBECONFIG`, the home directory or the pod's service
/// account; `master` replaces the server given there. Sends no request.
///
/// Requests have no timeout, since a watch may be silent for minutes: callers set their own.
///
/// # Errors
/// When there is no usable configuration.
pub async fn client(kubeconfig: Option<&Path>, master: Option<&str>) -> Result<Client, ConnectError> {
    // Fails only if a provider is installed already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let server = master.map(server).transpose()?;
    let mut config = match (kubeconfig, &server) {
        (Some(path), _) => from_file(path).await?,
        (None, None) => Config::infer().await.map_err(ConnectError::Infer)?,
        // A server without authentication needs no configuration.
        (None, Some(server)) => Config::infer().await.unwrap_or_else(|_| Config::new(server.clone())),
    };
    if let Some(server) = server {
        config.cluster_url = server;
    }
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = None;
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ConnectError::Build { server, source })
}

async fn from_file(path: &Path) -> Result<Config, ConnectError> {
    let unusable = |source| ConnectError::ReadKubeconfig { path: path.display().to_string(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)
}

fn server(master: &str) -> Result<hyper::Uri, ConnectError> {
    let wrong = || ConnectError::ParseMaster { master: master.to_owned() };
    let server: hyper::Uri = master.parse().map_err(|_| wrong())?;
    let complete = matches!(server.scheme_str(), Some("http" | "https")) && server.host().is_some();
    if complete { Ok(server) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let missing = client(Some(Path::new("no/such/file")), None).await.err().unwrap();
        assert!(missing.to_string().contains("no/such/file"), "{missing}");
        let wrong = client(None, Some("10.0.0.1:6443")).await.err().unwrap();
        assert!(wrong.to_string().contains("10.0.0.1:6443"), "{wrong}");
    }

    #[tokio::test]
    async fn a_server_alone_is_enough() {
        assert!(client(None, Some("http://localhost:8080")).await.is_ok());
    }
}
