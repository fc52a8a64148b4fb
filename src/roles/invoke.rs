//! `kubervisor invoke`: runs a command on an agent, so that a callback can heal a pod.
//!
//! With a key the command is signed for exactly one agent: the dialled address and the agent's id. Without one it works
//! only where the agent takes unsigned commands.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow};
use serde_json::{Map, Value, value::to_raw_value};
use tokio::time::timeout;

use self::callback_snapshot::CallbackSnapshot;
use super::output;
use crate::{
    adapters::{
        commands::{
            request::{InvokeProof, Offer, PROOF, Reply},
            signing::{PrivateKey, SignedOrder},
        },
        wire::client::{ClientError, Connection},
    },
    config::{Dialect, MasterTarget, address},
    exit::Exit,
};

mod callback_snapshot;

/// Arguments of `invoke`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent: host or host:port.
    pub target: String,
    /// The command line, or the command's name where the agent has an allow-list.
    #[arg(long, env = "KUBERVISOR_INVOKE_CMD", value_name = "CMD")]
    pub cmd: String,
    /// A further member of the request; VALUE is JSON, or else a string. Repeatable.
    #[arg(long, env = "KUBERVISOR_INVOKE_JSON", value_name = "KEY=VALUE", value_parser = member)]
    pub json: Vec<(String, Value)>,
    /// The private key that signs the command (PEM).
    #[arg(long, env = "KONTROL_INVOKE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The agent's id; inside a callback it is looked up in PODS.
    #[arg(long, env = "KUBERVISOR_INVOKE_ID", value_name = "ID")]
    pub id: Option<String>,
    /// Seconds until it gives up (exit code 124).
    #[arg(
        long,
        env = "KUBERVISOR_INVOKE_TIMEOUT",
        value_name = "SECONDS",
        default_value = "65",
        value_parser = seconds
    )]
    pub timeout: Duration,
}

