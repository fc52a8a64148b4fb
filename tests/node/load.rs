//! A client that asks at a steady rate and keeps each answer with its pod and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::cluster::until;

/// Longer than any answer takes; a lost packet is sent again after 1 s and 3 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// One request and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When its new connection stood, or when it was sent on an open one; without a connection, when that was tried.
    pub(crate) began: Instant,
    /// The status and the pod that answered.
    pub(crate) outcome: Result<(u16, String), String>,
}

impl Answer {
    fn failed(&self) -> bool {
        !matches!(self.outcome, Ok((200, _)))
    }

    /// Whether it is from this pod.
    pub(crate) fn is_from(&self, pod: &str) -> bool {
        matches!(&self.outcome, Ok((_, name)) if name == pod)
    }
}

/// The answers of a load that goes on.
pub(crate) type Shared = Arc<Mutex<Answers>>;

/// A load that goes on until it is ended.
pub(crate) struct Load {
    pub(crate) answers: Shared,
    requests: Arc<Mutex<JoinSet<()>>>,
    ticker: AbortHandle,
}

impl Load {
    /// Asks `address` so many times each second, each time on a new connection.
    pub(crate) fn start(address: SocketAddr, per_second: u32) -> Self {
        let answers = Arc::new(Mutex::new(Answers::default()));
        let requests = Arc::new(Mutex::new(JoinSet::new()));
        let ticker = tokio::spawn({
            let (answers, requests) = (Arc::clone(&answers), Arc::clone(&requests));
            async move {
                let mut ticks = interval(Duration::from_secs(1) / per_second);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                for number in 0_usize.. {
                    ticks.tick().await;
                    let answers = Arc::clone(&answers);
                    let mut requests = requests.lock();
                    while requests.try_join_next().is_some() {}
                    requests.spawn(async move {
                        let answer = ask(address, number).await;
                        answers.lock().0.push(answer);
                    });
                }
            }
        });
        Self { answers, requests, ticker: ticker.abort_handle() }
    }

    /// What has been answered so far.
    pub(crate) fn so_far(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock()
    }

    /// Waits until this pod has got no new connection for 150 ms, after this moment; when the last one was.
    pub(crate) async fn leaves(&self, pod: &str, after: Instant) -> Instant {
        let last = || self.so_far().last_from(pod).unwrap_or(after).max(after);
        until(&format!("{pod} is not asked for 150 ms"), || async {
            (last().elapsed() > Duration::from_millis(150)).then(last)
        })
        .await
        .0
    }

    /// Waits until this pod gets new connections after this moment.
    pub(crate) async fn returns(&self, pod: &str, after: Instant) {
        until(&format!("{pod} is asked"), || async { (self.so_far().since(pod, after) > 0).then_some(()) })
            .await;
    }

    /// Waits for the answers that are still due.
    pub(crate) async fn end(self) -> Answers {
        self.ticker.abort();
        let mut due = std::mem::take(&mut *self.requests.lock());
        while due.join_next().await.is_some() {}
        std::mem::take(&mut *self.answers.lock())
    }
}

/// All answers of a load, in no order.
#[derive(Default)]
pub(crate) struct Answers(pub(crate) Vec<Answer>);

impl Answers {
    /// How many each pod gave.
    pub(crate) fn by_pod(&self) -> BTreeMap<&str, usize> {
        let mut count = BTreeMap::new();
        for (_, pod) in self.0.iter().filter_map(|answer| answer.outcome.as_ref().ok()) {
            *count.entry(pod.as_str()).or_default() += 1;
        }
        count
    }

    /// Requests that were not answered with 200.
    pub(crate) fn failed(&self) -> Vec<&Answer> {
        self.0.iter().filter(|answer| answer.failed()).collect()
    }

    /// Failed requests that are not the application's own errors: refused, cut, late.
    pub(crate) fn failed_by_us(&self) -> Vec<&Answer> {
        self.0.iter().filter(|answer| answer.outcome.is_err()).collect()
    }

    /// When the last connection to this pod began.
    pub(crate) fn last_from(&self, pod: &str) -> Option<Instant> {
        self.0.iter().filter(|answer| answer.is_from(pod)).map(|answer| answer.began).max()
    }

    /// How many connections to this pod began after this moment.
    pub(crate) fn since(&self, pod: &str, moment: Instant) -> usize {
        self.0.iter().filter(|answer| answer.is_from(pod) && answer.began > moment).count()
    }

    /// The first failed answer of this pod after this moment.
    pub(crate) fn first_error(&self, pod: &str, moment: Instant) -> Option<Instant> {
        let after = self.0.iter().filter(|answer| answer.is_from(pod) && answer.began > moment);
        after.filter(|answer| answer.failed()).map(|answer| answer.began).min()
    }

    /// The pods that answered with an error in the last second.
    pub(crate) fn failing(&self) -> BTreeSet<String> {
        let recent = self.0.iter().rev().take_while(|answer| answer.began.elapsed() < PATIENCE);
        let recent =
            recent.filter(|answer| answer.failed() && answer.began.elapsed() < Duration::from_secs(1));
        recent.filter_map(|answer| Some(answer.outcome.as_ref().ok()?.1.clone())).collect()
    }
}

/// Clients that keep one connection each, as most do, and open another only when it was closed.
pub(crate) struct OpenConnections {
    pub(crate) answers: Shared,
    _clients: JoinSet<()>,
}

impl OpenConnections {
    /// So many clients; each asks every 10 ms.
    pub(crate) fn start(address: SocketAddr, count: usize) -> Self {
        let answers = Shared::default();
        let mut clients = JoinSet::new();
        for number in 0..count {
            let answers = Arc::clone(&answers);
            clients.spawn(async move {
                loop {
                    if let Err(error) = keep_asking(address, number, &answers).await {
                        let outcome = Err(error.to_string());
                        answers.lock().0.push(Answer { began: Instant::now(), outcome });
                    }
                }
            });
        }
        Self { answers, _clients: clients }
    }
}

/// Asks on one connection until the server closes it, which is no failure.
async fn keep_asking(address: SocketAddr, number: usize, answers: &Shared) -> io::Result<()> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connect(address, number).await?)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        if sender.ready().await.is_err() {
            return Ok(());
        }
        let began = Instant::now();
        match request(&mut sender, "keep-alive").await {
            Ok(answered) => answers.lock().0.push(Answer { began, outcome: Ok(answered) }),
            // The server closed the idle connection at this very moment: a client asks again on another one.
            Err(_) if sender.is_closed() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

async fn ask(address: SocketAddr, number: usize) -> Answer {
    let mut began = Instant::now();
    let asked = timeout(PATIENCE, async {
        let stream = connect(address, number).await?;
        began = Instant::now();
        exchange(stream).await
    })
    .await;
    let outcome = match asked {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    };
    Answer { began, outcome }
}

/// Each of the node's further addresses in turn: one has ports for some 14 000 connections in a minute.
async fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(number % 8).unwrap_or_default() + 10;
    socket.bind((Ipv4Addr::new(192, 0, 2, last), 0).into())?;
    socket.connect(address).await
}

async fn exchange(stream: TcpStream) -> io::Result<(u16, String)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    request(&mut sender, "close").await
}

/// One GET; the status and the name in the answer.
pub(crate) async fn request(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    connection: &str,
) -> io::Result<(u16, String)> {
    let request = Request::get("/").header("host", "shop").header("connection", connection);
    let request = request.body(Empty::new()).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
}
