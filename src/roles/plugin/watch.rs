//! `-w`: prints again after each change, until a condition is met.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use tokio::time::{Instant, interval, timeout_at};

use super::{
    PluginOutput,
    args::PluginSession,
    fields,
    format::{CommandOutput, OutputFormat},
    jsonpath::Template,
    names,
};
use crate::{
    adapters::kubernetes::untyped::ClusterError,
    exit::Exit,
    roles::output::{self, list, notice},
};

/// Interval between looks at what no KubervisorService shows, such as a pod's Events.
const LOOK: Duration = Duration::from_secs(5);

/// The options of a watch.
#[derive(Debug, Default, clap::Args)]
pub(super) struct WatchArgs {
    /// Prints again after each change.
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Ends the watch: Ready, Panic=False, standing=withheld, or {.status.serving}=3.
    #[arg(long, value_name = "CONDITION", requires = "watch", value_parser = Goal::parse)]
    until: Option<Goal>,
    /// Ends the watch with exit code 124 after this time: 90s, 5m.
    #[arg(long, value_name = "TIME", requires = "watch", value_parser = names::duration)]
    timeout: Option<Duration>,
}

/// What a watch waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Goal {
    text: String,
    what: GoalValue,
    wanted: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GoalValue {
    /// A member of the answer, else a condition of the resource.
    Named(String),
    Path(Template),
}

impl Goal {
    fn parse(text: &str) -> Result<Self, String> {
        let path = text.starts_with(['{', '.']);
        let (what, wanted) = match text.rsplit_once('=') {
            Some((what, wanted)) => (what, wanted),
            None if path => return Err("write PATH=VALUE, as in {.status.serving}=3".to_owned()),
            None => (text, "True"),
        };
        if what.is_empty() || wanted.is_empty() {
            return Err("write a condition such as Ready, or NAME=VALUE".to_owned());
        }
        let value =
            if path { GoalValue::Path(Template::parse(what)?) } else { GoalValue::Named(what.to_owned()) };
        Ok(Self { text: text.to_owned(), what: value, wanted: wanted.to_owned() })
    }

    /// Whether it is met; of a list, by each item.
    fn met(&self, value: &Value) -> bool {
        if value["kind"] == "List" {
            let items = list(value, "/items");
            return !items.is_empty() && items.iter().all(|item| self.met(item));
        }
        match &self.what {
            GoalValue::Path(template) => template.render(value) == self.wanted,
            GoalValue::Named(name) => {
                let member = fields::text(value, &format!("/{name}")).filter(|_| !value[name].is_object());
                let condition = || fields::text(fields::condition(value, name)?, "/status");
                member.or_else(condition).as_deref() == Some(&*self.wanted)
            }
        }
    }
}

impl WatchArgs {
    /// Prints what `read` returns, once or after each change.
    ///
    /// # Errors
    /// Those of `read`; [`Exit::TimedOut`].
    pub(super) async fn show<A: CommandOutput>(
        &self,
        session: &PluginSession,
        mut read: impl AsyncFnMut() -> Result<A, ClusterError>,
    ) -> Result<PluginOutput, Exit> {
        if !self.watch {
            return super::answer(session, &read().await?);
        }
        let mut printed = Printed::default();
        let watching = self.follow(session, &mut read, &mut printed);
        let Some(limit) = self.timeout else { return watching.await };
        let timed_out = || {
            let until = self.until.as_ref().map(|goal| format!("{} is not met", goal.text));
            let what = until.unwrap_or_else(|| "the watch has ended".to_owned());
            Exit::TimedOut(format!("{what} after {} s", limit.as_secs()))
        };
        timeout_at(Instant::now() + limit, watching).await.map_err(|_| timed_out())?
    }

    async fn follow<A: CommandOutput>(
        &self,
        session: &PluginSession,
        read: &mut impl AsyncFnMut() -> Result<A, ClusterError>,
        printed: &mut Printed,
    ) -> Result<PluginOutput, Exit> {
        let kind = GroupVersionKind::gvk("kubervisor.k8s.io", "v1alpha1", "KubervisorService");
        let kind = ApiResource::from_gvk(&kind);
        let client = session.cluster.client.clone();
        let resources: Api<DynamicObject> = match session.all_namespaces {
            true => Api::all_with(client, &kind),
            false => Api::namespaced_with(client, &session.namespace, &kind),
        };
        let mut events = pin!(watcher(resources, watcher::Config::default()).default_backoff());
        let mut look = interval(LOOK);
        let mut lost = false;
        loop {
            match read().await {
                Ok(found) => {
                    let met = self.until.as_ref().is_some_and(|goal| goal.met(&found.value()));
                    if !printed.print(session, &found)? || met {
                        return Ok(PluginOutput::default());
                    }
                }
                // What was reachable once will be again.
                Err(ClusterError::Unreachable { .. } | ClusterError::Refused { .. })
                    if printed.whole.is_some() => {}
                Err(error) => return Err(error.into()),
            }
            look.reset();
            // What happened meanwhile is one change.
            tokio::select! {
                event = events.next() => match event {
                    Some(Err(error)) if !lost => {
                        lost = true;
                        notice(&format!("kubectl kubervisor: the watch was interrupted: {error}; it goes on\n"));
                    }
                    Some(Err(_)) => {}
                    Some(Ok(_)) => lost = false,
                    None => {}
                },
                _ = look.tick() => {}
            }
        }
    }
}

/// What has been printed: only news is printed again.
#[derive(Default)]
struct Printed {
    whole: Option<String>,
    rows: BTreeSet<String>,
}

impl Printed {
    /// `false`: nobody reads any more.
    fn print(&mut self, session: &PluginSession, found: &dyn CommandOutput) -> Result<bool, Exit> {
        let text = session.format.render(found, session.style)?;
        if self.whole.as_ref() == Some(&text) {
            return Ok(true);
        }
        let first = self.whole.is_none();
        let news = match &session.format {
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name if found.has_rows() => {
                let new = text.lines().filter(|row| !self.rows.contains(&cells(row)));
                new.map(|row| format!("{row}\n")).collect()
            }
            OutputFormat::Table | OutputFormat::Wide if !first => format!("\n{text}"),
            OutputFormat::Yaml if !first => format!("---\n{text}"),
            OutputFormat::JsonPath(_) if !first => format!("\n{text}"),
            _ => text.clone(),
        };
        self.rows = text.lines().map(cells).collect();
        self.whole = Some(text);
        output::print_while_read(&news)
    }
}

/// A row without the width of its columns, which may change with another row.
fn cells(row: &str) -> String {
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_goal_is_a_condition_a_member_or_a_path() {
        let resource = json!({
            "kind": "KubervisorService",
            "status": {"serving": 3, "conditions": [{"type": "Ready", "status": "True"}, {"type": "Panic", "status": "False"}]},
        });
        let met = |goal: &str, value: &Value| Goal::parse(goal).unwrap().met(value);
        assert!(
            met("Ready", &resource) && met("Panic=False", &resource) && met("{.status.serving}=3", &resource)
        );
        assert!(!met("Panic", &resource) && !met(".status.serving=4", &resource) && !met("Gone", &resource));
        assert!(met("standing=withheld", &json!({"standing": "withheld"})));
        let list = json!({"kind": "List", "items": [resource, {"status": {}}]});
        assert!(
            !met("Ready", &list) && !met("Ready", &json!({"kind": "List", "items": []})),
            "all, and at least one"
        );
        for wrong in ["", "=x", "Ready=", "{.status", ".status.serving"] {
            assert!(Goal::parse(wrong).is_err(), "{wrong}");
        }
    }
}
