//! Seeded mistakes, each between a replica and the rest of the world: the simulation must find every one of them.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::{Method, Request, Response, body::Frame};
use kubervisor::clock::Clock;
use serde_json::Value;
use tower::BoxError;

use crate::client::{Answer, send, whole};

/// One known way to get the coordination wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A Lease counts as ended when its `renewTime` is too old by the own wall clock.
    BelievesRemoteClocks,
    /// The owner in a status is not read: there are no generations.
    NoGeneration,
    /// Each new replica, and each eighth renewal, removes the Leases of other members.
    DeletesOthersLeases,
    /// A status is written whatever it has become since it was read; the owner is compared afterwards.
    ActsThenChecks,
    /// Work begins as soon as it is one's own, before the others have let go of it.
    BeginsAtOnce,
}

impl Mutant {
    pub const ALL: [Self; 5] = [
        Self::BelievesRemoteClocks,
        Self::NoGeneration,
        Self::DeletesOthersLeases,
        Self::ActsThenChecks,
        Self::BeginsAtOnce,
    ];
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|mutant| format!("{mutant:?}") == text);
        named.ok_or_else(|| format!("SIM_MUTANT is {text:?}; known: {:?}", Self::ALL))
    }
}

/// A mutant between one replica's clients and the network.
pub struct Mutation {
    mutant: Mutant,
    clock: Clock,
    lease: Duration,
    requests: AtomicU32,
}

impl Mutation {
    /// `clock`: the replica's.
    pub fn new(mutant: Mutant, clock: Clock, lease: Duration) -> Self {
        Self { mutant, clock, lease, requests: AtomicU32::new(0) }
    }

    /// Sends a request, with its answer changed as the mutant does.
    pub async fn pass(
        &self,
        server: &str,
        mut request: Request<Bytes>,
    ) -> Result<Response<Answer>, BoxError> {
        let path = request.uri().path().to_owned();
        let is_status = path.ends_with("/status") && path.contains("/kubervisorservices/");
        if self.mutant == Mutant::ActsThenChecks && is_status {
            request = request.map(|body| changed(&body, &mut |object| drop_version(object)));
        }
        if self.mutant == Mutant::DeletesOthersLeases && path.contains("/leases") {
            self.delete_others(server, &request).await?;
        }
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let clock = self.clock;
        let (mutant, lease) = (self.mutant, self.lease);
        let mut change = move |object: &mut Value| match mutant {
            Mutant::BelievesRemoteClocks if path.contains("/leases") => judge_by_wall(object, clock, lease),
            Mutant::NoGeneration if path.contains("/kubervisorservices/") => drop_owner(object),
            _ => {}
        };
        let answer = send(server, request).await?;
        if !is_watch {
            let (parts, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            return Ok(Response::from_parts(parts, whole(changed(&body, &mut change))));
        }
        Ok(answer.map(|body| {
            let lines = lines(body).map_ok(move |line| Frame::data(changed(&line, &mut change)));
            BodyExt::boxed(StreamBody::new(lines))
        }))
    }

    /// Without the conditions that a deletion needs.
    async fn delete_others(&self, server: &str, request: &Request<Bytes>) -> Result<(), BoxError> {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let due = *request.method() == Method::POST || (*request.method() == Method::PUT && count % 8 == 7);
        if !due {
            return Ok(());
        }
        let own: Value = serde_json::from_slice(request.body())?;
        let path = request.uri().path();
        let collection = path.split("/leases").next().unwrap_or_default();
        let list = Request::get(format!("{collection}/leases")).body(Bytes::new())?;
        let listed: Value =
            serde_json::from_slice(&send(server, list).await?.into_body().collect().await?.to_bytes())?;
        for lease in listed["items"].as_array().into_iter().flatten() {
            if lease["spec"]["holderIdentity"] != own["spec"]["holderIdentity"] {
                let name = lease["metadata"]["name"].as_str().unwrap_or_default();
                let delete = Request::delete(format!("{collection}/leases/{name}")).body(Bytes::new())?;
                send(server, delete).await?;
            }
        }
        Ok(())
    }
}

/// The lines of a watch, whole.
fn lines(
    body: hyper::body::Incoming,
) -> impl futures::Stream<Item = Result<Bytes, hyper::Error>> + Send + Sync {
    let frames = BodyStream::new(body);
    stream::unfold((frames, BytesMut::new()), |(mut frames, mut kept)| async move {
        loop {
            if let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
                let line = kept.split_to(end + 1).freeze();
                return Some((Ok(line), (frames, kept)));
            }
            match frames.next().await? {
                Ok(frame) => kept.extend_from_slice(frame.data_ref()?),
                Err(error) => return Some((Err(error), (frames, kept))),
            }
        }
    })
}

/// The JSON with each object of it changed: an object, a list, or an event of a watch.
fn changed(body: &Bytes, change: &mut impl FnMut(&mut Value)) -> Bytes {
    let Ok(mut json) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    match json.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) => items.iter_mut().for_each(&mut *change),
        None => match json.get_mut("object") {
            Some(object) => change(object),
            None => change(&mut json),
        },
    }
    Bytes::from(format!("{json}\n"))
}

fn drop_version(object: &mut Value) {
    object["metadata"].as_object_mut().map(|metadata| metadata.remove("resourceVersion"));
}

fn drop_owner(object: &mut Value) {
    object["status"].as_object_mut().map(|status| status.remove("owner"));
}

fn judge_by_wall(object: &mut Value, clock: Clock, lease: Duration) {
    let renewed = object["spec"]["renewTime"].as_str().unwrap_or_default();
    let Ok(renewed) = renewed.parse::<jiff::Timestamp>() else { return };
    let age = clock.wall().unix_millis() - renewed.as_millisecond();
    if u128::try_from(age).is_ok_and(|age| age > lease.as_millis()) {
        object["spec"]["holderIdentity"] = "".into();
    }
}
