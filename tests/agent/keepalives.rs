//! What masters hear: when, from where, how often, and what comes last.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::fixture::{Master, Reaction, Recipe, address, with_hosts};

/// TTL 3: pings each second, with a deadline of half a second.
fn brisk(recipe: Recipe) -> Recipe {
    recipe.with("KONTROL_TTL", "3")
}

#[tokio::test]
async fn each_ping_has_the_same_bytes_while_nothing_changes_and_comes_from_our_address() {
    let master = Master::open();
    let recipe = Recipe::of_master(&master).with("KONTROL_TTL", "0.6");
    let _agent = recipe.start();
    let heard = master.hears(4).await;
    assert!(heard.iter().all(|one| one.raw == heard[0].raw), "{heard:?}");
    assert!(heard.iter().all(|one| one.peer == heard[0].peer), "one connection: {heard:?}");
    assert_eq!(heard[0].peer.ip(), recipe.ip);
    let json = heard[0].json();
    let members: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["app", "id", "ip", "key", "nonce", "payload", "role"]);
    assert_eq!((json["app"].as_str(), json["payload"].as_str()), (Some("shop"), Some("")));
    assert_eq!(json["ip"], recipe.ip.to_string());
    assert_eq!(json["nonce"].as_str().unwrap().len(), 16);
}

#[tokio::test]
async fn pings_come_at_a_third_of_the_ttl_unless_told_otherwise() {
    let master = Master::open();
    let _agent = Recipe::of_master(&master).with("KONTROL_TTL", "0.9").start();
    let heard = master.hears(6).await;
    let gap = (heard[5].at - heard[0].at).as_secs_f64() / 5.0;
    assert!((0.28..0.6).contains(&gap), "{gap}");

    let master = Master::open();
    let _agent = Recipe::of_master(&master).with("KONTROL_TTL", "9").with("KONTROL_PING", "0.1").start();
    let heard = master.hears(6).await;
    let gap = (heard[5].at - heard[0].at).as_secs_f64() / 5.0;
    assert!((0.09..0.6).contains(&gap), "{gap}");
}

#[tokio::test]
async fn a_dead_master_delays_nobody() {
    // One that takes the connection and never answers, and one where nobody listens.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alive = Master::open();
    let masters = [mute.local_addr().unwrap(), nobody, alive.address].map(|address| address.to_string());
    let _agent = brisk(Recipe::of(&masters)).start();
    let heard = alive.hears(5).await;
    // A ping to a dead one takes half a second, twice.
    let gap = (heard[4].at - heard[0].at) / 4;
    assert!(gap < Duration::from_millis(1400), "{gap:?}");
}

#[tokio::test]
async fn several_masters_hear_the_same_with_one_nonce() {
    let masters = [Master::open(), Master::open()];
    let _agent = brisk(Recipe::of(&masters.each_ref().map(|master| master.address.to_string()))).start();
    let first = masters[0].hears(1).await;
    let second = masters[1].hears(1).await;
    assert_eq!(first[0].raw, second[0].raw);
}

#[tokio::test]
async fn a_lost_ping_is_said_again_at_once_over_a_new_connection() {
    let master = Master::moody(Box::new(|n| if n == 1 { Reaction::Swallow } else { Reaction::Answer }));
    // Pings each 5 s, the deadline is 1 s.
    let _agent = Recipe::of_master(&master).with("KONTROL_TTL", "6").with("KONTROL_PING", "5").start();
    let heard = master.hears(3).await;
    let gap = heard[2].at - heard[1].at;
    assert!((900..2500).contains(&gap.as_millis()), "{gap:?}");
    assert_ne!(heard[1].peer, heard[2].peer);
    assert_eq!(heard[1].raw, heard[2].raw);
}

#[tokio::test]
async fn a_refused_ping_is_an_answer_and_is_not_repeated_at_once() {
    let master = Master::moody(Box::new(|_| Reaction::Refuse));
    let http = format!("http://{}", master.address);
    let _agent = Recipe::of(&[http]).with("KONTROL_TTL", "1.5").start();
    let heard = master.hears(3).await;
    assert!(heard[2].at - heard[0].at > Duration::from_millis(900), "{heard:?}");
}

