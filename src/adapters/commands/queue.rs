//! Takes commands: checks the signature and the allow-list, and runs one command at a time in order of arrival.
//!
//! A signature is checked on arrival, not before the run. An accepted command runs to its end even if the caller hangs
//! up, because a half-healed pod is worse than an unread answer.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{SocketAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    challenges::{Challenges, VALID},
    request::{InvokeProof, InvokeRequest, Offer, PROOF, Reply},
    signing::{Challenge, PublicKey, SignedOrder, VERSION},
};
use crate::{
    adapters::{
        process::{self, Ended, Finished, Job, ProcessError, VARIABLE_LIMIT, resolve_user},
        wire::{
            Refusal,
            RefusalKind::{Forbidden, Malformed, TooMuch, Unavailable},
        },
    },
    clock::Clock,
    config::{CommandLine, Identity, InvokePolicy, RunAs},
    exit::Exit,
};

/// Of one command.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most commands that wait or run.
const QUEUE: usize = 32;
/// The most bytes of output that are kept: as JSON they fit a message of 1 MiB even if every byte is escaped.
const OUTPUT: usize = 160 << 10;

/// Which commands are accepted.
enum CommandAccess {
    Closed,
    Signed(PublicKey),
    Open,
}

/// The commands of one agent.
pub struct CommandQueue {
    access: CommandAccess,
    /// The allow-list: command lines by name; `None`: any command line.
    allow: Option<BTreeMap<String, String>>,
    /// The address and id that a signature must name.
    address: SocketAddrV4,
    id: String,
    user: RunAs,
    home: Option<OsString>,
    clock: Clock,
    challenges: Mutex<Challenges>,
    slots: Arc<Semaphore>,
    turn: Arc<Turn<()>>,
    stop: CancellationToken,
}

/// A command that is to run.
struct AcceptedCommand {
    line: String,
    /// The answer is a [`Reply`], not the bare output.
    structured: bool,
}

