//! Between the packed world and the real gate: [`think`] is `plan` of the product, nothing else decides.

use std::{cell::RefCell, collections::HashMap, sync::LazyLock, time::Duration};

use crate::{
    decide::{
        fleet::{Epoch, Fleet, PodView, Presence, Traffic, Uid},
        gate::{
            action::{Action, Verb},
            ledger::{Entry, EntryState as Stage, Ledger},
            plan,
        },
        policy::{ActivatorStrategy, Breaker, FloorRule, OnNoData, Policy},
        time::Timestamp,
        verdict::{Evidence, Judgement, Opinion, Source, SourceKind, Verdicts},
    },
    world::{Book, GONE, Held, Kind, LIVES, Mark, Message, PODS, Pod, Switch},
};

/// When all cuts were made: every wait is over at [`NOW`].
const THEN: Timestamp = Timestamp::from_unix_millis(1_000_000);
const NOW: Timestamp = Timestamp::from_unix_millis(5_000_000);
const BREAKERS: [&str; 2] = ["left", "right"];
const STAGES: [Stage; 6] =
    [Stage::Reserved, Stage::Cancelling, Stage::Withheld, Stage::Pausing, Stage::Paused, Stage::Killing];
const HUMAN: u8 = 128;
/// The most patches of one plan.
pub const BURST: usize = PODS * LIVES;

static UIDS: LazyLock<[[Uid; LIVES]; PODS]> = LazyLock::new(|| {
    std::array::from_fn(|slot| std::array::from_fn(|life| format!("p{slot}-{life}").into()))
});

/// Who is bad, by whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Bits.
    pub bad: u8,
    /// The last of them is the worst, not the first.
    pub last: bool,
    /// The breaker's place.
    pub breaker: u8,
}

/// Nobody is bad.
pub const CALM: Verdict = Verdict { bad: 0, last: false, breaker: 0 };

/// The floor as the user wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Floor {
    /// `minPodsAvailableCount`.
    pub count: u32,
    /// `minPodsAvailableRatio`.
    pub ratio: u8,
}

impl Floor {
    /// What the real rule makes of it.
    #[must_use]
    pub fn of(self, desired: u32) -> u32 {
        self.rule().of(desired)
    }

    fn rule(self) -> FloorRule {
        FloorRule { min_available_count: self.count, min_available_ratio: Some(self.ratio) }
    }
}

/// All that a plan is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// How many pods there should be.
    pub desired: u32,
    /// How many must serve.
    pub floor: Floor,
    /// The list.
    pub pods: [Pod; PODS],
    /// The list was begun after the ledger was read.
    pub proven: bool,
    /// The ledger.
    pub book: Book,
    /// Who is bad.
    pub verdict: Verdict,
}

/// A plan, packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thought {
    /// The ledger to store.
    pub next: Option<Book>,
    /// The patches.
    pub messages: [Message; BURST],
}

impl Thought {
    /// The patches that there are.
    pub fn patches(&self) -> impl Iterator<Item = Message> + '_ {
        self.messages.iter().copied().filter(|message| message.kind != Kind::Empty)
    }
}

/// Decides; what was decided before is remembered, for `plan` is a function.
#[must_use]
pub fn think(view: &View) -> Thought {
    const MOST: usize = 1 << 18;
    thread_local! {
        static KNOWN: RefCell<HashMap<View, Thought, ahash::RandomState>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(thought) = known.get(view) {
            return *thought;
        }
        if known.len() >= MOST {
            known.clear();
        }
        let thought = really(view);
        known.insert(*view, thought);
        thought
    })
}

fn really(view: &View) -> Thought {
    let ledger = ledger(&view.book, view.desired);
    let mut fleet = Fleet::new(view.desired, pods(&view.pods));
    fleet.absence_proven = view.proven;
    let plan = plan(NOW, &policy(view.floor), &fleet, &ledger, &verdicts(view));
    let mut messages = [Message::default(); BURST];
    let next = plan.next.as_ref().map(|next| book(next));
    let stamp = plan.next.as_ref().unwrap_or(&ledger).fence();
    for (place, message) in
        plan.actions.iter().filter_map(|action| message(action, Mark::of(Some(stamp)))).enumerate()
    {
        messages[place] = message;
    }
    Thought { next, messages }
}

fn pods(pods: &[Pod; PODS]) -> Vec<PodView> {
    let there = pods.iter().enumerate().filter(|(_, pod)| pod.life != GONE);
    let view = |(slot, pod): (usize, &Pod)| PodView {
        uid: UIDS[slot][usize::from(pod.life)].clone(),
        name: String::new(),
        ready: pod.ready,
        terminating: false,
        presence: Presence::Present,
        traffic: traffic(pod.switch).unwrap_or(Traffic::Other),
        fence: pod.mark.fence(),
        claimed: pod.ours,
        has_controller: true,
        strategy: pod.cut.checked_sub(1).map(|breaker| BREAKERS[usize::from(breaker)].to_owned()),
        break_at: (pod.cut != 0).then_some(THEN),
        retry_count: None,
        admitted_at: None,
        in_endpoints: pod.switch == Switch::Yes,
    };
    there.map(view).collect()
}

