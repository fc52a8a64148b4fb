//! How many pods an owner wants whose kind is not watched: ReplicationControllers, DaemonSets, Jobs, and custom owners by
//! their `scale` subresource.
//!
//! Read by quorum reads when a fleet has such an owner, because watches of every kind that may own pods cost memory and
//! rights in every cluster.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use hyper::Request;
use kube::Client;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    super::{objects::OwnerRef, rights},
    Cluster, ListError, OwnerKey,
};
use crate::api::{keys::TRAFFIC, traffic_key_in};

/// What was read is used for so long by plans that withhold nothing; one that withholds reads it anew.
const MAX_AGE: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Owners that are read at a time.
const MAX_CONCURRENT_GETS: usize = 16;
/// A LIST of owners reads at most so many: a namespace may hold thousands of finished Jobs.
const MAX_LISTED: usize = 500;

/// The number of pods that an owner wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnerScale {
    Pods(u32),
    /// Its kind has no `scale` subresource.
    NoScale,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// A scale, and when it was read.
#[derive(Clone)]
pub(super) struct CachedScale {
    pub(super) scale: OwnerScale,
    read: Instant,
    /// Of its `scale`, so that it is looked up once only.
    path: Option<String>,
    /// Its own selector asks for the traffic label.
    pub(super) selects_switch: bool,
}

#[cfg(test)]
impl CachedScale {
    pub(super) fn now(scale: OwnerScale) -> Self {
        Self { scale, read: Instant::now(), path: None, selects_switch: false }
    }
}

/// By the owner's UID.
pub(super) type ScaleCache = HashMap<Box<str>, CachedScale>;

/// Whether the number of pods that it wants is read here, and not watched.
pub(super) fn is_read(owner: &OwnerRef) -> bool {
    !["Deployment", "ReplicaSet", "StatefulSet"].iter().any(|kind| owner.is_apps(kind)) && !is_node(owner)
}

/// It owns the mirrors of its static pods, and wants as many as there are.
pub(super) fn is_node(owner: &OwnerRef) -> bool {
    owner.group().is_empty() && &*owner.kind == "Node"
}

impl Cluster {
    /// Reads those of these owners that were not read for [`MAX_AGE`]. Whether something changed.
    ///
    /// # Errors
    /// When the API server does not answer; a refusal is an answer.
    pub async fn refresh_scales(&self, owners: &[OwnerKey]) -> Result<bool, ListError> {
        let old = |key: &&OwnerKey| {
            let state = self.shared.read();
            state.scales.get(&*key.owner.uid).is_none_or(|known| known.read.elapsed() > MAX_AGE)
        };
        let old: Vec<OwnerKey> =
            owners.iter().filter(|key| is_read(&key.owner)).filter(old).cloned().collect();
        self.read_scales(&old).await
    }

    /// Reads what these owners want, if that is not watched. Whether something changed.
    pub(super) async fn read_scales(&self, owners: &[OwnerKey]) -> Result<bool, ListError> {
        let rewinds = self.rewinds();
        let listed = &list(&self.shared.client, owners).await?;
        let reads = owners.iter().filter(|key| is_read(&key.owner)).map(|key| async move {
            let path = self.shared.read().scales.get(&*key.owner.uid).and_then(|known| known.path.clone());
            let known = match listed.get(&*key.owner.uid) {
                Some(known) => known.clone(),
                None => read(&self.shared.client, key, path).await?,
            };
            let scale = known.scale.clone();
            Ok(self.shared.write(|state| {
                if state.rewinds != rewinds {
                    return true;
                }
                let before = state.scales.insert((*key.owner.uid).into(), known);
                before.is_none_or(|before| before.scale != scale)
            }))
        });
        let reads = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(MAX_CONCURRENT_GETS);
        let changed = reads.try_fold(false, |any, changed| async move { Ok(any || changed) }).await?;
        self.shared.write(|state| state.scales.retain(|_, known| known.read.elapsed() < MAX_AGE * 60));
        Ok(changed)
    }
}

/// A kind whose objects themselves say how many pods they want.
#[derive(Clone, Copy)]
struct CountingKind {
    plural: &'static str,
    wanted: fn(&Value) -> u32,
}

impl CountingKind {
    fn of(owner: &OwnerRef) -> Option<Self> {
        match &*owner.kind {
            "DaemonSet" if owner.group() == "apps" => Some(Self { plural: "daemonsets", wanted: daemons }),
            "Job" if owner.group() == "batch" => Some(Self { plural: "jobs", wanted: active }),
            _ => None,
        }
    }

    fn path(self, OwnerKey { namespace, owner }: &OwnerKey) -> String {
        format!("/apis/{}/namespaces/{namespace}/{}", owner.api_version, self.plural)
    }

    fn read(self, found: &Value) -> CachedScale {
        let selects_switch = traffic_key_in(&found["spec"]["selector"]).is_some();
        CachedScale {
            scale: OwnerScale::Pods((self.wanted)(found)),
            read: Instant::now(),
            path: None,
            selects_switch,
        }
    }
}

/// Several owners of one kind and namespace by one LIST, where the objects themselves count: a `scale` subresource has
/// none. What is not in it, because it is refused or too long, is read by GETs.
async fn list(client: &Client, owners: &[OwnerKey]) -> Result<ScaleCache, ListError> {
    let mut paths = BTreeMap::<String, (CountingKind, usize)>::new();
    for key in owners {
        if let Some(kind) = CountingKind::of(&key.owner) {
            paths.entry(kind.path(key)).or_insert((kind, 0)).1 += 1;
        }
    }
    let several = paths.into_iter().filter(|(_, (_, count))| *count > 1);
    let lists = several.map(|(path, (kind, _))| async move {
        let list = ask(client, &format!("{path}?limit={MAX_LISTED}"), "owners").await?;
        let items = list.as_ref().ok().and_then(|list| list["items"].as_array()).into_iter().flatten();
        let known =
            items.filter_map(|item| Some((item["metadata"]["uid"].as_str()?.into(), kind.read(item))));
        Ok::<_, ListError>(known.collect::<Vec<_>>())
    });
    Ok(try_join_all(lists).await?.into_iter().flatten().collect())
}

