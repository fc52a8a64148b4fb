//! 50 000 pods at TTL 25 on one core of the server for minutes: nobody may expire who pings.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    cores, fleet,
    fleet::{Link, Pod},
    running::{Recipe, Running, pause},
};

const PODS: u32 = 50_000;
const LINKS: u32 = 1000;
const TTL: Duration = Duration::from_secs(25);

pub(crate) fn run(minutes: f64) -> anyhow::Result<()> {
    let recipe = Recipe::master("soak").with("KONTROL_TTL", TTL.as_secs().to_string());
    let server = cores::on_the_first(|| recipe.start())??;
    let mut links = (0..LINKS).map(|_| Link::zerorpc(server.port)).collect::<std::io::Result<Vec<_>>>()?;
    round(&mut links, Duration::ZERO)?;
    server.wait_for("ensemble_pods", f64::from(PODS), Duration::from_secs(60))?;
    println!("{PODS} pods over {LINKS} connections, TTL {} s, for {minutes} minutes", TTL.as_secs());
    let (began, used) = (Instant::now(), server.processor_time()?);
    let (mut rounds, mut spoken) = (0_u32, began);
    while began.elapsed().as_secs_f64() < minutes * 60.0 {
        round(&mut links, TTL / 3)?;
        rounds += 1;
        if spoken.elapsed() > Duration::from_secs(30) {
            spoken = Instant::now();
            judge(&server, began, used)?;
        }
    }
    judge(&server, began, used)?;
    println!("{} keepalives, nobody expired", u64::from(rounds) * u64::from(PODS));
    Ok(())
}

/// Everybody pings once, spread over `time`.
fn round(links: &mut [Link], time: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    let reply = fleet::reply_length();
    let count = u32::try_from(links.len())?.max(1);
    for (at, link) in (0..).zip(links.iter_mut()) {
        let mine = (at..PODS).step_by(count as usize);
        let bytes: Vec<u8> =
            mine.clone().flat_map(|pod| fleet::request(&Pod::new(pod).keepalive())).collect();
        link.send(&bytes, mine.count() * reply)?;
        link.settle()?;
        pause((time * (at + 1) / count).saturating_sub(began.elapsed()));
    }
    Ok(())
}

fn judge(server: &Running, began: Instant, used: Duration) -> anyhow::Result<()> {
    let share = (server.processor_time()? - used).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let (expired, pods) = (server.metric("pods_expired_total")?, server.metric("ensemble_pods")?);
    let resident = server.resident()? as f64 / f64::from(1 << 20);
    println!(
        "{:4.0} s: {share:.1} % of one core, {resident:.1} MiB, {pods} pods, {expired} expired",
        began.elapsed().as_secs_f64()
    );
    ensure!(expired == 0.0 && pods == f64::from(PODS), "pods expired although they ping");
    Ok(())
}