impl CommandQueue {
    /// For the agent `identity` that listens on `port`. Reads the public key and the allow-list.
    ///
    /// # Errors
    /// [`Exit::Usage`] when one of these files, or the user, cannot be used.
    pub fn open(
        identity: &Identity,
        port: u16,
        policy: &InvokePolicy,
        user: &RunAs,
        clock: Clock,
    ) -> Result<Self, Exit> {
        let usage = |error: &dyn std::fmt::Display| Exit::Usage(error.to_string());
        let (access, allow) = match policy {
            InvokePolicy::Off => (CommandAccess::Closed, None),
            InvokePolicy::Signed { public_key, allow } => (
                CommandAccess::Signed(PublicKey::read(public_key).map_err(|error| usage(&error))?),
                allow.as_deref(),
            ),
            InvokePolicy::Open(allow) => {
                tracing::warn!(
                    "KONTROL_INVOKE=open: every client that reaches this port may run commands here"
                );
                (CommandAccess::Open, allow.as_deref())
            }
        };
        let allow = allow.map(allow_list).transpose()?;
        let mut home = None;
        if !matches!(access, CommandAccess::Closed)
            && resolve_user(user).map_err(|error| usage(&error))?.is_none()
        {
            home = std::env::var_os("HOME");
        }
        Ok(Self {
            access,
            allow,
            address: SocketAddrV4::new(identity.ip, port),
            id: identity.id.clone(),
            user: user.clone(),
            home,
            clock,
            challenges: Mutex::default(),
            slots: Arc::new(Semaphore::new(QUEUE)),
            turn: Arc::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Issues a challenge, as JSON text.
    ///
    /// # Errors
    /// [`Refusal`] where commands are not signed, and when too many challenges are outstanding.
    pub fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal> {
        match self.access {
            CommandAccess::Closed => return Err(closed()),
            CommandAccess::Open => {
                return Err(
                    Forbidden.because("this agent takes commands without a signature; leave the key away")
                );
            }
            CommandAccess::Signed(_) => {}
        }
        let mut challenge: Challenge = [0; 32];
        getrandom::fill(&mut challenge).map_err(|error| Unavailable.because(error.to_string()))?;
        let mut challenges = self.challenges.lock();
        let issued = challenges.issue(challenge, peer.ip(), self.clock.now());
        issued.map_err(|_| {
            TooMuch.because("too many challenges are outstanding; try again in a few seconds")
        })?;
        serde_json::to_string(&Offer::of(&challenge)).map_err(|error| Unavailable.because(error.to_string()))
    }

    /// Runs a command after those that arrived before it; `None` when the request has none.
    pub fn invoke(
        &self,
        peer: SocketAddr,
        raw: Bytes,
    ) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        let accepted = match self.accept(&raw) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Box::pin(async { Ok(None) }),
            Err(refusal) => {
                tracing::warn!(%peer, "a command was refused: {refusal}");
                return Box::pin(async { Err(refusal) });
            }
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let refusal = TooMuch.because("too many commands wait here already; try again later");
            return Box::pin(async { Err(refusal) });
        };
        let (job, structured) = (self.job(accepted.line, raw), accepted.structured);
        let stop = self.stop.child_token();
        // Queued here, not in the task, because tasks may start in any order.
        let mut turn = Box::pin(Arc::clone(&self.turn).lock_owned());
        let acquired = (&mut turn).now_or_never();
        let run = tokio::spawn(async move {
            let _slot = slot;
            let _turn = match acquired {
                Some(turn) => turn,
                None => turn.await,
            };
            tracing::info!(%peer, command = short(&job.command), "running a command");
            answer(process::run(job, stop).await, structured)
        });
        Box::pin(async { run.await.unwrap_or_else(|error| Err(Unavailable.because(error.to_string()))) })
    }

    /// Checks a request on arrival.
    fn accept(&self, raw: &[u8]) -> Result<Option<AcceptedCommand>, Refusal> {
        let request = InvokeRequest::read(raw)
            .map_err(|error| Malformed.because(format!("the request is no command: {error}")))?;
        let Some(cmd) = request.get("cmd") else { return Ok(None) };
        let cmd: String = serde_json::from_str(cmd)
            .map_err(|_| Malformed.because("the member \"cmd\" must be a string"))?;
        let proof: Option<InvokeProof> = match request.get(PROOF).map(serde_json::from_str).transpose() {
            Ok(Some(InvokeProof { v, .. })) if v != VERSION => {
                return Err(Malformed
                    .because(format!("version {v} of signed commands is not known here, {VERSION} is")));
            }
            Ok(proof) => proof,
            Err(error) => {
                return Err(Malformed.because(format!("the member \"{PROOF}\" is malformed: {error}")));
            }
        };
        match &self.access {
            CommandAccess::Closed => return Err(closed()),
            CommandAccess::Signed(key) => self.verify(key, &request, &cmd, proof.as_ref())?,
            CommandAccess::Open => {}
        }
        let line = match &self.allow {
            None => cmd,
            Some(allow) => match allow.get(&cmd) {
                Some(line) => line.clone(),
                None => {
                    return Err(Forbidden
                        .because("no such command in this agent's allow-list (KONTROL_INVOKE_ALLOW)"));
                }
            },
        };
        Ok(Some(AcceptedCommand { line, structured: proof.is_some() }))
    }

    fn verify(
        &self,
        key: &PublicKey,
        request: &InvokeRequest<'_>,
        cmd: &str,
        proof: Option<&InvokeProof>,
    ) -> Result<(), Refusal> {
        let Some((challenge, signature)) = proof.and_then(InvokeProof::parts) else {
            return Err(Forbidden
                .because("this agent runs signed commands only; `kubervisor invoke --key-file` signs them"));
        };
        let mut challenges = self.challenges.lock();
        if !challenges.redeem(&challenge, self.clock.now()) {
            let valid = VALID.as_secs();
            return Err(Forbidden.because(format!(
                "this challenge was used before, is older than {valid} s, or is not ours"
            )));
        }
        let members = request.others();
        let order = SignedOrder {
            challenge: &challenge,
            address: self.address,
            agent: &self.id,
            cmd,
            members: &members,
        };
        if !key.verifies(&order, &signature) {
            return Err(Forbidden.because(format!(
                "the signature does not fit: it must be made with our master's key, for the agent {} at {}",
                self.id, self.address
            )));
        }
        Ok(())
    }

    fn job(&self, line: String, raw: Bytes) -> Job {
        let mut environment: Vec<(OsString, OsString)> = vec![("LANG".into(), "C.UTF-8".into())];
        environment.extend(self.home.clone().map(|home| ("HOME".into(), home)));
        if let Ok(input) = std::str::from_utf8(&raw)
            && "INPUT=".len() + input.len() <= VARIABLE_LIMIT
        {
            environment.push(("INPUT".into(), input.into()));
        }
        Job {
            clear_environment: true,
            environment,
            stdin: raw,
            timeout: TIMEOUT,
            stdout_limit: OUTPUT,
            user: self.user.clone(),
            limits: process::ResourceLimits::for_invoke(),
            ..Job::new("invoke", CommandLine::Shell(line))
        }
    }
}

impl Drop for CommandQueue {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn answer(run: Result<Finished, ProcessError>, structured: bool) -> Result<Option<String>, Refusal> {
    let finished = run.map_err(|error| Unavailable.because(error.to_string()))?;
    let text = String::from_utf8_lossy(&finished.stdout);
    let stdout = text.strip_suffix('\n').unwrap_or(&text).to_owned();
    if !structured {
        return Ok(Some(stdout));
    }
    let exit = match finished.ended {
        Ended::Exited(code) => code,
        Ended::Signalled(signal) => 128 + signal,
        Ended::TimedOut => 124,
        Ended::Cancelled => return Err(Unavailable.because("the agent stops, and ended the command")),
    };
    let reply = Reply { stdout, exit, truncated: finished.truncated };
    serde_json::to_string(&reply).map(Some).map_err(|error| Unavailable.because(error.to_string()))
}

/// Reads an allow-list: a YAML map from names to command lines.
fn allow_list(path: &Path) -> Result<BTreeMap<String, String>, Exit> {
    let refuse = |what: &dyn std::fmt::Display| {
        let path = path.display();
        Exit::Usage(format!(
            "KONTROL_INVOKE_ALLOW: {path}: {what}; write a YAML map of names to command lines"
        ))
    };
    let text = fs::read_to_string(path).map_err(|error| refuse(&error))?;
    serde_saphyr::from_str(&text).map_err(|error| refuse(&error))
}

fn short(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(line) => line.chars().take(200).collect(),
        CommandLine::Words(words) => words.join(" "),
    }
}

fn closed() -> Refusal {
    Forbidden.because("commands are off on this agent; KONTROL_INVOKE_PUBKEY_FILE turns signed ones on")
}
