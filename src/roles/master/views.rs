//! What people may see of a master: the ensemble as its leader knows it, the cluster, and what the gate decided.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Shared;
use crate::{
    adapters::store::{Leader, Leadership},
    admin::Views,
    decide::ensemble::{Ensemble, Known},
    decide::time::Moment,
};

/// The views of one master.
pub(crate) struct MasterViews {
    shared: Arc<Shared>,
}

impl MasterViews {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn leadership(&self) -> Value {
        match &*self.shared.store.leadership().borrow() {
            Leadership::Unknown => json!({ "posture": "unknown", "leader": null }),
            Leadership::Follower { leader: None } => json!({ "posture": "following", "leader": null }),
            Leadership::Follower { leader: Some(Leader { member, term }) } => {
                json!({ "posture": "following", "leader": member, "term": term })
            }
            Leadership::Leading { term } => json!({ "posture": "leading", "leader": "self", "term": term }),
        }
    }
}

impl Views for MasterViews {
    /// Keepalives are taken as soon as the port is open; who leads, or whether etcd answers, changes nothing here.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn ensemble(&self) -> Value {
        let digest = self.shared.newest_digest();
        let pods = self.shared.desk.with_ensemble(|ensemble, now| rows(ensemble, now));
        json!({
            "digest": digest.map(|(digest, _)| digest.to_string()),
            "digestPods": digest.map(|(_, pods)| pods),
            "leadership": self.leadership(),
            "ttlSeconds": self.shared.settings.ttl.as_secs_f64(),
            "pods": pods,
        })
    }

    fn cluster(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let members = self.shared.store.members().await;
            json!({
                "name": self.shared.cluster,
                "leadership": self.leadership(),
                "members": members.as_ref().ok(),
                "error": members.as_ref().err().map(ToString::to_string),
            })
        })
    }

    fn services(&self) -> Value {
        json!({
            "services": self.shared.gatekeeping.views(),
            "alarms": { "up": self.shared.alarms.up(), "history": self.shared.alarms.history() },
        })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        let views = self.shared.gatekeeping.views();
        let view = views.iter().find(|view| view.namespace == namespace && view.name == name)?;
        serde_json::to_value(view).ok()
    }

    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let views = self.shared.gatekeeping.views();
        let mut told =
            views.iter().filter(|view| view.namespace == namespace).filter_map(|view| view.explain(pod));
        told.next()
    }
}

fn rows(ensemble: &Ensemble, now: Moment) -> Vec<Value> {
    let mut rows: Vec<_> = ensemble.roster(now).collect();
    rows.sort_by_key(|known| known.member.seq);
    rows.iter().map(row).collect()
}

fn row(known: &Known<'_>) -> Value {
    let member = &known.member;
    json!({
        "key": member.key,
        "id": member.id,
        "ip": member.key.address(),
        "app": member.app,
        "role": member.role,
        "seq": member.seq,
        "status": known.status,
        "ageSeconds": known.age.as_secs_f64(),
    })
}
