//! Work that is nothing but fenced writes: the owner's claim in a status, again and again.

use std::time::Duration;

use async_trait::async_trait;
use hyper::Request;
use kubervisor::adapters::sink::labels::OwnerClaim;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{replica::Work, world};

/// Between two writes.
const PERIOD: Duration = Duration::from_millis(1_200);
/// Deadline of a request.
const DEADLINE: Duration = Duration::from_secs(2);

/// Writes statuses as this member.
pub struct FencedWrites {
    pub client: kube::Client,
    pub member: String,
}

#[async_trait]
impl Work for FencedWrites {
    async fn run(&self, service: &str, stop: &CancellationToken) {
        stop.run_until_cancelled(self.write(service)).await;
    }
}

impl FencedWrites {
    /// Until another member has claimed the service.
    async fn write(&self, service: &str) {
        let mut claim = OwnerClaim::of(Some(self.member.clone()));
        let mut known = None;
        loop {
            let resource = match known.take() {
                Some(resource) => Some(resource),
                None => self.ask(Request::get(format!("/{}", path(service))), Vec::new()).await,
            };
            let Some(resource) = resource else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if claim.check(resource.get("status")).is_err() {
                return;
            }
            let mut next = resource;
            next["status"] = json!({"writes": next["status"]["writes"].as_u64().unwrap_or(0) + 1});
            claim.write(&mut next["status"]);
            let request = Request::put(format!("/{}/status", path(service)));
            known = self.ask(request, next.to_string().into_bytes()).await;
            if known.is_some() {
                claim.written();
            }
            tokio::time::sleep(PERIOD.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// `None`: refused, or not answered in time; what is stored is unknown.
    async fn ask(&self, request: hyper::http::request::Builder, body: Vec<u8>) -> Option<Value> {
        let request = request.header("content-type", "application/json").body(body).ok()?;
        tokio::time::timeout(DEADLINE, self.client.request(request)).await.ok()?.ok()
    }
}

fn path(service: &str) -> String {
    world::path("kubervisorservices", service)
}
