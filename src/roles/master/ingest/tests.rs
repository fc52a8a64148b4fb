//! One ingest through the changes of leadership.

use futures::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::decide::{alarm_reason::AlarmReason, ensemble::Settings, key::Key};

const TTL: Duration = Duration::from_secs(20);

fn ingest() -> Arc<Ingest> {
    with_alarms(AddressPolicy::Any).0
}

fn with_alarms(policy: AddressPolicy) -> (Arc<Ingest>, Alarms) {
    let clock = Clock::start();
    let alarms = Alarms::new(clock);
    let metrics = IngestMetrics::register(&mut prometheus_client::registry::Registry::default());
    (Arc::new(Ingest::new(clock, alarms.clone(), metrics, policy)), alarms)
}

fn peer() -> SocketAddr {
    "127.0.0.9:1".parse().unwrap()
}

fn ensemble() -> Ensemble {
    Ensemble::new(Settings::new(TTL, TTL / 3))
}

fn keepalive(payload: &str, down: bool) -> Vec<u8> {
    let ip = Ipv4Addr::new(10, 0, 0, 1);
    json!({"app": "shop", "id": "a", "ip": ip, "key": Key::of(ip), "nonce": "01", "payload": payload, "role": "web",
        "down": down})
    .to_string()
    .into_bytes()
}

/// The snapshot of a leader after it has stored everything.
fn snapshot(ingest: &Ingest) -> String {
    let shown = ingest.with_ensemble(|ensemble, _| {
        while let Some(changes) = ensemble.take_changes() {
            ensemble.confirm(changes.ticket);
        }
        String::from_utf8(ensemble.snapshot().pods().as_ref().to_vec()).unwrap()
    });
    shown.unwrap()
}

#[tokio::test]
async fn a_keepalive_that_no_leader_took_is_ours_when_we_have_begun_to_lead_meanwhile() {
    let ingest = ingest();
    let ping = ingest.check(peer(), &keepalive("x", false)).unwrap();
    ingest.lead(ensemble());
    ingest.keep(ping).unwrap();
    assert!(snapshot(&ingest).contains("\"id\":\"a\""));
}

#[tokio::test]
async fn an_earlier_keepalive_that_comes_back_late_does_not_replace_a_goodbye() {
    let ingest = ingest();
    let earlier = ingest.check(peer(), &keepalive("x", false)).unwrap();
    let later = ingest.check(peer(), &keepalive("x", true)).unwrap();
    ingest.keep(later).unwrap();
    ingest.keep(earlier).unwrap();
    ingest.lead(ensemble());
    assert_eq!(snapshot(&ingest), "[]");
}

/// The answer to a `down`, sent to a leader whose store has the pod.
fn down(forwarded: bool) -> (Arc<Ingest>, BoxFuture<'static, Result<(), Refusal>>) {
    let ingest = ingest();
    ingest.members.send_replace(vec![Ipv4Addr::new(127, 0, 0, 9)]);
    ingest.lead(ensemble());
    ingest.ping(peer(), &keepalive("x", false));
    snapshot(&ingest);
    let down = keepalive("x", true);
    let answer = if forwarded { ingest.forwarded(peer(), &down) } else { ingest.ping(peer(), &down) };
    let Answer::Later(answer) = answer else { panic!("not stored yet") };
    (ingest, answer)
}

