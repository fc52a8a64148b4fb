//! A job's three pipes: fed and drained concurrently, with a bound on what is kept and logged.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
    time::Instant,
};

use super::spawn::Ends;

/// Bytes per read.
const CHUNK: usize = 64 << 10;

/// Bytes of one logged line; the rest is cut.
const LINE_LIMIT: usize = 2 << 10;

/// Lines of stderr that are logged in a burst, and per second after it; the rest is counted.
const BURST: u32 = 200;
const PER_SECOND: u32 = 50;

/// Bytes of the last line that are kept for messages.
const COMPLAINT_LIMIT: usize = 300;

/// Our ends of the pipes, registered with the runtime.
pub(super) struct Pipes {
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
}

impl Pipes {
    pub(super) fn new(ends: Ends) -> io::Result<Self> {
        Ok(Self {
            stdin: Sender::from_owned_fd(ends.stdin)?,
            stdout: Receiver::from_owned_fd(ends.stdout)?,
            stderr: Receiver::from_owned_fd(ends.stderr)?,
        })
    }

    /// Feeds and drains until all pipes are closed. Cancel-safe: what was read is in `kept` and `log`.
    pub(super) async fn pump(self, input: Bytes, kept: &mut Captured, log: &mut Log) {
        let feed = async {
            let mut pipe = self.stdin;
            // An error means that the command closed its stdin, which it may.
            let _ = pipe.write_all(&input).await;
        };
        let keep = drain(self.stdout, |chunk| kept.take(chunk));
        let log = drain(self.stderr, |chunk| log.take(chunk));
        tokio::join!(feed, keep, log);
    }
}

async fn drain(mut pipe: Receiver, mut sink: impl FnMut(&[u8])) {
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        chunk.reserve(CHUNK);
        match pipe.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(_) => sink(&chunk),
        }
    }
}

/// The first `limit` bytes of stdout.
pub(super) struct Captured {
    bytes: BytesMut,
    limit: usize,
    truncated: bool,
}

impl Captured {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit, truncated: false }
    }

    fn take(&mut self, chunk: &[u8]) {
        let room = (self.limit - self.bytes.len()).min(chunk.len());
        self.bytes.extend_from_slice(&chunk[..room]);
        self.truncated |= room < chunk.len();
    }

    pub(super) fn into_parts(self) -> (Bytes, bool) {
        (self.bytes.freeze(), self.truncated)
    }
}

/// Logs stderr line by line at a bounded rate.
pub(super) struct Log {
    job: &'static str,
    line: Vec<u8>,
    overlong: bool,
    budget: LogBudget,
    suppressed: u64,
    last: String,
}

impl Log {
    pub(super) fn new(job: &'static str) -> Self {
        Self {
            job,
            line: Vec::new(),
            overlong: false,
            budget: LogBudget { tokens: BURST, since: Instant::now() },
            suppressed: 0,
            last: String::new(),
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = (LINE_LIMIT - self.line.len()).min(text.len());
            self.line.extend_from_slice(&text[..room]);
            self.overlong |= room < text.len();
            if complete {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let overlong = std::mem::take(&mut self.overlong);
        if !self.line.is_empty() {
            if self.budget.spend() {
                let line = readable(&self.line);
                tracing::info!(job = self.job, stream = "stderr", cut = overlong, "{line}");
            } else {
                self.suppressed += 1;
            }
            self.last.clear();
            self.last.push_str(&readable(&self.line[..self.line.len().min(COMPLAINT_LIMIT)]));
            self.line.clear();
        }
    }

    /// Logs an unfinished line and the number of lines that were not logged; returns the last line.
    pub(super) fn finish(mut self) -> String {
        self.end_line();
        if self.suppressed > 0 {
            let Self { job, suppressed, .. } = self;
            tracing::warn!(job, suppressed, "lines of stderr were not logged: too many");
        }
        self.last
    }
}

/// Replaces control characters, which could forge log lines or move a terminal's cursor.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

struct LogBudget {
    tokens: u32,
    since: Instant,
}

impl LogBudget {
    fn spend(&mut self) -> bool {
        let second = Duration::from_secs(1);
        if self.tokens == 0 && self.since.elapsed() >= second {
            self.since = Instant::now();
            self.tokens = PER_SECOND;
        }
        let spent = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_output_ends_at_the_limit_and_is_marked_as_truncated() {
        let mut kept = Captured::new(5);
        kept.take(b"abc");
        kept.take(b"de");
        assert!(!kept.truncated);
        kept.take(b"f");
        let (bytes, truncated) = kept.into_parts();
        assert_eq!((&bytes[..], truncated), (&b"abcde"[..], true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_on_stderr_is_counted_after_the_burst_and_flows_again_later() {
        let mut log = Log::new("test");
        for _ in 0..BURST + 7 {
            log.take(b"noise\n");
        }
        assert_eq!(log.suppressed, 7);
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..=PER_SECOND {
            log.take(b"noise\n");
        }
        assert_eq!(log.suppressed, 8);
        log.take(b"the end");
        assert_eq!(log.finish(), "the end");
    }

    #[test]
    fn a_line_that_never_ends_takes_bounded_memory_and_cannot_forge_another() {
        let mut log = Log::new("test");
        for _ in 0..1000 {
            log.take(&[b'x'; 4096]);
        }
        assert_eq!(log.line.len(), LINE_LIMIT);
        assert!(log.overlong);
        log.take(b"\n\x1b[2J\xff\n");
        assert_eq!(log.finish(), "\u{fffd}[2J\u{fffd}");
    }
}
