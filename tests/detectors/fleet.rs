//! Five pods that send keepalives, and a master with a policy and an endpoints file.

use serde_json::{Value, json};

use crate::stage::{Node, Puppet, Stage, until};

/// The endpoints file.
pub(crate) const FILE: &str = "endpoints";

/// One breaker with that detector, evaluated five times a second, which readmits after `period` seconds.
pub(crate) fn policy(period: f64, detector: &Value) -> String {
    let mut breaker = json!({
        "name": "asking", "evaluationPeriod": 0.2, "minPodsAvailableRatio": 40, "timeout": 1,
        "activator": {"mode": "periodic", "period": period, "jitter": 0},
    });
    breaker.as_object_mut().unwrap().extend(detector.as_object().unwrap().clone());
    json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
        "spec": {"service": "shop", "breakers": [breaker]},
    })
    .to_string()
}

/// The pods are `pod-10`, `pod-11` and so on.
pub(crate) struct Fleet {
    pub(crate) stage: Stage,
    pub(crate) pods: Vec<Puppet>,
}

impl Fleet {
    pub(crate) fn new(size: u8) -> Self {
        let stage = Stage::new();
        let pods = (0..size).map(|number| Puppet::new(&stage, 10 + number)).collect();
        Self { stage, pods }
    }

    /// The same pods, for keepalives.
    pub(crate) fn pods(&self) -> Vec<Puppet> {
        let size = u8::try_from(self.pods.len()).unwrap();
        (0..size).map(|number| Puppet::new(&self.stage, 10 + number)).collect()
    }

    /// A master with this policy.
    pub(crate) async fn master(&self, policy: &str) -> Node {
        self.node(policy).start().await
    }

    pub(crate) fn node(&self, policy: &str) -> Node {
        let file = self.stage.write("policy.yaml", policy);
        self.stage
            .master(1)
            .without("KONTROL_CALLBACK")
            .env("KUBERVISOR_POLICY", file.display())
            .env("KUBERVISOR_ENDPOINTS", self.stage.file(FILE).display())
            .env("KUBERVISOR_TARGET_PORT", 80)
            .env("KUBERVISOR_FLEET_SIZE", self.pods.len())
    }

    pub(crate) fn lists(&self, pod: u8) -> bool {
        self.stage.lines(FILE).contains(&format!("{}:80", self.stage.ip(10 + pod)))
    }

    pub(crate) async fn listed(&self, count: usize) {
        until(&format!("{count} are listed"), async || self.stage.lines(FILE).len() == count).await;
    }
}
