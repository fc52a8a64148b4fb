//! The admin pages of a master: the ensemble (on the leader), the cluster, and the gate's decisions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{context::Shared, reader::PodRow};
use crate::{
    admin::Views,
    alarms::Alarms,
    roles::{
        cluster::{cluster_page, leadership},
        gate::snapshot::GateSnapshot,
    },
};

pub(crate) struct MasterPages {
    shared: Arc<Shared>,
}

impl MasterPages {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Views for MasterPages {
    /// Ready as soon as the port is open, because keepalives are taken without a leader and without the store.
    fn ready(&self) -> Result<(), String> {
        self.shared.alarms.all_tasks_run()
    }

    fn ensemble(&self) -> Value {
        let digest = *self.shared.digest.lock();
        let pods = self.shared.reader.rows().map(pods);
        json!({
            "digest": digest.map(|(digest, _)| digest.to_string()),
            "digestPods": digest.map(|(_, pods)| pods),
            "leadership": leadership(&*self.shared.store),
            "ttlSeconds": self.shared.settings.ttl.as_secs_f64(),
            "pods": pods,
        })
    }

    fn cluster(&self) -> Value {
        let Shared { store, clock, cluster, .. } = &*self.shared;
        cluster_page(cluster, &**store, clock.now(), |_| Value::Null)
    }

    fn fleets(&self) -> Vec<Arc<GateSnapshot>> {
        self.shared.gate.views()
    }

    fn alarms(&self) -> &Alarms {
        &self.shared.alarms
    }
}

/// Ordered by sequence number.
fn pods(mut rows: Vec<PodRow>) -> Vec<Value> {
    rows.sort_by_key(|row| row.record.seq);
    rows.iter().map(pod).collect()
}

fn pod(row: &PodRow) -> Value {
    let record = &row.record;
    json!({
        "key": record.key,
        "id": record.id,
        "ip": record.key.address(),
        "app": record.app,
        "role": record.role,
        "seq": record.seq,
        "status": row.status,
        "ageSeconds": row.age.as_secs_f64(),
    })
}
