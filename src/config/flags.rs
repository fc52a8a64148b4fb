//! The flags of `run`. Each sets one `KUBERVISOR_...` variable, so that there is one parser and one set of messages.

use clap::Args;

/// Flags, which take precedence over their variables.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Where coordination lives: embedded:PATH or etcd:HOST[:PORT][,...].
    #[arg(long, env = "KUBERVISOR_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// A KubervisorService manifest: breakers and activators over the ensemble.
    #[arg(long, env = "KUBERVISOR_POLICY", value_name = "FILE")]
    pub policy: Option<String>,
    /// Sources of metrics that the policy may name, with credentials from files.
    #[arg(long, env = "KUBERVISOR_SOURCES", value_name = "FILE")]
    pub sources: Option<String>,
    /// The file that lists the addresses which may get traffic.
    #[arg(long, env = "KUBERVISOR_ENDPOINTS", value_name = "FILE")]
    pub endpoints: Option<String>,
    /// The format of that file; docs/endpoints.md lists them.
    #[arg(long, env = "KUBERVISOR_ENDPOINTS_FORMAT", value_name = "FORMAT")]
    pub endpoints_format: Option<String>,
    /// The pods' traffic port, the same for all.
    #[arg(long, env = "KUBERVISOR_TARGET_PORT", value_name = "PORT")]
    pub target_port: Option<String>,
    /// JSON pointer into the payload: each pod's own traffic port.
    #[arg(long, env = "KUBERVISOR_TARGET_PORT_POINTER", value_name = "POINTER")]
    pub target_port_pointer: Option<String>,
    /// Roles whose pods are the fleet, comma-separated; all by default.
    #[arg(long, env = "KUBERVISOR_ENDPOINTS_ROLES", value_name = "ROLES")]
    pub endpoints_roles: Option<String>,
    /// How many pods the fleet should have; by default the most ever seen.
    #[arg(long, env = "KUBERVISOR_FLEET_SIZE", value_name = "N")]
    pub fleet_size: Option<String>,
    /// Runs after each write of the endpoints file, for instance a reload.
    #[arg(long, env = "KUBERVISOR_ENDPOINTS_COMMAND", value_name = "COMMAND")]
    pub endpoints_command: Option<String>,
    /// Serves /metrics, /live and /ready; `off` turns it off.
    #[arg(long, env = "KUBERVISOR_ADDR", value_name = "ADDR")]
    pub addr: Option<String>,
    /// Serves everything else; `off` turns it off.
    #[arg(long, env = "KUBERVISOR_ADMIN_ADDR", value_name = "ADDR")]
    pub admin_addr: Option<String>,
    /// Decides and reports, and leaves the endpoints file alone.
    #[arg(long, env = "KUBERVISOR_DRY_RUN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dry_run: Option<String>,
}

impl Flags {
    /// The flags as the variables that they stand for.
    pub fn as_variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("KUBERVISOR_STORE", &self.store),
            ("KUBERVISOR_POLICY", &self.policy),
            ("KUBERVISOR_SOURCES", &self.sources),
            ("KUBERVISOR_ENDPOINTS", &self.endpoints),
            ("KUBERVISOR_ENDPOINTS_FORMAT", &self.endpoints_format),
            ("KUBERVISOR_TARGET_PORT", &self.target_port),
            ("KUBERVISOR_TARGET_PORT_POINTER", &self.target_port_pointer),
            ("KUBERVISOR_ENDPOINTS_ROLES", &self.endpoints_roles),
            ("KUBERVISOR_FLEET_SIZE", &self.fleet_size),
            ("KUBERVISOR_ENDPOINTS_COMMAND", &self.endpoints_command),
            ("KUBERVISOR_ADDR", &self.addr),
            ("KUBERVISOR_ADMIN_ADDR", &self.admin_addr),
            ("KUBERVISOR_DRY_RUN", &self.dry_run),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}
