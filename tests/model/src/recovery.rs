//! The end state after the last fault: patches under way are lost, no pod is bad, one controller goes on, its patches
//! land, and the slices follow. Then every pod has its traffic back and is claimed, and the ledger is empty.

use std::{cell::RefCell, collections::HashMap};

use crate::{
    bridge::ALL_GOOD,
    mutant::{Mutant, decide},
    protocol::{Setup, write},
    world::{GONE, PODS, PackedLedger, Pod, State, Switch},
};

/// Plans until the end state; more than any world here needs.
const ROUNDS: usize = 12;

type CacheKey = ([Pod; PODS], Option<PackedLedger>, Option<Mutant>, u32, u8);

/// Whether that end state is reached.
#[must_use]
pub fn recovers(setup: &Setup, state: &State) -> bool {
    const MOST: usize = 1 << 18;
    thread_local! {
        static CACHE: RefCell<HashMap<CacheKey, bool, ahash::RandomState>> = RefCell::default();
    }
    let key = (state.pods, state.ledger, setup.mutant, setup.desired, state.epochs);
    CACHE.with_borrow_mut(|cache| {
        if let Some(recovered) = cache.get(&key) {
            return *recovered;
        }
        if cache.len() >= MOST {
            cache.clear();
        }
        let recovered = run(setup, state);
        cache.insert(key, recovered);
        recovered
    })
}

fn run(setup: &Setup, state: &State) -> bool {
    let (mut pods, mut ledger) = (state.pods, state.ledger);
    for _ in 0..ROUNDS {
        pods.iter_mut().for_each(|pod| pod.listed = pod.routable());
        let read = ledger.unwrap_or_else(|| setup.begin(state.epochs.min(2), &pods));
        let plan = decide(setup.mutant, &setup.view(pods, true, read, ALL_GOOD));
        let before = (pods, ledger);
        ledger = plan.next.or(ledger);
        for message in plan.patches() {
            let pod = &mut pods[usize::from(message.slot)];
            if setup.fits(pod, &message) {
                write(pod, &message);
            }
        }
        if (pods, ledger) == before {
            break;
        }
    }
    let epoch = ledger.map(|ledger| u64::from(ledger.epoch));
    let healthy = |pod: &Pod| {
        let claimed = pod.ours && pod.fence.unpack().map(|fence| fence.epoch.0) == epoch;
        // A person's `no` stays.
        let foreign = pod.switch == Switch::No && pod.withheld_by == 0 && state.faults.switch_edits > 0;
        pod.life == GONE || epoch.is_none() || claimed && (pod.switch == Switch::Yes || foreign)
    };
    let empty = ledger.is_none_or(|ledger| ledger.count() == 0);
    empty && pods.iter().all(healthy)
}