/// The real ledger of a packed one.
#[must_use]
pub fn ledger(book: &Book, desired: u32) -> Ledger {
    let mut ledger = Ledger::begin("resource", Epoch(u64::from(book.epoch)));
    ledger.serial = u64::from(book.serial);
    for (slot, lives) in book.held.iter().enumerate() {
        for (life, held) in lives.iter().enumerate().filter(|(_, held)| held.state != 0) {
            ledger.reserve(Entry {
                uid: UIDS[slot][life].clone(),
                name: String::new(),
                fence: held.mark.fence().unwrap(),
                next: held.next.fence().unwrap(),
                state: STAGES[usize::from(held.state) - 1],
                breaker: BREAKERS[usize::from(held.breaker & !HUMAN)].to_owned(),
                reason: String::new(),
                break_at: THEN,
                retry_count: 1,
                desired,
                human: held.breaker & HUMAN != 0,
                spare: None,
                bad_before: None,
            });
        }
    }
    ledger
}

/// Packs.
#[must_use]
pub fn book(ledger: &Ledger) -> Book {
    let mut book = Book {
        epoch: u8::try_from(ledger.epoch.0).unwrap(),
        serial: u8::try_from(ledger.serial).unwrap(),
        ..Book::default()
    };
    for entry in ledger.entries.values() {
        let (slot, life) = place(&entry.uid);
        let stage = STAGES.iter().position(|stage| *stage == entry.state).unwrap();
        let breaker = BREAKERS.iter().position(|name| *name == entry.breaker).unwrap();
        book.held[slot][life] = Held {
            state: u8::try_from(stage + 1).unwrap(),
            mark: Mark::of(Some(entry.fence)),
            next: Mark::of(Some(entry.next)),
            breaker: u8::try_from(breaker).unwrap() | if entry.human { HUMAN } else { 0 },
        };
    }
    book
}

/// The UID of a packed pod.
#[must_use]
pub fn uid(slot: u8, life: u8) -> &'static Uid {
    &UIDS[usize::from(slot)][usize::from(life)]
}

fn place(uid: &Uid) -> (usize, usize) {
    let text = uid.as_str().as_bytes();
    (usize::from(text[1] - b'0'), usize::from(text[3] - b'0'))
}

fn message(action: &Action, stamp: Mark) -> Option<Message> {
    let kind = match action.verb {
        Verb::Claim => Kind::Claim,
        Verb::Withhold => Kind::Withhold,
        Verb::Cancel => Kind::Cancel,
        Verb::Admit => Kind::Admit,
        Verb::Pause => Kind::Pause,
        Verb::Kill | Verb::Release | Verb::Forget => return None,
    };
    let (slot, life) = place(&action.uid);
    let breaker =
        action.write.strategy.as_ref().map(|name| BREAKERS.iter().position(|known| known == name).unwrap());
    assert_eq!(breaker.is_some(), action.write.break_at.is_some(), "a cut pod says when and by whom");
    Some(Message {
        kind,
        slot: u8::try_from(slot).unwrap(),
        life: u8::try_from(life).unwrap(),
        mark: Mark::of(action.guard.fence),
        switch: switch(action.guard.traffic),
        ours: action.guard.ours,
        new_mark: Mark::of(action.write.fence),
        new_switch: switch(action.write.traffic),
        cut: breaker.map_or(0, |breaker| u8::try_from(breaker + 1).unwrap()),
        relied: 0,
        lost: 0,
        stamp: if kind == Kind::Withhold { stamp } else { Mark::default() },
    })
}

fn switch(traffic: Option<Traffic>) -> Switch {
    match traffic {
        None | Some(Traffic::Other) => Switch::Any,
        Some(Traffic::Yes) => Switch::Yes,
        Some(Traffic::No) => Switch::No,
        Some(Traffic::Pause) => Switch::Pause,
        Some(Traffic::Unlabelled) => Switch::Unlabelled,
    }
}

fn traffic(switch: Switch) -> Option<Traffic> {
    match switch {
        Switch::Any => None,
        Switch::Yes => Some(Traffic::Yes),
        Switch::No => Some(Traffic::No),
        Switch::Pause => Some(Traffic::Pause),
        Switch::Unlabelled => Some(Traffic::Unlabelled),
    }
}

fn policy(floor: Floor) -> Policy {
    let breaker = |name: &str| Breaker {
        name: name.to_owned(),
        evaluation_period: Duration::from_secs(5),
        floor: floor.rule(),
        activator: ActivatorStrategy::default(),
        on_no_data: OnNoData::Hold,
        min_coverage: 0,
        dry_run: false,
    };
    Policy {
        breakers: BREAKERS.map(breaker).into(),
        floor: floor.rule(),
        ..Policy::without_manifest("model")
    }
}

/// The word of the one breaker; the other has looked, too, and finds nobody bad.
fn verdicts(view: &View) -> Verdicts {
    let Verdict { bad, last, breaker } = view.verdict;
    let word = |(slot, pod): (usize, &Pod), bad: u8| {
        let rank = u8::try_from(if last { slot } else { PODS - slot }).unwrap();
        let judgement = if bad >> slot & 1 == 1 {
            Judgement::Bad { severity: 0.5 + f64::from(rank) / 10.0, evidence: Evidence::default() }
        } else {
            Judgement::Good
        };
        (UIDS[slot][usize::from(pod.life)].clone(), Opinion::Judged(judgement))
    };
    let source = |(place, name): (usize, &&str)| {
        let bad = if place == usize::from(breaker) { bad } else { 0 };
        let there = view.pods.iter().enumerate().filter(|(_, pod)| pod.life != GONE);
        Source::new(*name, SourceKind::Breaker, NOW, there.map(|one| word(one, bad)).collect())
    };
    Verdicts { evaluation: 1, sources: BREAKERS.iter().enumerate().map(source).collect() }
}
