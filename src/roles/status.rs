//! `kubervisor status` and `kubervisor explain POD`: the pages of the admin port, for a terminal.

use std::time::Duration;

use anyhow::Context;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use reqwest::Method;
use serde_json::Value;

use super::output::{self, list};
use crate::{decide::time::Timestamp, exit::Exit};

/// Of the request of one page.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The address of the admin port.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// The admin port of a master or a controller.
    #[arg(long, env = "KUBERVISOR_ADMIN_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8087")]
    pub admin_addr: String,
}

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Prints the pages as one JSON object instead.
    #[arg(long, env = "KUBERVISOR_STATUS_JSON")]
    json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The pod's id.
    pod: String,
    /// Its namespace.
    #[arg(long, short, env = "KUBERVISOR_EXPLAIN_NAMESPACE", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// Prints the page as JSON instead.
    #[arg(long, env = "KUBERVISOR_EXPLAIN_JSON")]
    json: bool,
}

/// Shows the cluster, the ensemble, the services and the alarms.
///
/// # Errors
/// The admin port does not answer.
pub async fn status(args: StatusArgs) -> Result<(), Exit> {
    let pages = ["cluster", "ensemble", "services"].map(|page| args.admin.page(page));
    let [cluster, ensemble, services] = futures::future::join_all(pages)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .try_into()
        .map_err(|_| Exit::Failed(anyhow::anyhow!("a page is missing")))?;
    if args.json {
        let all = serde_json::json!({ "cluster": cluster, "ensemble": ensemble, "services": services });
        return output::print(&output::json(&all)?);
    }
    output::print(&(show_ensemble(&cluster, &ensemble) + &show_services(&services) + &show_alarms(&services)))
}

/// Shows why a pod is or is not withheld.
///
/// # Errors
/// The admin port does not answer, or does not know the pod.
pub async fn explain(args: ExplainArgs) -> Result<(), Exit> {
    let page = args.admin.page(&format!("explain/{}/{}", args.namespace, args.pod)).await?;
    output::print(&if args.json { output::json(&page)? } else { show_explanation(&page) })
}

impl AdminArgs {
    /// Reads a page.
    pub(super) async fn page(&self, path: &str) -> Result<Value, Exit> {
        self.send(Method::GET, path).await
    }

    /// Sends a request and returns the answer's JSON.
    pub(super) async fn send(&self, method: Method, path: &str) -> Result<Value, Exit> {
        let url = format!("http://{}/{path}", self.admin_addr);
        let help = || {
            format!(
                "cannot read {url}: is a master running there? name its admin port with --admin-addr (KUBERVISOR_ADMIN_ADDR)"
            )
        };
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().with_context(help)?;
        let answer = client.request(method, &url).send().await.with_context(help)?;
        let known = answer.status().is_success();
        let page: Value = answer.json().await.with_context(help)?;
        if known {
            return Ok(page);
        }
        let why = text(&page, "/error");
        Err(Exit::Failed(anyhow::anyhow!("{url}: {}", if why.is_empty() { "refused" } else { &why })))
    }
}

/// The value at `pointer`, numbers with at most one decimal; empty for null or none.
pub(super) fn text(page: &Value, pointer: &str) -> String {
    match page.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(fraction) if fraction.fract() != 0.0 => format!("{fraction:.1}"),
            _ => number.to_string(),
        },
        Some(other) => other.to_string(),
    }
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    format!("{}\n", output::table(UTF8_FULL_CONDENSED, header, rows))
}

fn show_ensemble(cluster: &Value, ensemble: &Value) -> String {
    let pods = list(ensemble, "/pods");
    let head = format!(
        "cluster {}  {}  masters {}  pods {}  digest {}\n",
        text(cluster, "/name"),
        text(cluster, "/leadership/posture"),
        list(cluster, "/members").len(),
        pods.len(),
        text(ensemble, "/digest"),
    );
    if ensemble.pointer("/pods").is_none_or(Value::is_null) {
        let leader = text(cluster, "/leadership/leader/address");
        return format!("{head}the pods are on the leader at {leader}\n");
    }
    let columns = ["/seq", "/key", "/id", "/ip", "/role", "/status", "/ageSeconds"];
    let rows = pods.iter().map(|pod| columns.iter().map(|column| text(pod, column)).collect());
    head + &table(&["SEQ", "KEY", "ID", "IP", "ROLE", "STATUS", "AGE s"], rows)
}

