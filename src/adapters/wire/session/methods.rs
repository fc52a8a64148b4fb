//! The methods of a ZeroRPC connection: parses an event, calls the handler, writes the answer.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{
        Answer, Refusal, RefusalKind,
        calls::{CallReply, Caller, Calls},
        connection::{ConnectionEnd, ServerState},
        limits::ByteShare,
        metrics::{DialectLabel, MethodLabel},
        zerorpc::{self, ZeroRpcEvent},
    },
    Session,
};

/// The service name in the answers of `_zerorpc_ping`, `_zerorpc_name` and `_zerorpc_inspect`.
const NAME: &str = "kubervisor";

/// The methods with their arguments and documentation, for `_zerorpc_list` and `_zerorpc_inspect`.
const METHODS: [(&str, &[&str], &str); 4] = [
    ("ping", &["raw"], "Takes a keepalive: raw is its JSON."),
    ("invoke", &["raw"], "Runs a command and returns its output: raw is a JSON object with a member cmd."),
    ("kubervisor_challenge", &[], "Returns a challenge for a signed command, as JSON."),
    ("kubervisor_forward", &["raw"], "Takes a keepalive that another master forwards."),
];

impl<S> Session<S> {
    /// Handles one message.
    pub(super) fn handle(&mut self, envelope: &[u8], payload: &[u8]) -> Result<(), ConnectionEnd> {
        let event = ZeroRpcEvent::parse(payload)?;
        if event.response_to.is_some() {
            // A caller's heartbeat, or a late event of a finished call.
            return Ok(());
        }
        let caller = Caller { envelope, id: event.id };
        let count = |method| self.shared.metrics.request(DialectLabel::ZeroRpc, method);
        match event.name {
            b"ping" => {
                count(MethodLabel::Ping);
                let form = if event.takes_refusals { KeepaliveForm::OfAgent } else { KeepaliveForm::Own };
                self.keepalive(caller, &event, form);
            }
            b"kubervisor_forward" => {
                count(MethodLabel::Forward);
                self.keepalive(caller, &event, KeepaliveForm::Forwarded);
            }
            b"invoke" => {
                count(MethodLabel::Invoke);
                self.invoke(caller, &event);
            }
            b"kubervisor_challenge" => {
                count(MethodLabel::Challenge);
                let reply = match self.shared.handler.challenge(self.peer) {
                    Ok(text) => CallReply::Text(text),
                    Err(refusal) => error_reply(self.shared.count(refusal)),
                };
                self.answer(caller, &reply);
            }
            b"_zpc_hb" | b"_zpc_more" => {}
            name => self.builtin(caller, name),
        }
        Ok(())
    }

    fn answer(&mut self, caller: Caller<'_>, reply: &CallReply) {
        caller.answer(reply, &mut self.out, &mut self.ids);
    }

    /// Answers when `work` ends; the caller gets heartbeats until then.
    fn answer_later(
        &mut self,
        caller: Caller<'_>,
        share: Option<ByteShare>,
        work: impl Future<Output = CallReply> + Send + 'static,
    ) {
        let every = self.shared.limits.heartbeat;
        self.calls.get_or_insert_with(|| Box::new(Calls::new(every))).add(caller, share, work);
    }

    fn keepalive(&mut self, caller: Caller<'_>, event: &ZeroRpcEvent<'_>, kind: KeepaliveForm) {
        let Some(raw) = event.sole_text() else { return self.wrong_arguments(caller, event, kind) };
        let answer = match kind {
            KeepaliveForm::Own | KeepaliveForm::OfAgent => self.shared.handler.ping(self.peer, raw),
            KeepaliveForm::Forwarded => self.shared.handler.forwarded(self.peer, raw),
        };
        match answer {
            Answer::Now(result) => {
                let reply = kind.reply(result, &self.shared);
                self.answer(caller, &reply);
            }
            Answer::Later(work) => {
                let shared = Arc::clone(&self.shared);
                self.answer_later(caller, None, async move { kind.reply(work.await, &shared) });
            }
        }
    }

    /// One argument that is no text is a malformed keepalive; another number of arguments is an `ERR`.
    fn wrong_arguments(&mut self, caller: Caller<'_>, event: &ZeroRpcEvent<'_>, kind: KeepaliveForm) {
        let reply = if event.arguments(1).is_some() {
            let refusal = RefusalKind::Malformed.because("the argument must be a string");
            kind.reply(Err(refusal), &self.shared)
        } else {
            wrong_count(&self.shared)
        };
        self.answer(caller, &reply);
    }

