//! What one more idle ZeroRPC connection costs the server, kernel memory not counted.

use std::time::Duration;

use crate::{
    cores,
    fleet::{Link, Pod},
    report::{Figure, Goal, Report},
    running::{Recipe, pause},
};

const FEW: u32 = 2000;
const MANY: u32 = 10_000;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let recipe = Recipe::master("bench")
        .with("KUBERVISOR_MAX_CONNECTIONS", (MANY + 100).to_string())
        .with("KUBERVISOR_KEEPALIVE_TRUSTED", "127.0.0.0/8");
    let server = cores::on_the_first(|| recipe.start())??;
    let mut links = Vec::new();
    let mut open = |until: u32| -> anyhow::Result<u64> {
        while links.len() < until as usize {
            let mut link = Link::zerorpc(server.port)?;
            // All speak for the same pod: connections are counted, not pods.
            link.ping(&Pod::new(1).keepalive())?;
            links.push(link);
        }
        pause(Duration::from_millis(500));
        Ok(server.resident()?)
    };
    let (few, many) = (open(FEW)?, open(MANY)?);
    let each = many.saturating_sub(few) as f64 / f64::from(MANY - FEW) / 1024.0;
    report.add(
        Figure::new("memory per further idle ZMTP connection", each, "KiB")
            .goal(Goal::AtMost(3.0))
            .note(format!("RSS from {FEW} to {MANY} connections, each of which has pinged once")),
    );
    Ok(())
}
