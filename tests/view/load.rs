//! Many readers, and readers that do not read.

use std::time::{Duration, Instant};

use crate::{
    http::{page, read_until, sent},
    pages::shop,
    stage::{Stage, keeping_alive, until},
};

#[tokio::test]
async fn two_hundred_open_views_are_all_told_and_the_pages_stay_quick() {
    let stage = Stage::new();
    let (master, mut pods) = shop(&stage).await;
    let at = master.admin();
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(sent(at, "/view/live", "host: localhost\r\n").await);
    }
    keeping_alive(&master, &mut pods, async {
        // The fleet joins: every one of them is told.
        for stream in &mut open {
            assert!(read_until(stream, "event: changed", Duration::from_secs(20)).await.is_some());
        }
        let begun = Instant::now();
        assert_eq!(page(at, "/view/services/test/shop").await.code, 200);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_with_a_time_to_come_back() {
    let stage = Stage::new();
    let (master, _) = shop(&stage).await;
    let at = master.admin();
    let mut open = Vec::new();
    for _ in 0..256 {
        let mut stream = sent(at, "/view/live", "host: localhost\r\n").await;
        assert!(read_until(&mut stream, "200 OK", Duration::from_secs(20)).await.is_some());
        open.push(stream);
    }
    let refused = page(at, "/view/live").await;
    assert_eq!(refused.code, 503);
    assert!(refused.head.contains("retry-after: 30"), "{}", refused.head);
    drop(open);
    until("the places are free again", async || {
        let mut stream = sent(at, "/view/live", "host: localhost\r\n").await;
        read_until(&mut stream, "200 OK", Duration::from_secs(1)).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn readers_that_do_not_read_hold_up_neither_the_others_nor_the_end() {
    let stage = Stage::new();
    let (mut master, mut pods) = shop(&stage).await;
    let at = master.admin();
    let mut slow = Vec::new();
    keeping_alive(&master, &mut pods, async {
        until("all serve", async || master.page("services/test/shop").await["floor"]["serving"] == 5).await;
        for _ in 0..50 {
            slow.push(sent(at, "/view/services/test/shop", "host: localhost\r\n").await);
            slow.push(sent(at, "/view/live", "host: localhost\r\n").await);
        }
        let begun = Instant::now();
        assert_eq!(page(at, "/view").await.code, 200);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    })
    .await;
    let begun = Instant::now();
    assert!(master.stop().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "the end took {:?}", begun.elapsed());
}