fn member(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if name.is_empty() || name == "cmd" || name == PROOF {
        return Err(format!("{name:?} cannot be set like this"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let within = |seconds: &f64| (0.001..=86_400.0).contains(seconds);
    let seconds = text.parse().ok().filter(within).ok_or("write a number of seconds from 0.001 to 86400")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Runs the command and prints its output.
///
/// # Errors
/// [`Exit::Failed`] when it was refused or failed, [`Exit::Usage`], [`Exit::TimedOut`].
pub async fn run(args: Args) -> Result<(), Exit> {
    let key = match args.key_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => Some(PrivateKey::read(file).map_err(|error| Exit::Usage(error.to_string()))?),
        None => None,
    };
    match timeout(args.timeout, invoke(&args, key.as_ref())).await {
        Ok(Ok(answer)) => print(&answer),
        Ok(Err(exit)) => Err(exit),
        Err(_elapsed) => Err(timed_out(&args)),
    }
}

fn timed_out(args: &Args) -> Exit {
    let (target, seconds) = (&args.target, args.timeout.as_secs_f64());
    Exit::TimedOut(format!("no answer from {target} within {seconds} s; the command may still run there"))
}

/// Connects, signs the command if there is a key, and waits for the answer.
async fn invoke(args: &Args, key: Option<&PrivateKey>) -> Result<Option<String>, Exit> {
    let (target, first) = resolve(&args.target).await?;
    let failed = |error: ClientError| match error {
        // The client has the same deadline, and may reach it first.
        ClientError::Deadline => timed_out(args),
        error => {
            let what = format!("the agent at {target} did not run the command");
            Exit::Failed(anyhow::Error::new(error).context(what))
        }
    };
    // Checked before connecting, so that wrong usage needs no network.
    key.map(|_| agent_id(args, *first.ip())).transpose()?;
    let connection = Connection::connect(&target, None, args.timeout).await.map_err(failed)?;
    // What is signed is the address that was reached, of a name that may have several.
    let dialled = connection.peer();
    let id = key.map(|_| agent_id(args, *dialled.ip())).transpose()?;
    let proof = match key.zip(id) {
        None => InvokeProof::unsigned(),
        Some((key, id)) => {
            let offer = connection.challenge(args.timeout).await.map_err(failed)?;
            sign(args, key, &id, dialled, &offer)?
        }
    };
    let request = request(args, &proof).context("cannot write the request as JSON")?;
    connection.invoke(&request, args.timeout).await.map_err(failed)
}

/// The request's members; serde_json's map is sorted, and so is what is signed.
fn request(args: &Args, proof: &InvokeProof) -> Result<String, serde_json::Error> {
    let mut request: Map<String, Value> = args.json.iter().cloned().collect();
    request.insert("cmd".to_owned(), Value::String(args.cmd.clone()));
    request.insert(PROOF.to_owned(), serde_json::to_value(proof)?);
    serde_json::to_string(&request)
}

fn sign(
    args: &Args,
    key: &PrivateKey,
    id: &str,
    dialled: SocketAddrV4,
    offer: &str,
) -> Result<InvokeProof, Exit> {
    let offer: Offer = serde_json::from_str(offer).context("the agent's challenge is not JSON")?;
    let challenge =
        offer.challenge().ok_or_else(|| anyhow!("the agent's challenge is of an unknown version"))?;
    let members: Map<String, Value> = args.json.iter().cloned().collect();
    let mut texts = Vec::new();
    for (name, value) in &members {
        texts.push((name.as_str(), to_raw_value(value).context("cannot write a member as JSON")?));
    }
    let members: Vec<_> = texts.iter().map(|(name, value)| (*name, value.get())).collect();
    let order =
        SignedOrder { challenge: &challenge, address: dialled, agent: id, cmd: &args.cmd, members: &members };
    Ok(InvokeProof::signed(&challenge, &key.sign(&order)))
}

/// Whom to dial, and the first of its addresses.
async fn resolve(target: &str) -> Result<(MasterTarget, SocketAddrV4), Exit> {
    let (host, port) =
        address::host_and_port(target).map_err(|error| Exit::Usage(format!("TARGET: {error}")))?;
    let port = port.unwrap_or_else(|| {
        let ours = std::env::var("KONTROL_PORT").ok();
        ours.and_then(|port| port.parse().ok()).unwrap_or(8000)
    });
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let mut found = found.with_context(|| format!("cannot resolve {host}"))?;
    let v4 = found.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    let v4 = v4.ok_or_else(|| anyhow!("{host} has no IPv4 address"))?;
    Ok((MasterTarget { host: host.clone(), port, dialect: Dialect::ZeroRpc }, v4))
}

fn agent_id(args: &Args, ip: Ipv4Addr) -> Result<String, Exit> {
    if let Some(id) = args.id.as_ref().filter(|id| !id.is_empty()) {
        return Ok(id.clone());
    }
    let advice = "a signed command is made out to one agent; name it with --id";
    let pods = CallbackSnapshot::of_callback().map_err(|error| Exit::Usage(format!("{error}; {advice}")))?;
    pods.id_at(ip).map_err(|error| Exit::Usage(format!("{error}; {advice}")))
}

/// Prints the answer; an error if the command failed.
fn print(answer: &Option<String>) -> Result<(), Exit> {
    let Some(text) = answer else {
        return Err(Exit::Failed(anyhow!(
            "no answer: there is no agent at that address, or it takes no commands"
        )));
    };
    // The original's agents answer with the bare output.
    let reply = serde_json::from_str(text).unwrap_or_else(|_| Reply {
        stdout: text.clone(),
        exit: 0,
        truncated: false,
    });
    let newline = if reply.stdout.is_empty() { "" } else { "\n" };
    output::print(&format!("{}{newline}", reply.stdout))?;
    if reply.truncated {
        tracing::warn!("the command wrote more than fits: this is the beginning of its output");
    }
    match reply.exit {
        0 => Ok(()),
        code => Err(Exit::Failed(anyhow!("the command failed there with exit code {code}"))),
    }
}
