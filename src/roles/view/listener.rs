//! A listener for pages: so many connections at a time, no peer that neither reads nor writes, and TLS where it is set.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use crate::admin::Peer;

/// Connections at a time; the others wait in the kernel.
const CONNECTIONS: usize = 512;
/// A connection on which nothing moves for so long is closed. Open pages get a line every 15 s.
const STALLED: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often the certificate's files are read again.
const CERTIFICATE_AGE: Duration = Duration::from_secs(60);
/// After a failed `accept`, such as one without a free descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub struct PageListener {
    tcp: TcpListener,
    tls: Option<TlsFiles>,
    free: Arc<Semaphore>,
    handshakes: JoinSet<Option<(PageStream, SocketAddr)>>,
}

/// A certificate with its key, read again when it is older than a minute.
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ServerConfig>,
    read: Instant,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or has no PEM of its kind.
    #[error("{file} has no usable {kind} in PEM", file = .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// `certificate` or `private key`.
        kind: &'static str,
        /// The cause.
        source: pem::Error,
    },
    /// Certificate and key do not belong together.
    #[error("the certificate and the private key cannot be used together")]
    Mismatch(#[from] rustls::Error),
}

impl TlsFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let config = Arc::new(config(&certificate, &key)?);
        Ok(Self { certificate, key, config, read: Instant::now() })
    }

    /// The newest certificate; a file that became unusable leaves the last one in force.
    fn acceptor(&mut self) -> TlsAcceptor {
        if self.read.elapsed() >= CERTIFICATE_AGE {
            self.read = Instant::now();
            match config(&self.certificate, &self.key) {
                Ok(config) => self.config = Arc::new(config),
                Err(error) => tracing::warn!(%error, "the view's last certificate stays in force"),
            }
        }
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn config(certificate: &PathBuf, key: &PathBuf) -> Result<ServerConfig, CertificateError> {
    let unreadable = |file: &PathBuf, kind| {
        let file = file.clone();
        move |source| CertificateError::Unreadable { file, kind, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.and_then(|chain: Vec<CertificateDer<'static>>| match chain.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(chain),
    });
    let chain = chain.map_err(unreadable(certificate, "certificate"))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key, "private key"))?;
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private)?)
}

impl PageListener {
    /// Accepts from `tcp`, with TLS if there is a certificate.
    pub fn new(tcp: TcpListener, tls: Option<TlsFiles>) -> Self {
        Self { tcp, tls, free: Arc::new(Semaphore::new(CONNECTIONS)), handshakes: JoinSet::new() }
    }
}

/// The next connection, once there is room for one more; `None` after a failure and a pause.
async fn connection(
    tcp: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let permit = Arc::clone(free).acquire_owned().await.ok()?;
    match tcp.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::debug!(%error, "a connection to the pages was not accepted");
            sleep(PAUSE).await;
            None
        }
    }
}

impl Connected<IncomingStream<'_, PageListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, PageListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Listener for PageListener {
    type Io = PageStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PageStream, SocketAddr) {
        let Self { tcp, tls, free, handshakes } = self;
        loop {
            tokio::select! {
                Some(ended) = handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
                Some((stream, peer, permit)) = connection(tcp, free) => {
                    let Some(tls) = tls else {
                        return (PageStream::new(Either::Left(stream), permit), peer);
                    };
                    let handshake = timeout(HANDSHAKE, tls.acceptor().accept(stream));
                    handshakes.spawn(async move {
                        let stream = handshake.await.ok()?.ok()?;
                        Some((PageStream::new(Either::Right(stream), permit), peer))
                    });
                }
                else => sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A connection that fails once nothing has moved for [`STALLED`].
pub struct PageStream {
    io: Either<TcpStream, TlsStream<TcpStream>>,
    stalled: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl PageStream {
    fn new(io: Either<TcpStream, TlsStream<TcpStream>>, permit: OwnedSemaphorePermit) -> Self {
        Self { io, stalled: Box::pin(sleep(STALLED)), _permit: permit }
    }

    /// `polled`, or an error when it has to wait and nothing has moved for too long.
    fn moved<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Ok(value)) => {
                self.stalled.as_mut().reset(Instant::now() + STALLED);
                Poll::Ready(Ok(value))
            }
            Poll::Pending if self.stalled.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            other => other,
        }
    }
}

impl AsyncRead for PageStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.moved(cx, polled)
    }
}

impl AsyncWrite for PageStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.moved(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
