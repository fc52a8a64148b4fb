//! A client that asks at a steady rate, each time on a new connection, and keeps each answer with its pod and time.

use std::{
    collections::BTreeMap,
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

/// Longer than any answer takes; a lost packet is sent again after 1 s and 3 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// One request and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When the connection stood; for one that never did, when it was tried.
    pub(crate) connected: Instant,
    /// The status and the pod that answered.
    pub(crate) outcome: Result<(u16, String), String>,
}

impl Answer {
    /// Whether it is from this pod.
    pub(crate) fn is_from(&self, pod: &str) -> bool {
        matches!(&self.outcome, Ok((_, name)) if name == pod)
    }
}

/// A load that goes on until it is ended.
pub(crate) struct Load {
    answers: Arc<Mutex<Answers>>,
    requests: Arc<Mutex<JoinSet<()>>>,
    ticker: AbortHandle,
}

impl Load {
    /// Asks `address` so many times each second.
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
        self.0.iter().filter(|answer| !matches!(answer.outcome, Ok((200, _)))).collect()
    }

    /// When the last connection to this pod began.
    pub(crate) fn last_from(&self, pod: &str) -> Option<Instant> {
        self.0.iter().filter(|answer| answer.is_from(pod)).map(|answer| answer.connected).max()
    }

    /// How many connections to this pod began after this moment.
    pub(crate) fn since(&self, pod: &str, moment: Instant) -> usize {
        self.0.iter().filter(|answer| answer.is_from(pod) && answer.connected > moment).count()
    }
}

async fn ask(address: SocketAddr, number: usize) -> Answer {
    let mut connected = Instant::now();
    let asked = timeout(PATIENCE, async {
        let stream = connect(address, number).await?;
        connected = Instant::now();
        exchange(stream).await
    })
    .await;
    let outcome = match asked {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    };
    Answer { connected, outcome }
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
