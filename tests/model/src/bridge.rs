//! Converts between the packed state and the types of the product; [`plan_packed`] calls the product's `plan`.

use std::{cell::RefCell, collections::HashMap, sync::LazyLock, time::Duration};

use crate::{
    decide::{
        fleet::{Epoch, Fleet, PodView, Presence, RefusedWrite, Traffic, Uid},
        gate::{
            action::{Action, Verb},
            ledger::{Entry, EntryState, Ledger},
            plan,
        },
        policy::{ActivatorStrategy, Breaker, FloorRule, OnNoData, Policy},
        time::Timestamp,
        verdict::{Judgement, Opinion, Source, SourceKind, Verdicts},
    },
    world::{GONE, Kind, LIVES, Message, PODS, PackedEntry, PackedFence, PackedLedger, Pod, Switch},
};

/// The time of all withdrawals: every wait is over at [`NOW`].
const WITHHELD_AT: Timestamp = Timestamp::from_unix_millis(1_000_000);
const NOW: Timestamp = Timestamp::from_unix_millis(5_000_000);
const BREAKERS: [&str; 2] = ["left", "right"];
const STATES: [EntryState; 6] = [
    EntryState::Reserved,
    EntryState::Cancelling,
    EntryState::Withheld,
    EntryState::Pausing,
    EntryState::Paused,
    EntryState::Killing,
];
const HUMAN: u8 = 128;
/// The most patches of one plan.
pub const BURST: usize = PODS * LIVES;

static UIDS: LazyLock<[[Uid; LIVES]; PODS]> = LazyLock::new(|| {
    std::array::from_fn(|slot| std::array::from_fn(|life| format!("p{slot}-{life}").into()))
});

/// The verdicts for one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The bad pods, as bits.
    pub bad: u8,
    /// The last bad pod has the highest severity; otherwise the first.
    pub last: bool,
    /// Index of the breaker; the other breaker finds no bad pod.
    pub breaker: u8,
}

/// No bad pod.
pub const ALL_GOOD: Verdict = Verdict { bad: 0, last: false, breaker: 0 };

/// The floor as in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Floor {
    /// `minPodsAvailableCount`.
    pub count: u32,
    /// `minPodsAvailableRatio`.
    pub ratio: u8,
}

impl Floor {
    /// The floor in pods, by the product's rule.
    #[must_use]
    pub fn of(self, desired: u32) -> u32 {
        self.rule().of(desired)
    }

    fn rule(self) -> FloorRule {
        FloorRule { min_available_count: self.count, min_available_ratio: Some(self.ratio) }
    }
}

/// The input of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Pods that there should be.
    pub desired: u32,
    /// The floor.
    pub floor: Floor,
    /// The list of pods.
    pub pods: [Pod; PODS],
    /// The list was begun after the ledger was read.
    pub proven: bool,
    /// The ledger as read.
    pub ledger: PackedLedger,
    /// The verdicts.
    pub verdict: Verdict,
}

/// A plan, packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedPlan {
    /// The ledger to store.
    pub next: Option<PackedLedger>,
    /// The patches to send; the rest is [`Kind::Empty`].
    pub messages: [Message; BURST],
}

impl PackedPlan {
    /// The patches without the empty ones.
    pub fn patches(&self) -> impl Iterator<Item = Message> + '_ {
        self.messages.iter().copied().filter(|message| message.kind != Kind::Empty)
    }
}

/// Plans; results are cached, because `plan` is pure.
#[must_use]
pub fn plan_packed(view: &View) -> PackedPlan {
    const MOST: usize = 1 << 18;
    thread_local! {
        static CACHE: RefCell<HashMap<View, PackedPlan, ahash::RandomState>> = RefCell::default();
    }
    CACHE.with_borrow_mut(|cache| {
        if let Some(plan) = cache.get(view) {
            return *plan;
        }
        if cache.len() >= MOST {
            cache.clear();
        }
        let plan = compute(view);
        cache.insert(*view, plan);
        plan
    })
}

fn compute(view: &View) -> PackedPlan {
    let ledger = unpack(&view.ledger, view.desired);
    let mut fleet = Fleet::new(view.desired, pods(&view.pods, ledger.epoch));
    fleet.absence_proven = view.proven;
    let plan = plan(NOW, &policy(view.floor), &fleet, &ledger, &verdicts(view));
    let mut messages = [Message::default(); BURST];
    let next = plan.next.as_ref().map(pack);
    let ledger_fence = PackedFence::of(Some(plan.next.as_ref().unwrap_or(&ledger).fence()));
    let patches = plan.actions.iter().filter_map(|action| message(action, ledger_fence));
    for (place, message) in patches.enumerate() {
        messages[place] = message;
    }
    PackedPlan { next, messages }
}