    fn invoke(&mut self, caller: Caller<'_>, event: &ZeroRpcEvent<'_>) {
        let Some(raw) = event.sole_text() else {
            return self.wrong_arguments(caller, event, KeepaliveForm::Own);
        };
        let mut share = self.shared.held_bytes.open();
        if !share.set(raw.len()) {
            let refusal = RefusalKind::TooMuch.because("too many commands are waiting here; try again later");
            let reply = error_reply(self.shared.count(refusal));
            return self.answer(caller, &reply);
        }
        let work = self.shared.handler.invoke(self.peer, Bytes::copy_from_slice(raw));
        let shared = Arc::clone(&self.shared);
        self.answer_later(caller, Some(share), async move {
            match work.await.map_err(|refusal| shared.count(refusal)) {
                Ok(Some(text)) => CallReply::Text(text),
                Ok(None) => CallReply::Nothing,
                Err(Refusal { kind: RefusalKind::Malformed | RefusalKind::NotServed, .. }) => {
                    CallReply::Nothing
                }
                Err(refusal) => error_reply(refusal),
            }
        });
    }

    fn builtin(&mut self, caller: Caller<'_>, name: &[u8]) {
        let write: fn(&mut Vec<u8>) = match name {
            b"_zerorpc_ping" => |out| {
                out.extend_from_slice(&[0x91, 0x92]);
                zerorpc::write_str(out, "pong");
                zerorpc::write_str(out, NAME);
            },
            b"_zerorpc_name" => |out| zerorpc::write_text_result(out, NAME),
            b"_zerorpc_list" => write_list,
            b"_zerorpc_inspect" => write_inspection,
            _ => {
                self.shared.metrics.request(DialectLabel::ZeroRpc, MethodLabel::Unknown);
                self.shared.metrics.refuse("unknown_method");
                let message = String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
                return self.answer(caller, &CallReply::Error { name: "NameError", message });
            }
        };
        self.shared.metrics.request(DialectLabel::ZeroRpc, MethodLabel::Builtin);
        caller.event(&mut self.out, &mut self.ids, "OK", write);
    }
}

#[derive(Clone, Copy)]
enum KeepaliveForm {
    Own,
    OfAgent,
    Forwarded,
}

impl KeepaliveForm {
    /// A client of the original gets None in any case; our agents and forwarding masters get the refusal.
    fn reply(self, result: Result<(), Refusal>, shared: &ServerState) -> CallReply {
        match (result, self) {
            (Ok(()), _) => CallReply::Nothing,
            (Err(refusal), Self::Own) => {
                shared.count(refusal);
                CallReply::Nothing
            }
            (Err(refusal), Self::OfAgent | Self::Forwarded) => error_reply(shared.count(refusal)),
        }
    }
}

fn error_reply(refusal: Refusal) -> CallReply {
    CallReply::Error { name: refusal.kind.label(), message: refusal.message }
}

fn wrong_count(shared: &ServerState) -> CallReply {
    shared.metrics.refuse(RefusalKind::Malformed.label());
    CallReply::Error { name: "TypeError", message: "takes exactly one argument: a string with JSON".into() }
}

/// `[[name, ...]]`
fn write_list(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x91, 0x90 | METHODS.len() as u8]);
    for (name, _, _) in METHODS {
        zerorpc::write_str(out, name);
    }
}

/// `[{"name": ..., "methods": {name: {"args": [{"name": ...}], "doc": ...}}}]`
fn write_inspection(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x91, 0x82]);
    zerorpc::write_str(out, "name");
    zerorpc::write_str(out, NAME);
    zerorpc::write_str(out, "methods");
    out.push(0x80 | METHODS.len() as u8);
    for (name, args, doc) in METHODS {
        zerorpc::write_str(out, name);
        out.push(0x82);
        zerorpc::write_str(out, "args");
        out.push(0x90 | args.len() as u8);
        for arg in args {
            out.push(0x81);
            zerorpc::write_str(out, "name");
            zerorpc::write_str(out, arg);
        }
        zerorpc::write_str(out, "doc");
        zerorpc::write_str(out, doc);
    }
}