#[tokio::test(start_paused = true)]
async fn a_leader_answers_a_down_when_it_is_stored() {
    for forwarded in [false, true] {
        let (ingest, mut answer) = down(forwarded);
        let changes = || ingest.with_ensemble(|ensemble, _| ensemble.take_changes()).flatten().unwrap();
        for stored in [false, true] {
            let changes = changes();
            assert!(futures::poll!(&mut answer).is_pending(), "being written");
            ingest.end_batch(changes.ticket, stored);
            assert_eq!(futures::poll!(&mut answer).is_ready(), stored);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_store_does_not_answer_answers_a_down_nevertheless() {
    for forwarded in [false, true] {
        let (_ingest, answer) = down(forwarded);
        let began = tokio::time::Instant::now();
        answer.await.unwrap();
        assert!(began.elapsed() >= STORED_WITHIN && began.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn what_could_not_be_stored_is_kept_for_the_next_term() {
    let ingest = ingest();
    ingest.lead(ensemble());
    let Answer::Now(Ok(())) = ingest.ping(peer(), &keepalive("x", false)) else { panic!("taken") };
    assert!(snapshot(&ingest).contains("\"seq\":0"));
    let stored = ingest.with_ensemble(|ensemble, _| ensemble.snapshot()).unwrap();
    assert_eq!(stored.len(), 1);
    let Answer::Later(answer) = ingest.ping(peer(), &keepalive("x", true)) else { panic!("not stored yet") };
    // The term ends before the `down` is stored; the next one restores what is.
    ingest.hold();
    answer.await.unwrap();
    ingest.lead(ensemble());
    assert_eq!(snapshot(&ingest), "[]", "it said down, and that is final");
    let Answer::Now(Err(refusal)) = ingest.ping(peer(), &keepalive("x", false)) else { panic!("refused") };
    assert!(refusal.message.contains("down"), "{}", refusal.message);
}

#[tokio::test]
async fn a_master_that_stops_refuses_keepalives() {
    let ingest = ingest();
    let late = ingest.check(peer(), &keepalive("x", true)).unwrap();
    ingest.stop();
    let Answer::Now(Err(refusal)) = ingest.ping(peer(), &keepalive("x", true)) else { panic!("refused") };
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert_eq!(ingest.keep(late).unwrap_err().kind, RefusalKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_collision_is_an_alarm_until_it_has_been_quiet_for_a_while() {
    let (ingest, alarms) = with_alarms(AddressPolicy::Any);
    ingest.lead(ensemble());
    ingest.ping(peer(), &keepalive("x", false));
    let thief = String::from_utf8(keepalive("x", false)).unwrap().replace("\"a\"", "\"b\"");
    let Answer::Now(Err(_)) = ingest.ping(peer(), thief.as_bytes()) else { panic!("refused") };
    tokio::time::advance(TTL / 2).await;
    ingest.clear_old_refusals(TTL);
    assert_eq!(alarms.up().len(), 1);
    tokio::time::advance(TTL).await;
    ingest.clear_old_refusals(TTL);
    assert!(alarms.up().is_empty());
    assert_eq!(alarms.history().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_keepalive_is_an_alarm_with_reason_pod_and_sender_for_a_leader_and_for_the_others() {
    for leads in [true, false] {
        let (ingest, alarms) = with_alarms(AddressPolicy::OwnAddress { trusted: Vec::new() });
        if leads {
            ingest.lead(ensemble());
        }
        let Answer::Now(Err(refusal)) = ingest.ping(peer(), &keepalive("x", false)) else {
            panic!("refused")
        };
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
        let up = alarms.up();
        let alarm = up.iter().find(|alarm| alarm.reason == AlarmReason::KeepaliveRefused).unwrap();
        for part in ["forged_address", "\"a\"", "127.0.0.9", "10.0.0.1"] {
            assert!(alarm.message.contains(part), "{part}: {}", alarm.message);
        }
        tokio::time::advance(TTL * 2).await;
        ingest.clear_old_refusals(TTL);
        assert!(alarms.up().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_first_after_our_own_pause_finds_nobody_expired() {
    let ingest = ingest();
    ingest.lead(ensemble());
    let Answer::Now(Ok(())) = ingest.ping(peer(), &keepalive("x", false)) else { panic!("taken") };
    let before = snapshot(&ingest);
    // Nothing touches the ensemble meanwhile, as in a stopped process.
    tokio::time::advance(TTL * 3).await;
    let silence =
        ingest.with_ensemble(|ensemble, now| ensemble.known_pods(now).next().map(|pod| pod.silence));
    assert_eq!(silence.unwrap(), Some(Duration::ZERO));
    assert_eq!(ingest.with_ensemble(Ensemble::expire).unwrap(), []);
    assert_eq!(snapshot(&ingest), before);
    for _ in 0..10 {
        tokio::time::advance(TTL / 10).await;
        ingest.with_ensemble(|_, _| ());
    }
    assert_eq!(ingest.with_ensemble(Ensemble::expire).unwrap().len(), 1, "a full TTL, and no more");
}
