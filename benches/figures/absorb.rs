//! How many keepalives one core of the server takes, and what each costs it: 5000 known pods, both dialects.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::ensure;

use crate::{
    cores,
    drive::{Batch, Lane, drive},
    fleet::{self, Link, Pod},
    report::{Figure, Goal, Report, median},
    running::{Recipe, Running, pause},
    yardsticks,
};

const PODS: u32 = 5000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

/// How a dialect is spoken to.
struct Talk {
    links: u32,
    /// Requests in one write, and writes in flight.
    batch: usize,
    window: usize,
}

const PIPELINED: Talk = Talk { links: 16, batch: 32, window: 2 };
const KEPT_ALIVE: Talk = Talk { links: 64, batch: 1, window: 1 };

/// The medians of all rounds.
struct Absorbed {
    per_second: f64,
    micros_each: f64,
}

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let recipe = Recipe::master("bench").with("KONTROL_DAMPER", "0.1");
    let server = cores::on_the_first(|| recipe.start())??;
    join(&server)?;
    let (writes, all) = (r#"store_operations_total{op="commit"}"#, "store_operations_total");
    let before = (server.metric(writes)?, server.metric(all)?);
    let heartbeats = server.metric("heartbeats_total")?;
    zerorpc(report, &server)?;
    http(report, &server)?;
    let taken = server.metric("heartbeats_total")? - heartbeats;
    let written = server.metric(writes)? - before.0;
    let paced = server.metric(all)? - before.1 - written;
    ensure!(server.metric("keepalives_refused_total")? == 0.0, "keepalives were refused");
    report.add(
        Figure::new("store operations per plain heartbeat", written / taken, "writes")
            .goal(Goal::AtMost(0.0))
            .note(format!(
                "{written} over {taken} heartbeats, from /metrics; {paced} operations at a fixed pace"
            )),
    );
    Ok(())
}

fn join(server: &Running) -> anyhow::Result<()> {
    let mut link = Link::zerorpc(server.port)?;
    let pods: Vec<u32> = (0..PODS).collect();
    for some in pods.chunks(200) {
        link.ping_all(some.iter().map(|number| Pod::new(*number).keepalive()))?;
    }
    server.wait_for("ensemble_pods", f64::from(PODS), Duration::from_secs(30))?;
    // The first digest may be older than the last store write: let the books come to rest.
    let mut before = -1.0;
    while server.metric("store_operations_total")? != before {
        before = server.metric("store_operations_total")?;
        pause(Duration::from_millis(300));
    }
    Ok(())
}

fn zerorpc(report: &mut Report, server: &Running) -> anyhow::Result<()> {
    let encode = |pod: Pod| fleet::request(&pod.keepalive());
    let (request, reply) = (encode(Pod::new(0)).len(), fleet::reply_length());
    let mut connections = connections(&PIPELINED, encode, || Link::zerorpc(server.port))?;
    let ours = rounds(&mut connections, &PIPELINED, reply, || server.processor_time())?;
    drop(connections);
    let echo = yardsticks::Server::start(&["echo", &request.to_string(), &reply.to_string()])?;
    let mut connections = self::connections(&PIPELINED, encode, || Link::raw(echo.port))?;
    let bare = rounds(&mut connections, &PIPELINED, reply, || echo.processor_time())?;
    let how = "5000 pods, 16 connections, 2 x 32 in flight on each";
    report.add(
        Figure::new("keepalives/s, ZMTP pipelined", ours.per_second, "/s")
            .goal(Goal::AtLeast(150_000.0))
            .beside("bare echo", bare.per_second)
            .note(how),
    );
    report.add(
        Figure::new("server CPU per keepalive, ZMTP", ours.micros_each, "us")
            .goal(Goal::AtMost(5.0))
            .beside("bare echo", bare.micros_each),
    );
    Ok(())
}

fn http(report: &mut Report, server: &Running) -> anyhow::Result<()> {
    let ours = http_rounds(server.port, || server.processor_time())?;
    let hyper = yardsticks::Server::start(&["hyper"])?;
    let bare = http_rounds(hyper.port, || hyper.processor_time())?;
    report.add(
        Figure::new("keepalives/s, HTTP keep-alive", ours.per_second, "/s")
            .goal(Goal::AtLeast(70_000.0))
            .beside("bare hyper", bare.per_second)
            .note("5000 pods, 64 connections, one request in flight on each"),
    );
    report.add(
        Figure::new("server CPU per keepalive, HTTP", ours.micros_each, "us")
            .goal(Goal::AtMost(12.0))
            .beside("bare hyper", bare.micros_each),
    );
    report.add(
        Figure::new("HTTP cost over bare hyper", ours.micros_each / bare.micros_each, "x")
            .goal(Goal::AtMost(1.3)),
    );
    Ok(())
}

fn http_rounds(port: SocketAddr, used: impl Fn() -> io::Result<Duration>) -> anyhow::Result<Absorbed> {
    let encode = |pod: Pod| {
        let body = pod.keepalive();
        let head = format!(
            "PUT /ping HTTP/1.1\r\nhost: master\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        (head + &body).into_bytes()
    };
    let reply = Link::raw(port)?.learn(&encode(Pod::new(0)))?;
    let mut connections = connections(&KEPT_ALIVE, encode, || Link::raw(port))?;
    rounds(&mut connections, &KEPT_ALIVE, reply, used)
}

/// The pods shared out over the connections.
fn connections(
    talk: &Talk,
    encode: impl Fn(Pod) -> Vec<u8>,
    open: impl Fn() -> io::Result<Link>,
) -> io::Result<Vec<Lane>> {
    (0..talk.links)
        .map(|lane| {
            let mine: Vec<u32> = (lane..PODS).step_by(talk.links as usize).collect();
            let batch = |some: &[u32]| Batch {
                bytes: some.iter().flat_map(|number| encode(Pod::new(*number))).collect(),
                requests: some.len(),
            };
            Ok(Lane::new(open()?, mine.chunks(talk.batch).map(batch).collect()))
        })
        .collect()
}

fn rounds(
    connections: &mut [Lane],
    talk: &Talk,
    reply: usize,
    used: impl Fn() -> io::Result<Duration>,
) -> anyhow::Result<Absorbed> {
    drive(connections, talk.window, reply, ROUND / 4)?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = used()?;
        let (requests, took) = drive(connections, talk.window, reply, ROUND)?;
        rates.push(requests as f64 / took.as_secs_f64());
        costs.push((used()? - before).as_secs_f64() * 1e6 / requests as f64);
    }
    Ok(Absorbed { per_second: median(&mut rates), micros_each: median(&mut costs) })
}
