//! A master whose log nobody takes does all its work.

use crate::stage::{Puppet, Stage, keeping_alive, until};

#[tokio::test]
async fn a_master_whose_log_goes_nowhere_runs_its_callback_and_counts_the_lost_lines() {
    let stage = Stage::new();
    let callback = format!(
        "echo noise >&2; echo \"$PODS\" >> {}; echo '{{\"again\": 0.1}}'",
        stage.file("out").display()
    );
    let master = stage
        .master(1)
        .env("KONTROL_CALLBACK", callback)
        .env("KONTROL_SHELL_CALLBACK", "TRUE")
        .logging_to("/dev/full");
    let mut master = master.start().await;
    let mut pods = [Puppet::new(&stage, 10)];
    keeping_alive(&master, &mut pods, async {
        until("the pod is shown", async || stage.read("out").contains("pod-10")).await;
        let runs = stage.lines("out").len();
        until("the callback runs again and again", async || stage.lines("out").len() > runs + 3).await;
    })
    .await;
    assert!(master.metric("kubervisor_log_lines_lost_total").await.unwrap() > 1.0);
    until("the silent pod leaves", async || stage.lines("out").last().is_some_and(|last| last == "[]")).await;
    assert_eq!(master.stop().await.code(), Some(0));
}
