//! What every state must come to when faults end: patches that are under way are lost, nobody is bad, one controller works
//! on, and each of its patches lands. Then no pod is dark, every pod is ours, and the ledger is empty.

use std::{cell::RefCell, collections::HashMap};

use crate::{
    bridge::CALM,
    mutant::{Mutant, decide},
    protocol::{Setup, write},
    world::{Book, GONE, PODS, Pod, State, Switch},
};

/// More than any world here needs.
const ROUNDS: usize = 12;

type Rest = ([Pod; PODS], Option<Book>, Option<Mutant>, u32, u8);

/// Whether it comes to that.
#[must_use]
pub fn heals(setup: &Setup, state: &State) -> bool {
    const MOST: usize = 1 << 18;
    thread_local! {
        static KNOWN: RefCell<HashMap<Rest, bool, ahash::RandomState>> = RefCell::default();
    }
    let key = (state.pods, state.book, setup.mutant, setup.desired, state.epochs);
    KNOWN.with_borrow_mut(|known| {
        if let Some(healed) = known.get(&key) {
            return *healed;
        }
        if known.len() >= MOST {
            known.clear();
        }
        let healed = work(setup, state);
        known.insert(key, healed);
        healed
    })
}

fn work(setup: &Setup, state: &State) -> bool {
    let (mut pods, mut book) = (state.pods, state.book);
    for _ in 0..ROUNDS {
        let read = book.unwrap_or_else(|| setup.begin(state.epochs.min(2), &pods));
        let thought = decide(setup.mutant, &setup.view(pods, true, read, CALM));
        let before = (pods, book);
        book = thought.next.or(book);
        for message in thought.patches() {
            let pod = &mut pods[usize::from(message.slot)];
            if setup.fits(pod, &message) {
                write(pod, &message);
            }
        }
        if (pods, book) == before {
            break;
        }
    }
    let epoch = book.map(|book| u64::from(book.epoch));
    let well = |pod: &Pod| {
        let claimed = pod.ours && pod.mark.fence().map(|fence| fence.epoch.0) == epoch;
        // A person's `no` stays, and is not ours.
        let foreign = pod.switch == Switch::No && pod.cut == 0 && state.faults.hands > 0;
        pod.life == GONE || epoch.is_none() || claimed && (pod.switch == Switch::Yes || foreign)
    };
    let empty = book.is_none_or(|book| book.count() == 0);
    empty && pods.iter().all(well)
}
