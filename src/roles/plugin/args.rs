//! Flags that every command of the plugin has, under kubectl's names.

use std::{path::PathBuf, time::Duration};

use kube::config::KubeConfigOptions;
use secrecy::SecretString;

use super::{
    format::OutputFormat,
    names,
    style::{ColorChoice, Style},
};
use crate::{
    adapters::kubernetes::{
        connect::ConnectOptions,
        untyped::{ClusterClient, ClusterError, ListScope},
    },
    exit::Exit,
    roles::report::ReportScope,
};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct GlobalArgs {
    /// The namespace; that of the context when not given.
    #[arg(short, long, global = true, value_parser = names::object, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Those of every namespace.
    #[arg(short = 'A', long, global = true)]
    all_namespaces: bool,
    /// Only KubervisorServices with these labels: app=web,tier!=test. Of report -f, the labels of the Service's pods.
    #[arg(short = 'l', long, global = true, value_name = "LABELS")]
    selector: Option<String>,
    /// The format: table, wide, json, yaml, name or jsonpath=TEMPLATE.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
    )]
    pub(super) output: OutputFormat,
    /// Colours on a terminal; NO_COLOR and TERM=dumb turn them off.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    /// The kubeconfig file; else those of KUBECONFIG, ~/.kube/config, or the pod's own account.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; its current one when not given.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The cluster of the kubeconfig; that of the context when not given.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The user of the kubeconfig; that of the context when not given.
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The API server's URL, instead of the kubeconfig's.
    #[arg(short, long, global = true, value_name = "URL")]
    server: Option<String>,
    /// The bearer token, instead of the kubeconfig user's credentials.
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<SecretString>,
    /// Acts as this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// Acts as a member of this group; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "as_user")]
    as_groups: Vec<String>,
    /// How long a request may take: 10s, 2m; a number is seconds, 0 is no limit. Default: 10s.
    #[arg(long, global = true, value_name = "TIME", value_parser = names::duration)]
    request_timeout: Option<Duration>,
}

/// A command's connection, and how it prints.
pub(super) struct PluginSession {
    pub(super) cluster: ClusterClient,
    pub(super) namespace: String,
    pub(super) all_namespaces: bool,
    pub(super) selector: Option<String>,
    pub(super) format: OutputFormat,
    pub(super) style: Style,
}

impl GlobalArgs {
    /// Checks what clap does not: these flags make no sense for what concerns one object.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub(super) fn one_of_a_namespace(&self, what: &str) -> Result<(), Exit> {
        let refuse = |flag: &str| {
            let see = "see kubectl kubervisor --help";
            Err(Exit::Usage(format!("{what} is one of a namespace: give -n NAMESPACE, not {flag}; {see}")))
        };
        match (self.all_namespaces, &self.selector) {
            (true, _) => refuse("--all-namespaces"),
            (false, Some(_)) => refuse("--selector"),
            (false, None) => Ok(()),
        }
    }

    /// Which pods a replay is about: `-l` has their labels.
    pub(super) fn report_scope(self) -> ReportScope {
        ReportScope { namespace: self.namespace, selector: self.selector }
    }

    /// Connects, without a request to the API server.
    pub(super) async fn open(self) -> Result<PluginSession, ClusterError> {
        let Self { namespace, all_namespaces, selector, output, color, request_timeout, .. } = self;
        let Self { kubeconfig, context, cluster, user, server, token, as_user, as_groups, .. } = self;
        let names = KubeConfigOptions { context, cluster, user };
        let options =
            ConnectOptions { kubeconfig, server, names, token, impersonate: as_user, groups: as_groups };
        let cluster = ClusterClient::connect(&options, request_timeout).await?;
        let namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
        let style = Style::of_stdout(color);
        Ok(PluginSession { cluster, namespace, all_namespaces, selector, format: output, style })
    }
}

impl PluginSession {
    /// Where resources are looked for.
    pub(super) fn scope(&self) -> ListScope<'_> {
        if self.all_namespaces { ListScope::All } else { ListScope::Namespace(&self.namespace) }
    }
}
