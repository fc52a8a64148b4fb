//! A fleet's keepalives and the connections that carry them, as cheap as a client can be: what is
//! measured or tested is the server. All keepalives have the same length, so replies can be counted in bytes.
#![allow(dead_code, unreachable_pub, reason = "several binaries share it, none uses all")]

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use kubervisor::{
    adapters::wire::{zerorpc, zmtp},
    decide::key::Key,
};

/// One pod: its number says which, its life which process of it, its load what it reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Names it; below a million.
    pub number: u32,
    /// Changes its nonce.
    pub life: u32,
    /// Changes its payload.
    pub load: u32,
}

impl Pod {
    /// The pod of that number, as it starts.
    pub fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Its address: every part has three digits.
    pub fn address(self) -> Ipv4Addr {
        let part = |by: u32| 100 + u8::try_from(self.number / by % 100).unwrap_or(0);
        Ipv4Addr::new(10, part(10_000), part(100), part(1))
    }

    /// What it sends, with a payload of 100 bytes.
    pub fn keepalive(self) -> String {
        self.say("")
    }

    /// Its last word.
    pub fn farewell(self) -> String {
        self.say(r#","down":true"#)
    }

    fn say(self, more: &str) -> String {
        let Self { number, life, load } = self;
        let key = Key::of(self.address());
        let (load, note) = (10_000_000 + load, "x".repeat(38));
        let payload = format!(r#"{{"load":{load},"state":"ready","version":"1.24.7","note":"{note}"}}"#);
        format!(
            r#"{{"app":"shop","id":"shop-{number:06}","ip":"{}","key":"{key}","nonce":"{life:08x}{number:08x}","payload":{payload},"role":"web"{more}}}"#,
            self.address()
        )
    }
}

/// A ZeroRPC `ping` with that keepalive, as a client sends it.
pub fn request(keepalive: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(keepalive.len() + 96);
    zmtp::write_message(&mut out, &zmtp::DELIMITER, |out| {
        zerorpc::write_event(out, &[b'7'; 32], None, "ping", |out| {
            zerorpc::write_text_result(out, keepalive)
        });
    });
    out
}

/// Bytes of the answer to a [`request`]: None, whatever became of it (ask the metrics).
pub fn reply_length() -> usize {
    let mut id = vec![0xc4, 32];
    id.extend([b'7'; 32]);
    let mut out = Vec::new();
    zmtp::write_message(&mut out, &zmtp::DELIMITER, |out| {
        zerorpc::write_event(out, &[b'8'; 32], Some(&id), "OK", zerorpc::write_nil_result);
    });
    out.len()
}

/// A connection, and how many bytes of answers it owes us.
pub struct Link {
    stream: TcpStream,
    owed: usize,
}

impl Link {
    /// Connects; no handshake.
    pub fn raw(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, owed: 0 })
    }

    /// Connects and shakes hands as a ZeroRPC client.
    pub fn zerorpc(to: SocketAddr) -> io::Result<Self> {
        let mut link = Self::raw(to)?;
        link.send(&zmtp::greeting(), zmtp::GREETING_LEN)?;
        link.send(&zmtp::ready(zmtp::LocalSide::Client), zmtp::ready(zmtp::LocalSide::Server).len())?;
        link.settle()?;
        Ok(link)
    }

    /// Sends bytes that will be answered by `owed` bytes.
    pub fn send(&mut self, bytes: &[u8], owed: usize) -> io::Result<()> {
        self.owed += owed;
        self.stream.write_all(bytes)
    }

    /// Reads `bytes` of what is owed.
    pub fn take(&mut self, bytes: usize) -> io::Result<()> {
        let mut scratch = [0; 1 << 16];
        let mut left = bytes.min(self.owed);
        self.owed -= left;
        while left > 0 {
            let most = left.min(scratch.len());
            match self.stream.read(&mut scratch[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        Ok(())
    }

    /// Reads all that is owed.
    pub fn settle(&mut self) -> io::Result<()> {
        self.take(self.owed)
    }

    /// One keepalive and its answer.
    pub fn ping(&mut self, keepalive: &str) -> io::Result<()> {
        self.send(&request(keepalive), reply_length())?;
        self.settle()
    }

    /// Many keepalives in one go, answers included; at most a few hundred, so that no buffer fills up.
    pub fn ping_all(&mut self, keepalives: impl Iterator<Item = String>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for keepalive in keepalives {
            bytes.extend(request(&keepalive));
            count += 1;
        }
        self.send(&bytes, count * reply_length())?;
        self.settle()
    }

    /// One request of any protocol; returns how many bytes answered it (all must come in one piece).
    pub fn learn(&mut self, request: &[u8]) -> io::Result<usize> {
        self.stream.write_all(request)?;
        let mut scratch = [0; 4096];
        self.stream.read(&mut scratch)
    }
}