fn show_services(services: &Value) -> String {
    let show = |service: &Value| {
        let row = |pod| vec![text(pod, "/id"), text(pod, "/address"), text(pod, "/traffic"), why(pod)];
        format!(
            "\nservice {}/{}  {}{}{}\n{}\n{}",
            text(service, "/namespace"),
            text(service, "/name"),
            text(service, "/part"),
            if service["panic"] == true { "  PANIC" } else { "" },
            if service["dryRun"] == true { "  dry run" } else { "" },
            text(service, "/floor/formula"),
            table(&["POD", "ADDRESS", "TRAFFIC", "WHY"], list(service, "/pods").iter().map(row)),
        )
    };
    list(services, "/services").iter().map(show).collect()
}

fn show_alarms(services: &Value) -> String {
    let show = |alarm| format!("ALARM {}: {}\n", text(alarm, "/reason"), text(alarm, "/message"));
    list(services, "/alarms/up").iter().map(show).collect()
}

fn show_explanation(page: &Value) -> String {
    let mut shown = format!("traffic {}\n{}\n", text(page, "/pod/traffic"), text(page, "/pod/summary"));
    for line in ["/floor/formula", "/hold"].map(|pointer| text(page, pointer)) {
        if !line.is_empty() {
            shown += &(line + "\n");
        }
    }
    for entry in list(page, "/pod/history") {
        let at = entry["at"].as_i64().map(Timestamp::from_unix_millis).unwrap_or_default();
        let mut parts = ["/what", "/breaker", "/reason"].map(|pointer| text(entry, pointer)).to_vec();
        parts.retain(|part| !part.is_empty());
        shown += &format!("  {at}  {}\n", parts.join("; "));
    }
    shown
}

/// The pod's summary without its name, which has a column of its own.
fn why(pod: &Value) -> String {
    let (id, summary) = (text(pod, "/id"), text(pod, "/summary"));
    summary.strip_prefix(&format!("{id}: ")).map_or(summary.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_shown_as_a_table_with_one_line_for_each_pod() {
        let cluster = json!({ "name": "/kontrol/default/shop/", "leadership": { "posture": "leading" }, "members": [1] });
        let ensemble = json!({ "digest": "ab:cd", "pods": [{ "seq": 7, "key": "2k", "id": "web-7", "ageSeconds": 1.25 }] });
        let shown = show_ensemble(&cluster, &ensemble);
        assert!(shown.contains("masters 1  pods 1  digest ab:cd"), "{shown}");
        let line = shown.lines().find(|line| line.contains("web-7")).unwrap();
        assert!(line.contains('7') && line.contains("1.2"), "{line}");
    }

    #[test]
    fn a_follower_names_the_leader_that_has_the_pods() {
        let cluster = json!({ "leadership": { "leader": { "address": "10.0.0.1:8000" } } });
        assert!(show_ensemble(&cluster, &json!({ "pods": null })).contains("the leader at 10.0.0.1:8000"));
    }

    #[test]
    fn an_explanation_has_its_arithmetic_and_its_history() {
        let page = json!({
            "pod": { "id": "web-1", "traffic": "no", "summary": "web-1: withheld; errors",
                     "history": [{ "at": 0, "what": "withheld", "breaker": "errors" }] },
            "floor": { "formula": "6 - 3" },
        });
        assert_eq!(
            show_explanation(&page),
            "traffic no\nweb-1: withheld; errors\n6 - 3\n  1970-01-01T00:00:00.000Z  withheld; errors\n"
        );
        assert_eq!(why(&page["pod"]), "withheld; errors");
    }

    #[test]
    fn alarms_stand_out() {
        let page = json!({ "alarms": { "up": [{ "reason": "panic", "message": "most look bad" }] } });
        assert_eq!(show_alarms(&page), "ALARM panic: most look bad\n");
    }
}
