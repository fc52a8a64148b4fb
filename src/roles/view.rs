//! The web view: server-rendered, read-only pages about everything that `/services` and `/explain` tell as JSON.
//!
//! The pages work without a script; with one, an open page loads itself again when the server says that it is out of
//! date. On the admin port whoever reaches it sees all of it; on `--view-addr` a reader sees the namespaces whose
//! resources it may `get`.
//!
//! | file | content |
//! |---|---|
//! | `handlers` | the pages' routes |
//! | `overview`, `fleet_page`, `pod_page` | what a page shows, as plain values |
//! | `chart` | time line and values as numbers of an SVG |
//! | `template` | values → HTML, with everything escaped |
//! | `timeline` | the last hours of each fleet, bounded |
//! | `watcher` | records the time lines, counts the changes |
//! | `live` | server-sent events |
//! | `guard` | allowed names, headers |
//! | `listener` | connections: how many, how slow, TLS |
//! | `exposed`, `login` | `--view-addr`: flags, tokens, sessions |
//! | `audience` | which namespaces a reader sees |

mod audience;
pub(in crate::roles) mod chart;
pub mod exposed;
pub(in crate::roles) mod fleet_page;
pub mod guard;
mod handlers;
pub mod listener;
mod live;
mod login;
mod overview;
mod pod_page;
pub(in crate::roles) mod template;
pub(in crate::roles) mod timeline;
mod watcher;

use std::sync::Arc;

use axum::{Extension, Router};
use tokio_util::sync::CancellationToken;

use self::{audience::Audience, live::LiveStreams, watcher::Watcher};
use crate::{admin::Views, clock::Clock};

/// What the pages of one process share.
pub struct View {
    views: Arc<dyn Views>,
    watcher: Watcher,
    streams: LiveStreams,
    clock: Clock,
}

impl View {
    /// A view of `views`, whose open pages end with `stop`.
    pub fn new(views: Arc<dyn Views>, clock: Clock, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { views, watcher: Watcher::new(), streams: LiveStreams::new(stop), clock })
    }

    /// Records what the pages show of the past, until `stop`.
    pub async fn record(self: Arc<Self>, stop: CancellationToken) {
        self.watcher.run(&*self.views, &stop).await;
    }

    /// The pages for those who reach the admin port: they see everything.
    pub fn local_routes(self: &Arc<Self>) -> Router {
        let pages = handlers::pages().layer(Extension(Arc::new(Audience::Everything)));
        pages.merge(handlers::assets()).with_state(Arc::clone(self))
    }
}
