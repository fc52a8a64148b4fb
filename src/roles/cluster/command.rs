//! `kubervisor cluster`: the members, and moving work off one, through the admin port of any replica.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use reqwest::Method;
use serde_json::Value;

use crate::{
    exit::Exit,
    roles::{
        output::{self, list},
        status::{AdminArgs, text},
    },
};

/// Interval of looking whether a drained member is empty.
const POLL: Duration = Duration::from_millis(200);

/// Arguments of `cluster`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<ClusterAction>,
    #[command(flatten)]
    admin: AdminArgs,
    /// The format of the members.
    #[arg(long, short, env = "KUBERVISOR_CLUSTER_OUTPUT", value_enum, default_value_t = MembersFormat::Table)]
    output: MembersFormat,
    /// Seconds that `drain` may take.
    #[arg(long, env = "KUBERVISOR_CLUSTER_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// How the members are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MembersFormat {
    Table,
    Json,
}

/// What is done with a member.
#[derive(Debug, Subcommand)]
enum ClusterAction {
    /// Gives the member no new work and moves what it has to the others; waits until it has none.
    Drain {
        /// Its id, or the pod's name if one member only has it.
        member: String,
    },
    /// Gives the member no work.
    Cordon {
        /// As of `drain`.
        member: String,
    },
    /// Gives the member work again.
    Uncordon {
        /// As of `drain`.
        member: String,
    },
    /// The leader hands over; to be sent to the leader's own admin port.
    HandOver,
}

/// Shows the members, or does something with one.
///
/// # Errors
/// The admin port does not answer, knows no such member, or refuses; 124 when a drain is not over in time.
pub async fn run(args: Args) -> Result<(), Exit> {
    let Args { action, admin, output, timeout } = args;
    match action {
        None => show(&admin.page("cluster").await?, output),
        Some(ClusterAction::HandOver) => admin.send(Method::DELETE, "cluster/leader").await.map(drop),
        Some(ClusterAction::Cordon { member }) => cordon(&admin, &member, Method::PUT).await.map(drop),
        Some(ClusterAction::Uncordon { member }) => cordon(&admin, &member, Method::DELETE).await.map(drop),
        Some(ClusterAction::Drain { member }) => {
            let id = cordon(&admin, &member, Method::PUT).await?;
            let drained = tokio::time::timeout(Duration::from_secs(timeout), drained(&admin, &id)).await;
            drained.map_err(|_| {
                Exit::TimedOut(format!("{id} still has services after {timeout} s; it stays cordoned"))
            })?
        }
    }
}

/// Cordons (`PUT`) or uncordons (`DELETE`) a member; returns its id.
async fn cordon(admin: &AdminArgs, member: &str, method: Method) -> Result<String, Exit> {
    let page = admin.page("cluster").await?;
    let matches = |row: &&Value| text(row, "/id") == member || is_pod(&text(row, "/id"), member);
    let found: Vec<String> =
        list(&page, "/members").iter().filter(matches).map(|row| text(row, "/id")).collect();
    let [id] = found.as_slice() else {
        let known: Vec<String> = list(&page, "/members").iter().map(|row| text(row, "/id")).collect();
        let problem = if found.is_empty() { "is no member" } else { "is the pod of several members" };
        return Err(Exit::Usage(format!("{member:?} {problem}; the members are: {}", known.join(", "))));
    };
    admin.send(method, &format!("cluster/members/{id}/cordon")).await?;
    Ok(id.clone())
}

/// Whether `id` is `pod` and the random part.
fn is_pod(id: &str, pod: &str) -> bool {
    id.rsplit_once('-').is_some_and(|(name, _)| name == pod)
}

/// Waits until the member works on nothing, or is gone.
async fn drained(admin: &AdminArgs, id: &str) -> Result<(), Exit> {
    loop {
        let page = admin.page("cluster").await?;
        let row = list(&page, "/members").iter().find(|row| text(row, "/id") == id);
        let busy = row.is_some_and(|row| row["load"] != 0 || !list(row, "/services").is_empty());
        if !busy {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn show(page: &Value, format: MembersFormat) -> Result<(), Exit> {
    if format == MembersFormat::Json {
        return output::print(&output::json(page)?);
    }
    output::print(&members(page))
}

fn members(page: &Value) -> String {
    let leader = match text(page, "/leadership/posture").as_str() {
        "leading" => "this replica".to_owned(),
        _ => text(page, "/leadership/leader/id"),
    };
    let leader = if leader.is_empty() { "nobody".to_owned() } else { leader };
    let header = ["MEMBER", "ADDRESS", "VERSION", "RENEWED", "WEIGHT", "LOAD", "STATE", "SERVICES"];
    let rows = list(page, "/members").iter().map(|row| {
        let services: Vec<String> =
            list(row, "/services").iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let state = if row["cordoned"] == true { "cordoned" } else { "ready" };
        vec![
            text(row, "/id"),
            text(row, "/address"),
            text(row, "/version"),
            format!("{} s ago", text(row, "/ageSeconds")),
            text(row, "/weight"),
            text(row, "/load"),
            state.to_owned(),
            services.join("\n"),
        ]
    });
    let table = output::table(UTF8_FULL_CONDENSED, &header, rows);
    format!("cluster {}, led by {leader}\n{table}\n", text(page, "/name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_what_a_person_asks_of_a_cluster() {
        let page = json!({
            "name": "kubervisor", "leadership": {"posture": "following", "leader": {"id": "a-1"}},
            "members": [{"id": "a-1", "address": "10.0.0.1:8087", "version": "0.1.0", "ageSeconds": 1.25, "weight": 1,
                "load": 2, "cordoned": true, "services": ["shop/web", "shop/api"]}],
        });
        let shown = members(&page);
        for part in ["cluster kubervisor, led by a-1", "10.0.0.1:8087", "1.2 s ago", "cordoned", "shop/api"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn a_member_may_be_named_by_its_pod() {
        assert!(is_pod("kubervisor-7d-x-0011223344556677", "kubervisor-7d-x"));
        assert!(!is_pod("kubervisor-7d-x-0011223344556677", "kubervisor-7d"));
    }
}
