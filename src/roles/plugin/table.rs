//! KubervisorServices in plain columns, as kubectl prints them, for people and for scripts.

use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use super::{
    fields,
    format::CommandOutput,
    style::{Style, Tone},
};
use crate::{clock::Clock, decide::time::Timestamp, roles::output};

/// The original's columns, and the pods that serve.
const NARROW: [&str; 7] = ["NAME", "NAMESPACE", "STATUS", "MANAGED", "BREAKED", "PAUSED", "SERVING"];
/// Added by `-o wide`.
const WIDE: [&str; 8] = ["UNKNOWN", "FLOOR", "SERVICE", "GATING", "DATA", "PANIC", "DRYRUN", "AGE"];

/// KubervisorServices as they are stored.
pub(super) struct ResourceTable {
    pub(super) resources: Vec<Value>,
    /// One was asked for by its name: json and yaml show it and no list.
    pub(super) single: bool,
}

impl CommandOutput for ResourceTable {
    fn value(&self) -> Value {
        match self.resources.first().filter(|_| self.single) {
            Some(resource) => resource.clone(),
            None => json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": self.resources }),
        }
    }

    fn names(&self) -> Vec<String> {
        self.resources.iter().map(name).collect()
    }

    fn has_rows(&self) -> bool {
        true
    }

    fn text(&self, style: Style, wide: bool) -> String {
        if self.resources.is_empty() {
            return String::new();
        }
        let table =
            if wide { self::wide(&self.resources, Clock::start().wall()) } else { narrow(&self.resources) };
        styled(&table, style)
    }
}

/// A name as `kubectl get -o name` writes it.
pub(super) fn name(resource: &Value) -> String {
    format!("kubervisorservice.kubervisor.k8s.io/{}", fields::cell(resource, "/metadata/name"))
}

/// The lines cut off at the terminal's width, the header and each STATUS with its colour.
fn styled(table: &str, style: Style) -> String {
    let at = table.lines().next().and_then(|header| header.find("STATUS"));
    let lines = table.lines().enumerate().map(|(row, line)| {
        let line = style.fit(line);
        let status = at.and_then(|at| line.split_at_checked(at));
        match (row, status) {
            (0, _) => style.paint(Tone::Head, &line),
            (_, Some((before, rest))) => {
                let (status, after) = rest.split_at(rest.find("   ").unwrap_or(rest.len()));
                format!("{before}{}{after}", style.paint(tone(status), status))
            }
            (_, None) => line,
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// The colour of a status.
pub(super) fn tone(status: &str) -> Tone {
    match status {
        "Ready" => Tone::Good,
        other if other.starts_with("NotReady") => Tone::Bad,
        _ => Tone::Warning,
    }
}

fn narrow(resources: &[Value]) -> String {
    columns(&NARROW, resources.iter().map(narrow_row))
}

fn wide(resources: &[Value], now: Timestamp) -> String {
    let header = [NARROW.as_slice(), WIDE.as_slice()].concat();
    columns(
        &header,
        resources.iter().map(|resource| [narrow_row(resource), wide_row(resource, now)].concat()),
    )
}

fn narrow_row(resource: &Value) -> Vec<String> {
    let cell = |pointer| fields::cell(resource, pointer);
    vec![
        cell("/metadata/name"),
        cell("/metadata/namespace"),
        fields::status(resource),
        cell("/status/podCount/nbPodsManaged"),
        cell("/status/podCount/nbPodsBreaked"),
        cell("/status/podCount/nbPodsPaused"),
        cell("/status/serving"),
    ]
}

fn wide_row(resource: &Value, now: Timestamp) -> Vec<String> {
    let cell = |pointer| fields::cell(resource, pointer);
    let condition = |kind| match fields::condition(resource, kind) {
        Some(condition) => fields::cell(condition, "/status"),
        None => fields::NONE.into(),
    };
    let since = fields::time(&resource["metadata"]["creationTimestamp"]);
    vec![
        cell("/status/podCount/nbPodsUnknown"),
        cell("/status/floor"),
        cell("/spec/service"),
        condition("Gating"),
        condition("DataAvailable"),
        condition("Panic"),
        condition("DryRun"),
        since.map_or_else(|| fields::NONE.into(), |since| fields::age(since, now)),
    ]
}

/// Plain columns, as kubectl prints them.
pub(super) fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = output::table(NOTHING, header, rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_plain_and_aligned() {
        let ready = json!({ "type": "Ready", "status": "False", "reason": "ServiceMissing" });
        let web = json!({
            "metadata": { "name": "web", "namespace": "shop", "creationTimestamp": "1970-01-01T00:00:00Z" },
            "spec": { "service": "front" },
            "status": { "conditions": [ready], "floor": 3, "serving": 4, "podCount": { "nbPodsManaged": 5, "nbPodsBreaked": 1 } },
        });
        let new = json!({ "metadata": { "name": "new-one", "namespace": "shop" } });
        assert_eq!(
            narrow(&[web.clone(), new]),
            "NAME      NAMESPACE   STATUS                     MANAGED   BREAKED   PAUSED   SERVING\n\
             web       shop        NotReady: ServiceMissing   5         1         <none>   4\n\
             new-one   shop        Unknown                    <none>    <none>    <none>   <none>\n"
        );
        let wide = wide(std::slice::from_ref(&web), Timestamp::from_unix_millis(5000));
        let row = wide.lines().nth(1).unwrap();
        assert!(row.ends_with("5s") && row.contains("   3       front"), "{wide}");
        assert_eq!(name(&web), "kubervisorservice.kubervisor.k8s.io/web");
    }

    #[test]
    fn only_the_status_and_the_header_are_coloured() {
        let style = Style { colored: true, ..Style::default() };
        let table = styled("NAME   STATUS   X\nweb    Ready    1\n", style);
        assert_eq!(table, "\u{1b}[1mNAME   STATUS   X\u{1b}[0m\nweb    \u{1b}[32mReady\u{1b}[0m    1\n");
    }
}
