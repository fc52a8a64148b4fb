//! What this machine and these libraries can do without us: an echo that answers requests of a known
//! length, hyper that answers 200, a process that is started and ends.

use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{cores, running};

/// A yardstick's server: this program, started again.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: SocketAddr,
}

impl Server {
    pub(crate) fn start(role: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("--role").args(role).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = cores::on_the_first(|| command.spawn())??;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { port: line.trim().parse().with_context(|| format!("no address: {line:?}"))?, child })
    }

    pub(crate) fn processor_time(&self) -> io::Result<Duration> {
        running::processor_time(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Answers every `request` bytes with `reply` bytes.
pub(crate) fn echo(request: usize, reply: usize) -> anyhow::Result<()> {
    serve(move |stream| async move {
        let _peer_gone = echo_on(stream, request, reply).await;
    })
}

async fn echo_on(mut stream: TcpStream, request: usize, reply: usize) -> io::Result<()> {
    let (mut buffer, mut rest) = (vec![0; 64 << 10], 0);
    let answers = vec![b'.'; (buffer.len() / request + 1) * reply];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        rest += read;
        stream.write_all(&answers[..rest / request * reply]).await?;
        rest %= request;
    }
}

/// hyper with the same settings as ours; reads the body, answers 200.
pub(crate) fn hyper() -> anyhow::Result<()> {
    serve(|stream| async move {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(16 << 10).pipeline_flush(true);
        let _peer_gone = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    Ok(Response::new(Full::default()))
}

/// The same runtime as the product's, a task for each connection.
fn serve<F>(connection: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream));
        }
    })
}
