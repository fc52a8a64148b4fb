//! Ordinary signals: a hang-up is a stop in order, and what means nothing here changes nothing.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fixture::{Master, Recipe};

#[tokio::test]
async fn a_hangup_is_a_stop_in_order() {
    let master = Master::open();
    let mut agent = Recipe::of_master(&master).quiet().start();
    master.hears(1).await;
    agent.signal(Signal::SIGHUP);
    agent.signal(Signal::SIGHUP);
    assert_eq!(agent.ended().await.code(), Some(0));
    assert!(master.heard().last().is_some_and(|last| last.down()), "{:?}", master.heard());
}

#[tokio::test]
async fn a_term_after_a_down_is_the_first_one() {
    // It never answers, so that the stop takes its time.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = Master::open();
    let masters = [mute.local_addr().unwrap(), alive.address].map(|address| address.to_string());
    let recipe = Recipe::of(&masters).with("KONTROL_TTL", "3");
    let mut agent = recipe.start_listening().await;
    alive.hears(1).await;
    let _ring = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::Client::new().post(format!("http://{}/down", recipe.endpoint())).send().await;
    assert!(answer.unwrap().status().is_success());
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended().await.code(), Some(0));
}

#[tokio::test]
async fn signals_without_a_meaning_change_nothing() {
    let master = Master::open();
    let mut agent = Recipe::of_master(&master).with("KONTROL_TTL", "3").with("KONTROL_PING", "0.1").start();
    master.hears(1).await;
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE, Signal::SIGALRM] {
        agent.signal(signal);
        let heard = master.heard().len();
        master.hears(heard + 2).await;
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let master = Master::open();
    let recipe = Recipe::of_master(&master).with("KONTROL_TTL", "3").with("KONTROL_PING", "0.1");
    let mut agent = recipe.start_by(&["sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    let first = master.hears(1).await;
    agent.signal(Signal::SIGHUP);
    let heard = master.hears(first.len() + 5).await;
    assert!(heard.iter().all(|one| !one.down()), "{heard:?}");
    assert!(heard.last().unwrap().at - first[0].at > Duration::from_millis(300));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended().await.code(), Some(0));
}
