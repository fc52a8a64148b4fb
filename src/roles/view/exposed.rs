//! `--view-addr`: the view for others than this machine, behind TLS or a proxy, for readers with a token.

use std::{path::PathBuf, sync::Arc};

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::post};
use tokio::net::TcpListener;

use super::{
    View,
    guard::{HostNames, guard},
    handlers,
    listener::{PageListener, TlsFiles},
    login::{Login, authorised, log_in},
};
use crate::{adapters::kubernetes::reviews::Reviewer, config::address::serving_or_off, exit::Exit};

/// The largest login form: tokens are a few KiB.
const LARGEST_FORM: usize = 32 * 1024;

/// Flags of the view.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ViewArgs {
    /// Serves the web view to readers with a bearer token, over TLS or behind a proxy; `off` turns it off.
    #[arg(long, env = "KUBERVISOR_VIEW_ADDR", value_name = "ADDR", default_value = "off")]
    pub view_addr: String,
    /// The view's certificate chain, PEM; read again when it changes.
    #[arg(long, env = "KUBERVISOR_VIEW_TLS_CERT", value_name = "FILE")]
    pub view_tls_cert: Option<PathBuf>,
    /// The private key of that certificate, PEM.
    #[arg(long, env = "KUBERVISOR_VIEW_TLS_KEY", value_name = "FILE")]
    pub view_tls_key: Option<PathBuf>,
    /// A proxy in front of `--view-addr` does TLS.
    #[arg(long, env = "KUBERVISOR_VIEW_BEHIND_PROXY")]
    pub view_behind_proxy: bool,
    /// A name by which browsers may call the view, beside addresses and localhost; may be repeated.
    #[arg(long, env = "KUBERVISOR_VIEW_HOST", value_name = "NAME", value_delimiter = ',')]
    pub view_host: Vec<String>,
}

/// The view's listener, not served yet.
pub struct BoundView {
    listener: PageListener,
    names: HostNames,
}

/// The view for others, with the one who knows its readers.
pub struct ExposedView {
    bound: BoundView,
    reviewer: Reviewer,
}

impl ViewArgs {
    /// The names by which this process may be called.
    pub fn names(&self) -> HostNames {
        HostNames::new(&self.view_host)
    }

    /// Binds `--view-addr`; `None` when it is off.
    ///
    /// # Errors
    /// [`Exit::Usage`] for an address that cannot be bound, neither TLS nor a proxy, or an unusable certificate.
    pub async fn bind(&self) -> Result<Option<BoundView>, Exit> {
        let text = &self.view_addr;
        let wrong = || format!("--view-addr (KUBERVISOR_VIEW_ADDR) is {text:?}; write IP:PORT, :PORT or off");
        let Some(address) = serving_or_off(text).ok_or_else(|| Exit::Usage(wrong()))? else {
            return Ok(None);
        };
        let tls = match (&self.view_tls_cert, &self.view_tls_key, self.view_behind_proxy) {
            (Some(certificate), Some(key), false) => {
                let files = TlsFiles::read(certificate.clone(), key.clone());
                Some(files.map_err(|error| {
                    Exit::Usage(format!("--view-tls-cert, --view-tls-key: {}", crate::exit::chain(&error)))
                })?)
            }
            (None, None, true) => None,
            _ => {
                return Err(Exit::Usage(
                    "--view-addr sends tokens over the network: give --view-tls-cert and --view-tls-key, or \
                     --view-behind-proxy when a proxy in front of it does TLS (not both)"
                        .to_owned(),
                ));
            }
        };
        let tcp = TcpListener::bind(address).await.map_err(|error| {
            Exit::Usage(format!(
                "cannot listen on {address}: {error}; choose another address with --view-addr"
            ))
        })?;
        Ok(Some(BoundView { listener: PageListener::new(tcp, tls), names: self.names() }))
    }
}

impl BoundView {
    /// Asks `reviewer` about every reader.
    pub fn reviewed_by(self, reviewer: Reviewer) -> ExposedView {
        ExposedView { bound: self, reviewer }
    }
}

impl ExposedView {
    /// The listener, and the pages for those who have a token.
    pub(crate) fn pages(self, view: &Arc<View>) -> (PageListener, Router) {
        let login = Arc::new(Login::new(Arc::clone(view), self.reviewer));
        let authorised = middleware::from_fn_with_state(Arc::clone(&login), authorised);
        let form = Router::new()
            .route("/view/login", post(log_in))
            .layer(DefaultBodyLimit::max(LARGEST_FORM))
            .with_state(login);
        let pages = handlers::pages().with_state(Arc::clone(view)).layer(authorised);
        let open = handlers::assets().with_state(Arc::clone(view));
        let all = pages.merge(open).merge(form).fallback(handlers::unknown);
        (self.bound.listener, all.layer(middleware::from_fn_with_state(self.bound.names, guard)))
    }
}
