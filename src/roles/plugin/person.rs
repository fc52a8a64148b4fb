//! `withhold`, `admit`, `pause` and `resume`: a person's requests, written into the resource's annotation.
//!
//! The controller's gate carries them out, or does not: floor, panic and dry run win. The name is that under which the
//! API server knows the user.

use std::time::Duration;

use kube::api::Patch;
use serde_json::{Value, json};

use super::{PluginOutput, args::PluginSession, explanation, names::RequestTarget};
use crate::{
    adapters::kubernetes::untyped::{ClusterClient, ClusterError, ListScope, missing, services_of},
    api::{
        keys,
        requests::{LIMIT, LONGEST, LONGEST_REASON, MOST, PersonRequests, Request, RequestVerb},
    },
    clock::Clock,
    decide::time::Timestamp,
    exit::Exit,
};

/// How often a write is repeated when another client was first.
const TRIES: usize = 5;

/// The options of a request.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// How long it holds: 10m, 2h; a number is seconds. At most 24h.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = super::names::duration)]
    holds_for: Duration,
    /// Why, for Events and explain.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// The API server checks the request, and stores nothing.
    #[arg(long)]
    dry_run: bool,
}

impl RequestArgs {
    /// Checks the bounds that the controller holds.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub(super) fn check(&self) -> Result<(), Exit> {
        let too_long = self.reason.chars().count() > LONGEST_REASON;
        if self.holds_for.is_zero() || self.holds_for > LONGEST {
            return Err(Exit::Usage("--for is a time above 0 and at most 24h, such as 10m".to_owned()));
        }
        if too_long || self.reason.chars().any(char::is_control) {
            let what = format!("--reason is one line of at most {LONGEST_REASON} characters");
            return Err(Exit::Usage(what));
        }
        Ok(())
    }
}

/// Writes the request.
pub(super) async fn ask(
    session: &PluginSession,
    verb: RequestVerb,
    target: &RequestTarget,
    args: &RequestArgs,
) -> Result<PluginOutput, Exit> {
    let cluster = &session.cluster;
    let by = user(cluster).await?;
    let (resource, pod) = match target {
        RequestTarget::Service(name) => (cluster.service(&session.namespace, name).await?, None),
        RequestTarget::Pod(name) => of_pod(session, name).await?,
    };
    let now = Clock::start().wall();
    let until = now + args.holds_for;
    let wanted = match verb {
        // The gate decides again about a pod without a request; the end of a pause has a name in an Event.
        RequestVerb::Resume if pod.is_some() => None,
        RequestVerb::Resume if resource["spec"]["paused"] == true => {
            return Err(paused_by_manifest(session, &resource));
        }
        _ => Some(Request {
            verb,
            pod: pod.as_ref().map(|(name, _)| name.clone()),
            uid: pod.as_ref().and_then(|(_, uid)| uid.clone()),
            at: now,
            until,
            by: by.clone(),
            reason: args.reason.clone(),
        }),
    };
    let named = pod.as_ref().map(|(name, _)| name.as_str());
    let name = store(session, resource, named, wanted.as_ref(), args.dry_run).await?;
    let dry = if args.dry_run { " (dry run: nothing is stored)" } else { "" };
    let data = match (verb, named) {
        (RequestVerb::Withhold | RequestVerb::Admit, Some(pod)) => {
            let what = if verb == RequestVerb::Admit { "admitted" } else { "withheld" };
            format!(
                "pod/{pod} is to be {what} until {until}, asked for by {by} at kubervisorservice/{name}{dry}\n\
                 what the gate makes of it: kubectl kubervisor explain {pod} -n {}\n",
                session.namespace
            )
        }
        (RequestVerb::Pause, _) => {
            format!("kubervisorservice/{name} is to be paused until {until}, asked for by {by}{dry}\n")
        }
        (_, Some(pod)) => format!("pod/{pod} has no request any more at kubervisorservice/{name}{dry}\n"),
        (_, None) => format!("kubervisorservice/{name} is to be resumed, asked for by {by}{dry}\n"),
    };
    Ok(PluginOutput { data, ..PluginOutput::default() })
}

fn paused_by_manifest(session: &PluginSession, resource: &Value) -> Exit {
    let name = resource["metadata"]["name"].as_str().unwrap_or_default();
    Exit::Failed(anyhow::anyhow!(
        "spec.paused of kubervisorservice/{name} is true: take it out of the manifest, or kubectl patch kvs {name} -n {} \
         --type merge -p '{{\"spec\":{{\"paused\":false}}}}'",
        session.namespace
    ))
}

/// The name under which the API server knows the user.
async fn user(cluster: &ClusterClient) -> Result<String, ClusterError> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = cluster.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await?;
    let name = answer["status"]["userInfo"]["username"].as_str().unwrap_or("unknown");
    Ok(name.to_owned())
}

