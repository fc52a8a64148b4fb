//! The flags of `run`. Each sets one `KUBERVISOR_...` variable, so that there is one parser and one set of messages.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

/// Flags, which take precedence over their variables.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Flags {
    /// Where coordination lives: embedded:PATH, etcd:HOST[:PORT][,...] or kubernetes:NAMESPACE.
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
    /// Writes into the endpoints file instead of replacing it, for a file that is a mount of its own.
    #[arg(long, env = "KUBERVISOR_ENDPOINTS_IN_PLACE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub endpoints_in_place: Option<String>,
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
    /// The flags as the variables that they stand for: `KUBERVISOR_` and the field's name.
    pub fn as_variables(&self) -> impl Iterator<Item = (String, String)> {
        let fields = serde_json::to_value(self).and_then(serde_json::from_value).unwrap_or_default();
        let fields: BTreeMap<String, Option<String>> = fields;
        fields.into_iter().filter_map(|(name, value)| Some((format!("KUBERVISOR_{name}"), value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flags_variable_is_the_name_of_its_field() {
        let command = Flags::augment_args(clap::Command::new("run"));
        let arguments = command.get_arguments().filter(|argument| argument.get_long().is_some());
        let (ids, variables): (Vec<_>, Vec<_>) = arguments
            .map(|argument| (argument.get_id().to_string(), argument.get_env().unwrap().to_str().unwrap()))
            .unzip();
        assert_eq!(ids.len(), 14);
        assert_eq!(
            ids.iter().map(|id| format!("KUBERVISOR_{}", id.to_uppercase())).collect::<Vec<_>>(),
            variables
        );
        let flags = Flags { fleet_size: Some("3".into()), ..Flags::default() };
        assert_eq!(flags.as_variables().collect::<Vec<_>>(), [("KUBERVISOR_FLEET_SIZE".into(), "3".into())]);
    }
}
