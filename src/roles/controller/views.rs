//! What people may see of a controller: every service that it works on, and why each pod is as it is.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Deps;
use crate::{
    admin::Views,
    roles::gatekeeper::{view::GatekeeperView, warden::ALARM_STATUS_FORBIDDEN},
};

/// Where the workers' views are found.
#[derive(Default)]
pub(super) struct Gallery {
    #[allow(clippy::type_complexity, reason = "one function for each worker, and no name would say more")]
    views: Mutex<Vec<Box<dyn Fn() -> Arc<GatekeeperView> + Send>>>,
}

impl Gallery {
    /// Shows these from now on.
    pub(super) fn show(&self, views: Vec<Box<dyn Fn() -> Arc<GatekeeperView> + Send>>) {
        *self.views.lock().unwrap_or_else(PoisonError::into_inner) = views;
    }

    fn all(&self) -> Vec<Arc<GatekeeperView>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|view| view()).collect()
    }
}

/// The views of one controller.
pub(super) struct ControllerViews {
    pub(super) deps: Arc<Deps>,
    pub(super) gallery: Arc<Gallery>,
    /// Those of the master in the same process.
    pub(super) master: Option<Arc<dyn Views>>,
}

impl Views for ControllerViews {
    fn ready(&self) -> Result<(), String> {
        let unsynced = self.deps.cluster.synced().err().unwrap_or_default();
        let unsynced = unsynced.iter().map(|trouble| format!("not in sync: {trouble}"));
        let up = self.deps.process.alarms.up();
        let forbidden = up.iter().filter(|alarm| alarm.reason == ALARM_STATUS_FORBIDDEN);
        let all: Vec<String> = unsynced.chain(forbidden.map(|alarm| alarm.message.clone())).collect();
        if all.is_empty() { Ok(()) } else { Err(all.join("; ")) }
    }

    fn ensemble(&self) -> Value {
        let none =
            || json!({"error": "no keepalives are taken here: start the controller with --keepalives ADDR"});
        self.master.as_ref().map_or_else(none, |master| master.ensemble())
    }

    fn cluster(&self) -> BoxFuture<'_, Value> {
        match &self.master {
            Some(master) => master.cluster(),
            None => Box::pin(async { json!({"members": [], "leadership": {"posture": "alone"}}) }),
        }
    }

    fn services(&self) -> Value {
        let alarms = &self.deps.process.alarms;
        json!({
            "services": self.gallery.all(),
            "alarms": { "up": alarms.up(), "history": alarms.history() },
        })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        let all = self.gallery.all();
        let view = all.iter().find(|view| view.namespace == namespace && view.name == name)?;
        serde_json::to_value(view).ok()
    }

    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let all = self.gallery.all();
        all.iter().filter(|view| view.namespace == namespace).find_map(|view| view.explain(pod))
    }
}