type RequestedPod = (String, Option<String>);

/// The resource of the pod, and the pod's name and UID.
async fn of_pod(session: &PluginSession, name: &str) -> Result<(Value, Option<RequestedPod>), ClusterError> {
    let (cluster, namespace) = (&session.cluster, session.namespace.as_str());
    let here = ListScope::Namespace(namespace);
    let (pod, services) = tokio::join!(cluster.pod(namespace, name), cluster.services(here, None));
    let pod = pod?.ok_or_else(|| missing("pod", namespace, name, "name that one with -n NAMESPACE"))?;
    let services = services?;
    let found = explanation::service_of(&services, Some(&pod), name);
    let hint = "kubectl kubervisor list shows those of the namespace; its Service has to select the pod";
    let found = found.ok_or_else(|| missing("KubervisorService of pod", namespace, name, hint))?;
    let uid = pod["metadata"]["uid"].as_str().map(str::to_owned);
    Ok((found.clone(), Some((name.to_owned(), uid))))
}

/// Replaces the requests about the same pod, or about the resource, and drops those that have ended. Returns the
/// resource's name.
async fn store(
    session: &PluginSession,
    mut resource: Value,
    pod: Option<&str>,
    wanted: Option<&Request>,
    dry_run: bool,
) -> Result<String, Exit> {
    let name = resource["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = services_of(&session.namespace);
    for attempt in 1.. {
        let text = annotation(&resource, pod, wanted, Clock::start().wall())?;
        let version = &resource["metadata"]["resourceVersion"];
        let annotations = json!({keys::REQUESTS: text});
        let patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
        match session.cluster.patch(&path, &name, &Patch::Merge(patch), dry_run).await {
            Ok(_) => break,
            Err(ClusterError::Conflict { .. }) if attempt < TRIES => {}
            Err(error) => return Err(error.into()),
        }
        resource = session.cluster.service(&session.namespace, &name).await?;
    }
    Ok(name)
}

/// The annotation's new text; none removes it.
fn annotation(
    resource: &Value,
    pod: Option<&str>,
    wanted: Option<&Request>,
    now: Timestamp,
) -> Result<Option<String>, Exit> {
    let old = resource["metadata"]["annotations"][keys::REQUESTS].as_str().unwrap_or_default();
    let mut list = PersonRequests::parse(old, now, false).list;
    list.retain(|request| request.until > now && request.pod.as_deref() != pod);
    list.extend(wanted.cloned());
    let text = PersonRequests::encode(&list);
    if list.len() > MOST || text.len() > LIMIT {
        let what = "the resource has as many requests as it may have (32, 16 KiB): resume pods first, or wait until some end";
        return Err(Exit::Failed(anyhow::anyhow!(what)));
    }
    Ok((!list.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_000_000_000);

    fn request(verb: RequestVerb, pod: Option<&str>, seconds: u64) -> Request {
        Request {
            verb,
            pod: pod.map(str::to_owned),
            uid: None,
            at: NOW,
            until: NOW + Duration::from_secs(seconds),
            by: "ann".to_owned(),
            reason: String::new(),
        }
    }

    fn resource(list: &[Request]) -> Value {
        json!({"metadata": {"name": "web", "annotations": {keys::REQUESTS: PersonRequests::encode(list)}}})
    }

    #[test]
    fn a_new_request_replaces_that_about_the_same_pod_and_drops_ended_ones() {
        let old = [
            request(RequestVerb::Withhold, Some("web-1"), 60),
            request(RequestVerb::Withhold, Some("web-2"), 5),
            request(RequestVerb::Pause, None, 60),
        ];
        let new = request(RequestVerb::Admit, Some("web-1"), 60);
        let later = NOW + Duration::from_secs(10);
        let text = annotation(&resource(&old), Some("web-1"), Some(&new), later).unwrap();
        assert_eq!(text, Some(PersonRequests::encode(&[old[2].clone(), new])));
        let none = annotation(&resource(&old[..1]), Some("web-1"), None, later).unwrap();
        assert_eq!(none, None, "the annotation goes with its last request");
    }

    #[test]
    fn more_requests_than_a_resource_may_have_are_refused() {
        let full: Vec<Request> =
            (0..MOST).map(|n| request(RequestVerb::Withhold, Some(&format!("web-{n}")), 60)).collect();
        let new = request(RequestVerb::Withhold, Some("other"), 60);
        assert!(annotation(&resource(&full), Some("other"), Some(&new), NOW).is_err());
        let same = request(RequestVerb::Admit, Some("web-1"), 60);
        assert!(annotation(&resource(&full), Some("web-1"), Some(&same), NOW).is_ok());
    }
}
