//! `--release SECONDS`: gives the traffic of every fleet back, takes off marks and finalizers, keeps the resources, and ends.
//!
//! For an uninstall. A controller that runs beside it would claim the pods again, so `--release-after` stops the Deployment of
//! the controllers first. When the time is up, that Deployment gets its replicas back: no withheld pod is left unattended.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::deps::Deps;
use crate::{api::keys, exit::Exit};

/// Interval between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Names in a message, at most.
const MOST_NAMES: usize = 10;

/// The Deployment of the controllers.
pub(super) struct Controllers {
    deployments: Api<Deployment>,
    pods: Api<Pod>,
    name: String,
    replicas: i32,
    labels: BTreeMap<String, String>,
}

impl Controllers {
    /// Scales the Deployment `NAMESPACE/NAME` to 0 and waits until its pods are gone; `None` when it does not exist.
    ///
    /// # Errors
    /// [`Exit::Usage`] when `named` has no such form, [`Exit::TimedOut`] after `limit`, or the API server's refusal.
    pub(super) async fn stop(client: &Client, named: &str, limit: Duration) -> Result<Option<Self>, Exit> {
        let Some((namespace, name)) = named.split_once('/') else {
            let wrong = "--release-after (KUBERVISOR_RELEASE_AFTER)";
            return Err(Exit::Usage(format!("{wrong} is {named:?}: write NAMESPACE/DEPLOYMENT")));
        };
        let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
        let found = deployments.get_opt(name).await.map_err(|error| refused("read", named, error))?;
        let Some(spec) = found.and_then(|found| found.spec) else { return Ok(None) };
        let controllers = Self {
            deployments,
            pods: Api::namespaced(client.clone(), namespace),
            name: name.to_owned(),
            replicas: spec.replicas.unwrap_or(1),
            labels: spec.selector.match_labels.unwrap_or_default(),
        };
        controllers.scale(0).await?;
        match timeout(limit, controllers.until_gone()).await {
            Ok(gone) => gone.map(|()| Some(controllers)),
            Err(_) => {
                controllers.scale(controllers.replicas).await?;
                let seconds = limit.as_secs();
                Err(Exit::TimedOut(format!(
                    "the pods of Deployment {named} did not end within {seconds} s, so nothing was released; it has its \
                     replicas back. Look at these pods and their nodes, then uninstall again"
                )))
            }
        }
    }

    /// Gives the Deployment its replicas back.
    pub(super) async fn restart(&self) -> Result<(), Exit> {
        self.scale(self.replicas).await
    }

    async fn scale(&self, replicas: i32) -> Result<(), Exit> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let scaled = self.deployments.patch_scale(&self.name, &PatchParams::default(), &patch).await;
        scaled.map(drop).map_err(|error| refused("scale", &self.name, error))
    }

    async fn until_gone(&self) -> Result<(), Exit> {
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let selected = ListParams::default().labels(&labels.join(",")).limit(1);
        loop {
            let pods = self.pods.list(&selected).await;
            if pods.map_err(|error| refused("list the pods of", &self.name, error))?.items.is_empty() {
                return Ok(());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

fn refused(verb: &str, what: &str, error: kube::Error) -> Exit {
    Exit::Failed(anyhow::Error::new(error).context(format!("cannot {verb} Deployment {what}")))
}

/// Runs `serving`, the controller, until everything is released, for at most `limit`.
///
/// # Errors
/// [`Exit::TimedOut`] names what is left and what to do; else those of `serving`.
pub(super) async fn run(
    deps: &Deps,
    serving: impl Future<Output = Result<(), Exit>>,
    limit: Duration,
    controllers: Option<Controllers>,
) -> Result<(), Exit> {
    let release = async {
        let released = timeout(limit, until_released(deps)).await.is_ok();
        deps.stop.cancel();
        released
    };
    let (ended, released) = tokio::join!(serving, release);
    if released && ended.is_ok() {
        return ended;
    }
    if let Some(controllers) = &controllers {
        controllers.restart().await?;
    }
    ended?;
    let again = if controllers.is_some() { " The controllers run again." } else { "" };
    Err(Exit::TimedOut(format!(
        "not everything was released within {} s: {}.{again} The log names refused writes and unreachable servers: correct \
         these, or allow more time, and uninstall again",
        limit.as_secs(),
        left(deps).join(", ")
    )))
}

async fn until_released(deps: &Deps) {
    while !left(deps).is_empty() {
        sleep(LOOK_INTERVAL).await;
    }
    tracing::info!("every pod has its traffic back, and no resource has a finalizer of ours");
}

/// What is not released yet, at most [`MOST_NAMES`] names.
fn left(deps: &Deps) -> Vec<String> {
    if let Err(failures) = deps.cluster.synced() {
        return failures.iter().take(MOST_NAMES).map(|failure| format!("not in sync: {failure}")).collect();
    }
    let resources = deps.cluster.resources().into_iter();
    let resources =
        resources.filter(|resource| resource.finalizers.iter().any(|name| **name == *keys::FINALIZER));
    let resources =
        resources.map(|resource| format!("KubervisorService {}/{}", resource.namespace, resource.name));
    let pods = deps.cluster.named_pods().into_iter().filter(|pod| !pod.finished());
    let pods = pods.map(|pod| format!("pod {}/{}", pod.namespace, pod.name));
    resources.chain(pods).take(MOST_NAMES).collect()
}
