//! What an API server and a network can do to a controller's requests, one cycle for each: it ends as ever, and nothing
//! was below the floor on the way.

use std::time::Duration;

use futures::{StreamExt, stream};

use crate::{
    cycle::Cycle,
    plane::{self, Plane},
    proxy::{Fault, Matching, Proxy, Refusal},
    shop,
};

const AT_ONCE: usize = 4;

/// The name of a fault, and how the proxy is told of it.
type Case = (&'static str, fn(&Proxy));

/// Faults of single requests, each on the first ones of its kind and so in the midst of the claims and of the first plan.
const CASES: &[Case] = &[
    ("429 with Retry-After", |proxy| {
        proxy.on(Matching::writes().first(3), Fault::Refuse(Refusal::too_many_requests(1)));
        proxy.on(Matching::verb("list").first(2), Fault::Refuse(Refusal::too_many_requests(1)));
    }),
    ("409 on the ledger", |proxy| {
        let ledger = Matching::verb("update").of("kubervisorservices/status");
        proxy.on(ledger.first(3), Fault::Refuse(Refusal::conflict()));
    }),
    ("422 on pods", |proxy| {
        proxy.on(Matching::verb("patch").of("pods").first(3), Fault::Refuse(Refusal::invalid()));
    }),
    ("500 on everything", |proxy| {
        proxy.on(Matching::all().first(6), Fault::Refuse(Refusal::internal()));
    }),
    ("answers to pod patches are lost", |proxy| {
        proxy.on(Matching::verb("patch").of("pods").first(6), Fault::LoseAnswer);
    }),
    ("answers to ledger writes are lost", |proxy| {
        proxy.on(Matching::verb("update").of("kubervisorservices/status").first(3), Fault::LoseAnswer);
    }),
    ("an answer to a pod patch never comes", |proxy| {
        proxy.on(Matching::verb("patch").of("pods").nth(4), Fault::Hang);
    }),
    ("an answer to a ledger write never comes", |proxy| {
        proxy.on(Matching::verb("update").of("kubervisorservices/status").nth(2), Fault::Hang);
    }),
    ("everything is slow", |proxy| proxy.on(Matching::all(), Fault::Delay(Duration::from_millis(300)))),
    ("watches expire", |proxy| proxy.on(Matching::verb("watch").first(12), Fault::Expire)),
    ("Events are forbidden", |proxy| {
        let forbidden = Refusal::forbidden("create", "events");
        proxy.on(Matching::verb("create").of("events"), Fault::Refuse(forbidden));
    }),
];

async fn with_one_fault(plane: &Plane, (name, tell): Case) {
    let mut cycle = Cycle::prepare(plane, name.to_owned()).await;
    tell(&cycle.proxy);
    cycle.run().await;
    println!("{name}: {}", cycle.proxy.count());
    cycle.judged().await;
}

#[tokio::test]
async fn a_cycle_ends_well_whatever_its_requests_meet() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let all = stream::iter(CASES).map(|case| with_one_fault(&plane, *case));
    all.buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}

#[tokio::test]
async fn a_cycle_ends_well_while_watches_break_off_again_and_again() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let mut cycle = Cycle::prepare(&plane, "watches break off".to_owned()).await;
    let breaks = async {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            cycle.proxy.cut_watches();
        }
    };
    tokio::select! {
        () = cycle.run() => {}
        () = breaks => {}
    }
    cycle.judged().await;
}
