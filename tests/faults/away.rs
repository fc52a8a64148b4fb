//! The API server is unreachable, or restored from a backup (faults 1 and 13).

use std::time::Duration;

use crate::{
    plane::{self, Component, Plane, until},
    stage::Stage,
};

/// Longer than a controller waits for any answer.
const AWAY: Duration = Duration::from_secs(7);

async fn away_and_back(plane: &Plane, hint: &str, go: impl Fn(&Plane), come_back: impl Fn(&Plane)) {
    let mut stage = Stage::begin(plane, hint).await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    stage.withhold(&first).await;
    let left = stage.now();
    // Or it would take all nodes for lost when it finds no heartbeat of 16 s, and with no other pod ready the floor gives
    // the withheld one back, as it should.
    plane.kill(Component::ControllerManager);
    go(plane);
    stage.bad(&[&first, &second]);
    tokio::time::sleep(AWAY).await;
    assert!(stage.controller.lives());
    let before = stage.history_len().await;
    come_back(plane);
    plane.restart(Component::ControllerManager);
    let away = left..stage.now();
    stage.says(&second, "no").await;
    assert_eq!(stage.shop.traffic(&first).await.as_deref(), Some("no"), "what was withheld stays so");
    let after = stage.history(&first).await;
    assert!(before <= after.len());
    stage.recover().await;
    stage.judged(plane, vec![away]).await;
}

impl Stage {
    async fn history_len(&mut self) -> usize {
        let first = self.pods[0].clone();
        self.history(&first).await.len()
    }
}

#[tokio::test]
async fn while_the_api_server_is_frozen_cuts_stay_and_work_goes_on_when_it_thaws() {
    let plane = plane::alone().await;
    let (freeze, thaw) = (
        |plane: &Plane| plane.freeze(Component::ApiServer),
        |plane: &Plane| plane.thaw(Component::ApiServer),
    );
    away_and_back(&plane, "frozen", freeze, thaw).await;
}

#[tokio::test]
async fn while_the_api_server_is_dead_cuts_stay_and_work_goes_on_when_it_is_back() {
    let plane = plane::alone().await;
    let (kill, restart) = (
        |plane: &Plane| plane.kill(Component::ApiServer),
        |plane: &Plane| plane.restart(Component::ApiServer),
    );
    away_and_back(&plane, "dead", kill, restart).await;
}

#[tokio::test]
async fn after_a_restore_from_a_backup_there_is_a_new_epoch_and_nothing_is_left_dark() {
    let plane = plane::alone().await;
    let stage = Stage::begin(&plane, "restored").await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    // In the backup the first pod is withheld and owned.
    stage.withhold(&first).await;
    until("its entry is stored", || async { (stage.shop.entries().await == Some(1)).then_some(()) }).await;
    plane.back_up();
    // What is lost: the first is given back, the second is withheld.
    until("the API server is back", || async { stage.shop.pods().await.ok() }).await;
    stage.bad(&[&second]);
    stage.says(&first, "yes").await;
    stage.says(&second, "no").await;
    let lost = stage.ledger().await;
    plane.restore();
    until("a new epoch", || async {
        let epoch = stage.shop.resource().await.ok()?["status"]["ledger"]["epoch"].take();
        (epoch.is_string() && epoch != lost["epoch"]).then_some(())
    })
    .await;
    assert!(stage.controller.log().contains("time ran backwards"));
    stage.says(&second, "no").await;
    stage.says(&first, "yes").await;
    stage.recover().await;
}
