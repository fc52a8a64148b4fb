//! The coordination alone: replicas whose work is nothing but a fenced write.

use std::{sync::Arc, time::Duration};

use crate::{
    coordination::{self, Scenario},
    mutant::Mutant,
    replica::Work,
    seeds, world,
    writes::FencedWrites,
};

pub const TEST: &str = "sharing::whatever_fails_each_service_has_one_owner_and_soon_one_again";

const SCENARIO: Scenario = Scenario {
    services: 3,
    tick: Duration::from_millis(20),
    duration: Duration::from_secs(20),
    calm_from: Duration::from_secs(13),
    prepare: |server, services| {
        for service in (0..services).map(world::service) {
            server.put(&world::path("kubervisorservices", &service), world::resource(&service));
        }
    },
    beside: |_, _| {},
    work: |process, _| -> Arc<dyn Work> {
        Arc::new(FencedWrites { client: process.client(), member: process.member.clone() })
    },
    check: |_, _| {},
};

#[test]
fn whatever_fails_each_service_has_one_owner_and_soon_one_again() {
    let Some(seed) = seeds::given() else { return seeds::sweep(TEST, seeds::count(500)) };
    let mutant = std::env::var("SIM_MUTANT").ok().map(|name| name.parse::<Mutant>().unwrap());
    coordination::report(seed, &coordination::run(seed, &SCENARIO, mutant));
}