fn pods(pods: &[Pod; PODS], epoch: Epoch) -> Vec<PodView> {
    let existing = pods.iter().enumerate().filter(|(_, pod)| pod.life != GONE);
    let view = |(slot, pod): (usize, &Pod)| PodView {
        uid: UIDS[slot][usize::from(pod.life)].clone(),
        name: String::new(),
        selected: true,
        ready: pod.ready,
        terminating: false,
        presence: Presence::Present,
        traffic: traffic(pod.switch).unwrap_or(Traffic::Other),
        fence: pod.fence.unpack(),
        claimed: pod.ours,
        has_controller: true,
        strategy: pod.withheld_by.checked_sub(1).map(|breaker| BREAKERS[usize::from(breaker)].to_owned()),
        break_at: (pod.withheld_by != 0).then_some(WITHHELD_AT),
        retry_count: None,
        place: None,
        admitted_at: None,
        set_by: None,
        // For longer than 5 s.
        unlisted_since: (pod.routable() && !pod.listed).then_some(WITHHELD_AT),
        // As the sink: what is claimed is not refused any more.
        refusal: (pod.claim_refused && !claimed(pod, epoch)).then(refused_claim),
    };
    existing.map(view).collect()
}

fn claimed(pod: &Pod, epoch: Epoch) -> bool {
    pod.ours && pod.fence.unpack().is_some_and(|fence| fence.epoch == epoch)
}

fn refused_claim() -> RefusedWrite {
    RefusedWrite { verb: Verb::Claim, sentence: String::new(), due: true }
}

/// The product's ledger of a packed one.
#[must_use]
pub fn unpack(packed: &PackedLedger, desired: u32) -> Ledger {
    let mut ledger = Ledger::begin("resource", Epoch(u64::from(packed.epoch)));
    ledger.serial = u64::from(packed.serial);
    for (slot, lives) in packed.entries.iter().enumerate() {
        for (life, entry) in lives.iter().enumerate().filter(|(_, entry)| entry.state != 0) {
            ledger.reserve(Entry {
                uid: UIDS[slot][life].clone(),
                name: String::new(),
                fence: entry.fence.unpack().unwrap(),
                next: entry.next.unpack().unwrap(),
                state: STATES[usize::from(entry.state) - 1],
                breaker: BREAKERS[usize::from(entry.breaker & !HUMAN)].to_owned(),
                reason: String::new(),
                break_at: WITHHELD_AT,
                retry_count: 1,
                desired,
                human: entry.breaker & HUMAN != 0,
                spare: None,
                bad_before: None,
                set_backs: 0,
            });
        }
    }
    ledger
}

/// The packed form of a ledger.
#[must_use]
pub fn pack(ledger: &Ledger) -> PackedLedger {
    let mut packed = PackedLedger {
        epoch: u8::try_from(ledger.epoch.0).unwrap(),
        serial: u8::try_from(ledger.serial).unwrap(),
        ..PackedLedger::default()
    };
    for entry in ledger.entries.values() {
        let (slot, life) = place(&entry.uid);
        let state = STATES.iter().position(|state| *state == entry.state).unwrap();
        let breaker = BREAKERS.iter().position(|name| *name == entry.breaker).unwrap();
        packed.entries[slot][life] = PackedEntry {
            state: u8::try_from(state + 1).unwrap(),
            fence: PackedFence::of(Some(entry.fence)),
            next: PackedFence::of(Some(entry.next)),
            breaker: u8::try_from(breaker).unwrap() | if entry.human { HUMAN } else { 0 },
        };
    }
    packed
}

/// The UID of a pod by name and incarnation.
#[must_use]
pub fn uid(slot: u8, life: u8) -> &'static Uid {
    &UIDS[usize::from(slot)][usize::from(life)]
}

fn place(uid: &Uid) -> (usize, usize) {
    let text = uid.as_str().as_bytes();
    (usize::from(text[1] - b'0'), usize::from(text[3] - b'0'))
}

fn message(action: &Action, ledger_fence: PackedFence) -> Option<Message> {
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
        action.write.strategy.as_ref().map(|name| BREAKERS.iter().position(|cache| cache == name).unwrap());
    assert_eq!(breaker.is_some(), action.write.break_at.is_some(), "a withhold writes breaker and breakAt");
    Some(Message {
        kind,
        slot: u8::try_from(slot).unwrap(),
        life: u8::try_from(life).unwrap(),
        fence: PackedFence::of(action.guard.fence),
        switch: switch(action.guard.traffic),
        ours: action.guard.ours,
        new_fence: PackedFence::of(action.write.fence),
        new_switch: switch(action.write.traffic),
        withheld_by: breaker.map_or(0, |breaker| u8::try_from(breaker + 1).unwrap()),
        relied: 0,
        lost: 0,
        ledger_fence: if kind == Kind::Withhold { ledger_fence } else { PackedFence::default() },
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

/// The verdicts of both breakers.
fn verdicts(view: &View) -> Verdicts {
    let Verdict { bad, last, breaker } = view.verdict;
    let opinion = |(slot, pod): (usize, &Pod), bad: u8| {
        let rank = u8::try_from(if last { slot } else { PODS - slot }).unwrap();
        let judgement = if bad >> slot & 1 == 1 {
            Judgement::Bad { severity: 0.5 + f64::from(rank) / 10.0, evidence: Box::default() }
        } else {
            Judgement::Good
        };
        (UIDS[slot][usize::from(pod.life)].clone(), Opinion::Judged(judgement))
    };
    let source = |(place, name): (usize, &&str)| {
        let bad = if place == usize::from(breaker) { bad } else { 0 };
        let existing = view.pods.iter().enumerate().filter(|(_, pod)| pod.life != GONE);
        Source::new(*name, SourceKind::Breaker, NOW, existing.map(|one| opinion(one, bad)).collect())
    };
    Verdicts { evaluation: 1, sources: BREAKERS.iter().enumerate().map(source).collect() }
}
