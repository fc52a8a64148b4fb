//! All variables with default and meaning; the table in `docs/configuration.md` is made from them.

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default, as text for the docs.
    pub default: &'static str,
    /// Its meaning, for the docs.
    pub meaning: &'static str,
}

const fn row(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

/// The table.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    row("KONTROL_MODE", "slave", "comma-separated set of `slave`, `master`, `debug`, `verbose`; `debug` is slave and master on `KONTROL_HOST`"),
    row("KONTROL_PORT", "8000", "TCP port, both dialects"),
    row("KONTROL_BIND", "0.0.0.0, or `KONTROL_IP` when that is in 127/8", "address that the port is opened on"),
    row("KONTROL_HOST", "127.0.0.1", "`debug` only: address of the pod and of the master"),
    row("KONTROL_IP", "the pod's", "IPv4 address; the key is made from it, and agents connect from it where it is local"),
    row("KONTROL_ID", "the pod's name", "identifier"),
    row("KONTROL_LABELS", "the pod's", "JSON object; `app` and `role` are needed"),
    row("KONTROL_ANNOTATIONS", "the pod's", "JSON object; `kontrol.unity3d.com/master` names the masters, comma-separated: `host[:port]`, or `http://host[:port]` for the older dialect"),
    row("NAMESPACE", "default", "namespace of the pod, part of the store's prefix `/kontrol/<namespace>/<app>`"),
    row("KONTROL_TTL", "25", "seconds after its last keepalive until a pod expires"),
    row("KONTROL_PING", "TTL / 3", "seconds between keepalives; below the TTL"),
    row("KONTROL_DAMPER", "10", "seconds from a change to the callback; 0 is at once"),
    row("KONTROL_FOVER", "60, in the controller `--lease`", "seconds of the leader's lease"),
    row("KONTROL_CALLBACK", "none", "command that runs on changes, split on spaces"),
    row("KONTROL_SHELL_CALLBACK", "none", "exactly `TRUE`: the whole of `KONTROL_CALLBACK` is a line for the shell"),
    row("KONTROL_CALLBACK_TIMEOUT", "60", "seconds until a running callback is killed"),
    row("KONTROL_PAYLOAD", "none", "JSON file that goes with each keepalive; a change forces one"),
    row("KONTROL_PAYLOAD_MAX_AGE", "10 pings", "seconds without a valid payload file after which the last payload counts as no data; 0 is no limit"),
    row("KONTROL_ETCD", "none", "etcd as the store: `host[:port]` or `http(s)://host[:port]`, comma-separated"),
    row("KONTROL_INVOKE", "`signed` with a public key, else `off`", "which commands an agent runs: `off`, `signed`, or `open` (anybody's)"),
    row("KONTROL_INVOKE_PUBKEY_FILE", "none", "agent: PEM file of the public key that commands are checked with"),
    row("KONTROL_INVOKE_KEY_FILE", "none", "`kubervisor invoke` and `keygen`: PEM file of the private key"),
    row("KONTROL_INVOKE_ALLOW", "none", "agent: YAML file, name to command line; a request's `cmd` is then a name in it"),
    row("KONTROL_USER", "`kontrol` where that user exists and we are root", "user of callbacks and commands; set and empty: our own user"),
    row("KUBERVISOR_STORE", "etcd if `KONTROL_ETCD` is set, else in a pod `kubernetes:<namespace>`, else `embedded:$XDG_STATE_HOME/kubervisor/<namespace>/<app>.redb`", "store of a master's records, and where replicas coordinate: `embedded:PATH`, `etcd:HOST[:PORT][,...]` or `kubernetes:NAMESPACE`"),
    row("KUBERVISOR_CLUSTER_NAME", "kubervisor", "replicas of the controller with the same name share the resources"),
    row("KUBERVISOR_LEASE", "15", "seconds, 3 or more, until the other replicas take over from one that does not renew its Lease"),
    row("KUBERVISOR_WEIGHT", "1", "share of the resources that this replica gets, relative to the others'; 0 is none"),
    row("KUBERVISOR_CLUSTER_OUTPUT", "table", "`table` or `json`"),
    row("KUBERVISOR_CLUSTER_TIMEOUT", "60", "seconds that `drain` may take"),
    row("KUBERVISOR_POD_UID", "the pod's name", "UID of the pod (`metadata.uid` by the downward API): what work is assigned by"),
    row("KUBERVISOR_ETCD_USER", "none", "user name for etcd"),
    row("KUBERVISOR_ETCD_PASSWORD_FILE", "none", "file with that user's password"),
    row("KUBERVISOR_ETCD_CA_FILE", "none", "PEM of the CA of etcd's certificates; turns TLS on"),
    row("KUBERVISOR_ETCD_CERT_FILE", "none", "PEM of our client certificate for etcd"),
    row("KUBERVISOR_ETCD_KEY_FILE", "none", "PEM of that certificate's key"),
    row("KUBERVISOR_SOURCES", "none", "sources of metrics that the policy may name, with credentials from files"),
    row("KUBERVISOR_POLICY", "none", "KubervisorService manifest: breakers and activators over the ensemble"),
    row("KUBERVISOR_ENDPOINTS", "none", "file that lists the addresses which may get traffic"),
    row("KUBERVISOR_ENDPOINTS_FORMAT", "plain", "format of the endpoints file; [endpoints.md](endpoints.md) lists them"),
    row("KUBERVISOR_TARGET_PORT", "none", "traffic port of all pods; this or the pointer is needed with an endpoints file"),
    row("KUBERVISOR_TARGET_PORT_POINTER", "none", "JSON pointer into the payload: each pod's own traffic port"),
    row("KUBERVISOR_ENDPOINTS_ROLES", "all", "roles whose pods are the fleet, comma-separated"),
    row("KUBERVISOR_ENDPOINTS_IN_PLACE", "false", "the endpoints file is written into instead of replaced, for a file that is a mount of its own; a reader may see it half written"),
    row("KUBERVISOR_ENDPOINTS_COMMAND", "none", "shell line that runs after each write of the file"),
    row("KUBERVISOR_FLEET_SIZE", "the most pods seen", "how many pods the fleet should have"),
    row("KUBERVISOR_DRY_RUN", "false", "decide and report, leave the endpoints file and all pods alone"),
    row("KUBERVISOR_KUBECONFIG", "`KUBECONFIG`, in a pod its service account", "how to reach the API server: the controller's, and that of the store `kubernetes:NAMESPACE`"),
    row(
        "KUBERVISOR_REQUESTS_CHECKED",
        "false",
        "controller: an admission policy checks the names in people's requests",
    ),
    row("KUBERVISOR_MASTER", "the kubeconfig's", "URL of the API server, for the same"),
    row("KUBERVISOR_NAMESPACE", "all", "controller: its namespaces, comma-separated"),
    row("KUBERVISOR_KEEPALIVES", "none", "controller: takes keepalives at `IP:PORT` or `:PORT`, as a master in the same process"),
    row("KUBERVISOR_DEBUG", "false", "controller: logs every step"),
    row("KUBERVISOR_RELEASE", "none", "controller: gives all traffic back, takes marks and finalizers off, and ends; fails after so many seconds"),
    row("KUBERVISOR_RELEASE_AFTER", "none", "controller: with a release, the Deployment (`NAMESPACE/NAME`) that is scaled to 0 first"),
    row("KUBERVISOR_ADDR", "127.0.0.1:8086, in a pod 0.0.0.0:8086", "master and controller: `/metrics`, `/live`, `/ready`; `off` turns it off"),
    row("KUBERVISOR_ADMIN_ADDR", "127.0.0.1:8087", "master and controller: the other pages; `off` turns it off"),
    row("KUBERVISOR_VIEW_ADDR", "off", "controller: the web view for readers with a bearer token, over TLS or behind a proxy; [view.md](view.md)"),
    row("KUBERVISOR_VIEW_TLS_CERT", "none", "PEM file of the view's certificate chain, read again when it changes"),
    row("KUBERVISOR_VIEW_TLS_KEY", "none", "PEM file of its private key"),
    row("KUBERVISOR_VIEW_BEHIND_PROXY", "false", "a proxy in front of the view does TLS"),
    row("KUBERVISOR_VIEW_HOST", "none", "names by which browsers may call the pages, beside addresses and localhost, comma-separated"),
    row("KUBERVISOR_LOG_FORMAT", "text", "`text` or `json`, on stderr; `RUST_LOG` sets levels"),
    row("KUBERVISOR_MAX_CONNECTIONS", "16384", "open connections on the keepalive port"),
    row("KUBERVISOR_MAX_CONNECTIONS_PER_PEER", "4096", "open connections from one address"),
    row("KUBERVISOR_KEEPALIVE_TRUSTED", "none", "CIDRs of peers without that limit, which may send keepalives of other addresses"),
    row("KUBERVISOR_INVOKE_CMD", "none", "command line, or a name in the agent's allow-list"),
    row("KUBERVISOR_INVOKE_JSON", "none", "a further member of the request, `KEY=VALUE`"),
    row("KUBERVISOR_INVOKE_ID", "looked up in PODS", "the agent's id that a command is signed for"),
    row("KUBERVISOR_INVOKE_TIMEOUT", "65", "seconds until `kubervisor invoke` gives up (exit code 124)"),
    row("KUBERVISOR_STATUS_JSON", "false", "JSON as the admin page gives it, instead of a view for people"),
    row("KUBERVISOR_EXPLAIN_JSON", "false", "the same for `explain`"),
    row("KUBERVISOR_EXPLAIN_NAMESPACE", "default", "namespace of the pod to explain"),
    row("KUBERVISOR_REPORT_FILE", "none", "manifests to replay, comma-separated; several are compared"),
    row("KUBERVISOR_REPORT_PROMETHEUS", "those of the manifests", "the Prometheus to ask"),
    row("KUBERVISOR_REPORT_FROM", "1d", "the beginning: a span before the end, or a time"),
    row("KUBERVISOR_REPORT_TO", "now", "the end: `now`, a span before now, or a time"),
    row("KUBERVISOR_REPORT_NAMESPACE", "the manifest's", "namespace of the pods, or of the resource"),
    row("KUBERVISOR_REPORT_SELECTOR", "none", "labels of the Service's pods, for kube-state-metrics with pod labels"),
    row("KUBERVISOR_REPORT_SERVICE_FILE", "none", "the Service's manifest, whose selector is used"),
    row("KUBERVISOR_REPORT_FLEET_QUERY", "none", "PromQL that gives the fleet: a series for each pod, 1 when it is Ready"),
    row("KUBERVISOR_REPORT_SET", "none", "values to try, `PATH=VALUE,VALUE`, separated by `;`"),
    row("KUBERVISOR_REPORT_OUTPUT", "text", "`text`, `json`, `yaml` or `junit`"),
    row("KUBERVISOR_REPORT_HTML", "none", "file for the report as one HTML page"),
    row("KUBERVISOR_REPORT_LABELS", "none", "file with known incidents: pod,from,to"),
    row("KUBERVISOR_REPORT_FAIL_ON", "none", "exit with 3 if it occurred: `withheld`, `panic`, `floor`, `no-data`"),
    row("KUBERVISOR_DEMO_KEEP", "false", "leave the demo running after its last act"),
    row("KUBERVISOR_DEMO_REPORT", "none", "file for the demo's timeline, one HTML page"),
    row("KUBERVISOR_SCAN_PROMETHEUS", "required, or `--source`", "Prometheus that is asked"),
    row("KUBERVISOR_SCAN_SOURCE", "none", "one of `--sources` that is asked instead"),
    row("KUBERVISOR_SCAN_NAMESPACE", "default", "namespace whose Services get proposals"),
    row("KUBERVISOR_SCAN_FROM", "1d", "beginning of the replayed time"),
    row("KUBERVISOR_SCAN_TO", "now", "end of the replayed time"),
    row("KUBERVISOR_DEMO_WITHOUT_POLICY", "false", "run the demo so that its promises are broken"),
    row("KUBERVISOR_DEMO_CAP", "20", "seconds that a promise of the demo is waited for"),
];

/// Set by this program for commands that it starts, one of which may be this program.
const SET_FOR_COMMANDS: &str = "KUBERVISOR_JOB";

/// Names that start with `KUBERVISOR_` and are no setting, probably misspelt.
///
/// Variables that Kubernetes sets for a Service called `kubervisor` are left out, as are unknown `KONTROL_` ones, which
/// callbacks may use.
pub fn unknown<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let foreign = |name: &str| is_service_link(name) || name == SET_FOR_COMMANDS;
    let is_listed = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
    names.filter(move |name| name.starts_with("KUBERVISOR_") && !foreign(name) && !is_listed(name))
}

fn is_service_link(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|mark| name.contains(mark))
        || name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_found_and_a_service_link_is_none() {
        let names = [
            "KUBERVISOR_STORE",
            "KUBERVISOR_ENPOINTS",
            "KUBERVISOR_SERVICE_HOST",
            "KUBERVISOR_PORT_8086_TCP",
            "KONTROL_MINE",
        ];
        assert_eq!(unknown(names.into_iter()).collect::<Vec<_>>(), ["KUBERVISOR_ENPOINTS"]);
    }
}