#[tokio::test]
async fn a_master_that_comes_back_hears_us_again_soon() {
    let master = Master::open();
    let address = master.address;
    let _agent = Recipe::of_master(&master).with("KONTROL_TTL", "30").with("KONTROL_PING", "1").start();
    master.hears(1).await;
    drop(master);
    sleep(Duration::from_millis(1500)).await;
    let back = Instant::now();
    let master = loop {
        if std::net::TcpListener::bind(address).is_ok() {
            break Master::at(address, Box::new(|_| Reaction::Answer));
        }
        sleep(Duration::from_millis(20)).await;
    };
    let heard = master.hears(1).await;
    // Never slower than the pings themselves, which is a second here.
    assert!(heard[0].at - back < Duration::from_millis(2500), "{:?}", heard[0].at - back);
}

#[tokio::test]
async fn the_older_dialect_is_spoken_where_the_annotation_says_http() {
    let master = Master::open();
    let recipe = Recipe::of(&[format!("http://{}/", master.address)]).with("KONTROL_TTL", "0.6");
    let mut agent = recipe.start();
    let heard = master.hears(3).await;
    assert_eq!(heard[0].peer.ip(), recipe.ip);
    assert_eq!(heard[0].raw, heard[2].raw);
    agent.signal(Signal::SIGTERM);
    assert!(agent.ended().await.success());
    assert!(master.heard().last().unwrap().down());
}

#[tokio::test]
async fn a_graceful_stop_says_down_last_and_ends_with_zero() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let masters = [Master::open(), Master::open()];
        let names = masters.each_ref().map(|master| master.address.to_string());
        let mut agent = brisk(Recipe::of(&names)).start();
        masters[0].hears(1).await;
        masters[1].hears(1).await;
        agent.signal(signal);
        assert!(agent.ended().await.success());
        for master in &masters {
            let heard = master.heard();
            let (last, before) = heard.split_last().unwrap();
            assert!(last.down() && !before.iter().any(|one| one.down()), "{heard:?}");
            assert_eq!(last.json()["nonce"], before[0].json()["nonce"]);
        }
    }
}

#[tokio::test]
async fn a_stop_waits_for_a_dead_master_only_so_long() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = Master::open();
    let masters = [mute.local_addr().unwrap(), alive.address].map(|address| address.to_string());
    let mut agent = brisk(Recipe::of(&masters)).start();
    alive.hears(1).await;
    let began = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert!(agent.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(alive.heard().last().unwrap().down());
}

#[tokio::test]
async fn a_down_over_loopback_stops_it_gracefully_too() {
    let master = Master::open();
    let recipe = brisk(Recipe::of_master(&master));
    let mut agent = recipe.start_listening().await;
    master.hears(1).await;
    let _ring = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::Client::new().post(format!("http://{}/down", recipe.endpoint())).send().await;
    assert!(answer.unwrap().status().is_success());
    assert!(agent.ended().await.success());
    assert!(master.heard().last().unwrap().down());
}

#[tokio::test]
async fn each_start_has_a_nonce_of_its_own() {
    let master = Master::open();
    let recipe = brisk(Recipe::of_master(&master));
    let mut agent = recipe.start();
    let first = master.hears(1).await.remove(0).json()["nonce"].clone();
    // Its port is free when it has ended, not when it is killed.
    agent.signal(Signal::SIGKILL);
    agent.ended().await;
    let (heard, _agent) = (master.heard().len(), recipe.start());
    master.hears_that(heard.min(1), |one| one.json()["nonce"] != first).await;
}

#[tokio::test]
async fn a_frozen_machine_among_the_addresses_of_a_name_costs_its_share_only() {
    for (dialect, turned) in [("", false), ("", true), ("http://", false), ("http://", true)] {
        let (first, second) = (address(), address());
        let (mute, alive) = if turned { (second, first) } else { (first, second) };
        // The kernel takes connections for it, and nobody answers.
        let mute = std::net::TcpListener::bind((mute, 0)).unwrap();
        let port = mute.local_addr().unwrap().port();
        let alive = Master::at((alive, port).into(), Box::new(|_| Reaction::Answer));
        let (folder, names) = (tempfile::tempdir().unwrap(), format!("{first} masters\n{second} masters\n"));
        let Some(command) = with_hosts(folder.path(), &names) else { return };
        let agent = brisk(Recipe::of(&[format!("{dialect}masters:{port}")]));
        let _agent = agent.start_by(&command);
        let heard = alive.hears(4).await;
        assert!(heard[3].at - heard[0].at < Duration::from_secs(6), "{heard:?}");
    }
}