/// Reads one owner; `path`: of its `scale`, if that is known.
async fn read(client: &Client, key: &OwnerKey, path: Option<String>) -> Result<CachedScale, ListError> {
    let owner = &key.owner;
    let known =
        |scale, path, selects_switch| CachedScale { scale, read: Instant::now(), path, selects_switch };
    if let Some(kind) = CountingKind::of(owner) {
        let path = format!("{}/{}", kind.path(key), owner.name);
        return Ok(match get(client, &path, owner).await? {
            Ok(found) => kind.read(&found),
            Err(why) => known(why, None, false),
        });
    }
    let path = match path {
        Some(path) => path,
        None => match scale_path(client, key).await? {
            Ok(path) => path,
            Err(why) => return Ok(known(why, None, false)),
        },
    };
    Ok(match get(client, &path, owner).await? {
        Ok(scale) => {
            let selector = scale.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default();
            let wanted = number(&scale, "/spec/replicas").unwrap_or(0);
            known(OwnerScale::Pods(wanted), Some(path), selector.contains(TRAFFIC))
        }
        Err(why) => known(why, None, false),
    })
}

/// The path of an owner's `scale`, by the names that its API group publishes.
async fn scale_path(client: &Client, key: &OwnerKey) -> Result<Result<String, OwnerScale>, ListError> {
    let OwnerKey { namespace, owner } = key;
    let root = match owner.group() {
        "" => format!("/api/{}", owner.api_version),
        _ => format!("/apis/{}", owner.api_version),
    };
    let list = match ask(client, &root, "apiresources").await? {
        Ok(list) => list,
        Err(why) => return Ok(Err(OwnerScale::Unreadable(why))),
    };
    let resources = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = || resources.iter().filter_map(|one| Some((one["name"].as_str()?, one["kind"].as_str()?)));
    let plural =
        names().find(|(name, kind)| *kind == &*owner.kind && !name.contains('/')).map(|(name, _)| name);
    let scale = plural.filter(|plural| names().any(|(name, _)| name.strip_suffix("/scale") == Some(plural)));
    let path = scale.map(|plural| format!("{root}/namespaces/{namespace}/{plural}/{}/scale", owner.name));
    Ok(path.ok_or(OwnerScale::NoScale))
}

/// The object at `path`, if it is this owner's.
async fn get(client: &Client, path: &str, owner: &OwnerRef) -> Result<Result<Value, OwnerScale>, ListError> {
    Ok(match ask(client, path, "owners").await? {
        Ok(found) if found["metadata"]["uid"] == *owner.uid => Ok(found),
        Ok(_) => Err(OwnerScale::Unreadable("another one has its name".to_owned())),
        Err(why) => Err(OwnerScale::Unreadable(why)),
    })
}

/// The answer, or the API server's refusal in words.
async fn ask(
    client: &Client,
    path: &str,
    resource: &'static str,
) -> Result<Result<Value, String>, ListError> {
    let failed = |source| ListError::Ask { verb: "get", resource, source: Box::new(source) };
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(|error| failed(kube::Error::HttpError(error)))?;
    match timeout(REQUEST_TIMEOUT, client.request::<Value>(request)).await {
        Ok(Ok(found)) => Ok(Ok(found)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Err("it is not there".to_owned())),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            let right = rights::missing(&status.message);
            let why = right.map(|right| format!("the controller may not {right}: add it to the role"));
            Ok(Err(why.unwrap_or_else(|| status.message.clone())))
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(ListError::TimedOut { verb: "get", resource }),
    }
}

fn number(object: &Value, path: &str) -> Option<u32> {
    object.pointer(path).and_then(Value::as_u64).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// One pod for each node that a DaemonSet is for.
fn daemons(set: &Value) -> u32 {
    number(set, "/status/desiredNumberScheduled").unwrap_or(0)
}

/// The pods of a Job that should run now: fewer than its parallelism when fewer completions are missing, and no new ones after
/// the first success of a Job without `completions`.
fn active(job: &Value) -> u32 {
    if job.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        return 0;
    }
    let parallelism = number(job, "/spec/parallelism").unwrap_or(1);
    let succeeded = number(job, "/status/succeeded").unwrap_or(0);
    match number(job, "/spec/completions") {
        Some(completions) => parallelism.min(completions.saturating_sub(succeeded)),
        None if succeeded == 0 => parallelism,
        None => parallelism.min(number(job, "/status/active").unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_wants_what_it_would_run_now() {
        let job = |spec: Value, status: Value| active(&json!({"spec": spec, "status": status}));
        assert_eq!(job(json!({}), json!({})), 1, "the defaults of the API");
        assert_eq!(job(json!({"parallelism": 4, "completions": 10}), json!({"succeeded": 3})), 4);
        assert_eq!(job(json!({"parallelism": 4, "completions": 10}), json!({"succeeded": 8})), 2);
        assert_eq!(job(json!({"parallelism": 4, "completions": 2}), json!({"succeeded": 9})), 0);
        assert_eq!(job(json!({"parallelism": 4}), json!({"active": 4})), 4);
        assert_eq!(job(json!({"parallelism": 4}), json!({"active": 2, "succeeded": 1})), 2);
        assert_eq!(job(json!({"parallelism": 4, "suspend": true}), json!({})), 0);
    }
}
