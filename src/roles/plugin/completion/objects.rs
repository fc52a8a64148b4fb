//! Names of KubervisorServices, pods and namespaces as candidates, read with the flags that the command line has so far.
//!
//! Only an argument that is being completed asks the API server. Without an answer it has no candidates, because a message
//! would end in the middle of what is being typed.

use std::time::Duration;

use clap::{ArgMatches, Command, FromArgMatches};
use clap_complete::{ArgValueCandidates, CompletionCandidate};
use tokio::{runtime::Handle, time::timeout};

use super::super::args::GlobalArgs;
use crate::adapters::kubernetes::untyped::{ClusterError, NAMESPACES, pods_of, services_of};

/// How long the API server may take, because the shell shows nothing meanwhile.
const DEADLINE: Duration = Duration::from_secs(1);

/// What an argument names.
#[derive(Clone, Copy)]
enum ObjectKind {
    Service,
    Pod,
    /// A KubervisorService, or a pod as `pod/NAME`.
    ServiceOrPod,
    Namespace,
}

impl ObjectKind {
    fn of_argument(id: &str) -> Option<Self> {
        match id {
            "name" => Some(Self::Service),
            "pod" => Some(Self::Pod),
            "target" => Some(Self::ServiceOrPod),
            "namespace" => Some(Self::Namespace),
            _ => None,
        }
    }

    async fn names(self, flags: GlobalArgs) -> Result<Vec<String>, ClusterError> {
        let session = flags.open().await?;
        let (cluster, namespace) = (&session.cluster, &session.namespace);
        match self {
            Self::Service => cluster.names(&services_of(namespace)).await,
            Self::Pod => cluster.names(&pods_of(namespace)).await,
            Self::Namespace => cluster.names(NAMESPACES).await,
            Self::ServiceOrPod => {
                let mut names = cluster.names(&services_of(namespace)).await?;
                let pods = cluster.names(&pods_of(namespace)).await?;
                names.extend(pods.iter().map(|pod| format!("pod/{pod}")));
                Ok(names)
            }
        }
    }
}

/// The command, whose arguments have the names in the cluster as candidates. Its completion runs on a thread of the
/// runtime that may block.
pub(super) fn with_names(command: Command, so_far: &ArgMatches) -> Command {
    let Ok(flags) = GlobalArgs::from_arg_matches(so_far) else { return command };
    let runtime = Handle::current();
    let offer = |command: Command| {
        command.mut_args(|argument| match ObjectKind::of_argument(argument.get_id().as_str()) {
            Some(kind) => {
                let (flags, runtime) = (flags.clone(), runtime.clone());
                argument.add(ArgValueCandidates::new(move || {
                    let asked = async { timeout(DEADLINE, kind.names(flags.clone())).await };
                    let names = runtime.block_on(asked).ok().and_then(Result::ok).unwrap_or_default();
                    names.into_iter().map(CompletionCandidate::new).collect()
                }))
            }
            None => argument,
        })
    };
    offer(command).mut_subcommands(offer)
}
