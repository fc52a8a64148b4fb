//! The steps of the model, in any order: two controllers that observe and plan, patches that land late, twice or never,
//! pods that fail and are replaced, a resource that is deleted and created again, people who edit labels.
//!
//! Storing a plan and sending its patches is one step: a crash between two writes equals a patch that never lands, a crash
//! before them equals a new `Observe`. Reading the ledger and then listing the pods is one step, too: a change in between
//! is in the list or makes the compare-and-swap fail.

use stateright::{Model, Property};

use crate::{
    bridge::{ALL_GOOD, Floor, PackedPlan, Verdict, View, pack, uid, unpack},
    decide::gate::ledger::ActionOutcome,
    mutant::{Mutant, decide},
    recovery::recovers,
    world::{
        Controller, Faults, GONE, Kind, LIVES, MESSAGES, Message, PODS, PackedFence, PackedLedger, Phase,
        Pod, State, Switch,
    },
};

/// At the moment of each withdrawal at least the floor serves afterwards. Pods that the plan counted as serving and that
/// left service since its list without us count as serving.
pub const FLOOR: &str = "the floor holds";
/// Every pod that we withhold has an entry in the ledger.
pub const DARK: &str = "a dark pod has an entry";
/// See [`recovers`].
pub const STUCK: &str = "when all is well again nothing is stuck";
/// Some withdrawal lands: the other promises are not empty.
pub const LANDS: &str = "a withdrawal lands";

/// A bounded world.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of pods.
    pub pods: usize,
    /// Pods that there should be.
    pub desired: u32,
    /// The floor.
    pub floor: Floor,
    /// The verdicts that a plan may have.
    pub verdicts: Vec<Verdict>,
    /// The last serial of a ledger.
    pub serials: u8,
    /// Allows lists older than the ledger.
    pub stale: bool,
    /// The sender of a withdrawal may record its outcome in the ledger.
    pub record_outcomes: bool,
    /// The slices follow the pods one by one and at any time, or never: the endpoint controller may hang. Otherwise at once.
    pub slices_lag: bool,
    /// The most faults of each kind.
    pub faults: Faults,
    /// The pods begin without a fence.
    pub without_fences: bool,
    /// The serial of the ledger and of the pods' fences at the beginning.
    pub serial: u8,
    /// The decision that is replaced.
    pub mutant: Option<Mutant>,
}

impl Setup {
    /// A fleet without faults.
    #[must_use]
    pub fn without_faults(pods: usize, floor: u32, serials: u8) -> Self {
        let verdict = |bad, last| Verdict { bad, last, breaker: 0 };
        let all = (1 << pods) - 1;
        Self {
            pods,
            desired: u32::try_from(pods).unwrap_or(0),
            floor: Floor { count: floor, ratio: 0 },
            verdicts: vec![ALL_GOOD, verdict(all, false), verdict(all, true)],
            serials,
            stale: false,
            record_outcomes: false,
            slices_lag: false,
            faults: Faults::default(),
            without_fences: false,
            serial: 0,
            mutant: None,
        }
    }

    fn start(&self) -> State {
        let fence = if self.without_fences { PackedFence::default() } else { PackedFence(1 + self.serial) };
        let pod = Pod {
            life: 0,
            ready: true,
            switch: Switch::Yes,
            fence,
            ours: true,
            listed: true,
            ..Pod::default()
        };
        let none = Pod { life: GONE, ..Pod::default() };
        State {
            pods: std::array::from_fn(|slot| if slot < self.pods { pod } else { none }),
            ledger: Some(PackedLedger { epoch: 0, serial: self.serial, ..PackedLedger::default() }),
            epochs: 1,
            network: [Message::default(); MESSAGES],
            controllers: [Controller::default(); 2],
            faults: Faults::default(),
            broken: false,
            withheld: false,
        }
    }

    /// The input of a plan.
    #[must_use]
    pub fn view(&self, pods: [Pod; PODS], proven: bool, ledger: PackedLedger, verdict: Verdict) -> View {
        View { desired: self.desired, floor: self.floor, pods, proven, ledger, verdict }
    }

    /// A new ledger.
    #[must_use]
    pub fn begin(&self, epochs: u8, pods: &[Pod; PODS]) -> PackedLedger {
        if self.mutant == Some(Mutant::NoSweep) {
            let newest = pods.iter().map(|pod| pod.fence).max().and_then(PackedFence::unpack);
            let serial = newest.map_or(0, |fence| u8::try_from(fence.serial).unwrap_or(0));
            return PackedLedger { epoch: 0, serial, ..PackedLedger::default() };
        }
        PackedLedger { epoch: epochs, serial: 0, ..PackedLedger::default() }
    }

    /// Whether the patch's tests pass.
    #[must_use]
    pub fn fits(&self, pod: &Pod, message: &Message) -> bool {
        let fence = match self.mutant {
            Some(Mutant::NoFence) => true,
            Some(Mutant::FenceRestarts) => {
                pod.fence.unpack().map(|fence| fence.serial)
                    == message.fence.unpack().map(|fence| fence.serial)
            }
            _ => pod.fence == message.fence,
        };
        fence
            && pod.life == message.life
            && (message.switch == Switch::Any || message.switch == pod.switch)
            && (!message.ours || pod.ours)
    }
}

/// Applies a patch.
pub fn write(pod: &mut Pod, message: &Message) {
    if message.new_fence != PackedFence::default() {
        pod.fence = message.new_fence;
    }
    if message.new_switch != Switch::Any {
        pod.switch = message.new_switch;
    }
    match message.kind {
        Kind::Claim => (pod.ours, pod.claim_refused) = (true, false),
        Kind::Withhold => pod.withheld_by = message.withheld_by,
        Kind::Admit => pod.withheld_by = 0,
        Kind::Empty | Kind::Cancel | Kind::Pause => {}
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A controller reads the ledger, then lists the pods; also the restart after a crash.
    Observe(usize),
    /// A controller lists the pods; it reads the ledger when it plans.
    List(usize),
    /// A controller plans, stores the ledger by compare-and-swap, and sends the patches.
    Plan(usize, usize),
    /// A patch lands.
    Land(usize),
    /// A patch lands and stays in the network.
    LandTwice(usize),
    /// A withdrawal lands, and its sender records that.
    LandAndRecord(usize),
    /// A withdrawal gets no answer, and its sender records that.
    TimeOut(usize),
    /// A withdrawal is refused, and its sender records that.
    Refuse(usize),
    /// Admission refuses a claim.
    RefuseClaim(usize),
    /// A pod becomes unready.
    Fail(usize),
    /// A pod becomes ready again.
    Recover(usize),
    /// A pod is replaced by one of the same name.
    Replace(usize),
    /// A scale-down deletes a pod.
    ScaleDown(usize),
    /// The resource is deleted and created again (or its status wiped).
    Recreate,
    /// A person removes the fence.
    Unfence(usize),
    /// A person sets the switch.
    SetSwitch(usize, Switch),
    /// The slices follow a pod.
    Reflect(usize),
}

impl Model for Setup {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken {
            return;
        }
        for (place, controller) in state.controllers.iter().enumerate() {
            steps.push(Step::Observe(place));
            if self.stale {
                steps.push(Step::List(place));
            }
            if controller.phase != Phase::Idle {
                steps.extend((0..self.verdicts.len()).map(|verdict| Step::Plan(place, verdict)));
            }
        }
        for (place, message) in
            state.network.iter().enumerate().filter(|(_, message)| message.kind != Kind::Empty)
        {
            self.delivery_steps(state, place, message, steps);
        }
        for slot in (0..self.pods).filter(|slot| state.pods[*slot].life != GONE) {
            self.fault_steps(state, slot, steps);
            let pod = &state.pods[slot];
            if self.slices_lag && pod.listed != pod.routable() {
                steps.push(Step::Reflect(slot));
            }
        }
        if state.faults.recreated < self.faults.recreated {
            steps.push(Step::Recreate);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        let changed = match step {
            Step::Observe(place) => self.observe(&mut state, place, Phase::Observed),
            Step::List(place) => self.observe(&mut state, place, Phase::Listed),
            Step::Plan(place, verdict) => self.plan(&mut state, place, self.verdicts[verdict]),
            Step::Land(place) => self.land(&mut state, place, false),
            Step::LandTwice(place) => {
                state.faults.duplicates += 1;
                self.land(&mut state, place, true)
            }
            Step::LandAndRecord(place) => {
                let record_outcomes = record_outcome(&mut state, place, ActionOutcome::Landed);
                record_outcomes && self.land(&mut state, place, false)
            }
            Step::Reflect(slot) => {
                state.pods[slot].listed = state.pods[slot].routable();
                clear_lost(&mut state);
                true
            }
            Step::TimeOut(place) => record_outcome(&mut state, place, ActionOutcome::Unknown),
            Step::Refuse(place) => {
                let record_outcomes = record_outcome(&mut state, place, ActionOutcome::Refused);
                state.network[place] = Message::default();
                record_outcomes
            }
            Step::RefuseClaim(place) => {
                let message = std::mem::take(&mut state.network[place]);
                state.faults.claims_refused += 1;
                state.pods[usize::from(message.slot)].claim_refused = true;
                true
            }
            _ => inject(self, &mut state, step),
        };
        if !changed {
            return None;
        }
        state.settle();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FLOOR, |_, state: &State| !state.broken),
            Property::always(DARK, |_, state: &State| owned(state)),
            Property::always(STUCK, |setup: &Self, state: &State| recovers(setup, state)),
            Property::sometimes(LANDS, |_, state: &State| state.withheld),
        ]
    }
}

impl Setup {
    fn delivery_steps(&self, state: &State, place: usize, message: &Message, steps: &mut Vec<Step>) {
        let fits = self.fits(&state.pods[usize::from(message.slot)], message);
        if fits {
            steps.push(Step::Land(place));
        }
        if message.kind == Kind::Claim && state.faults.claims_refused < self.faults.claims_refused {
            steps.push(Step::RefuseClaim(place));
        }
        // Assumption: a claim lands at most once (see the README).
        let once = message.kind == Kind::Claim;
        if fits && state.faults.duplicates < self.faults.duplicates && !once {
            steps.push(Step::LandTwice(place));
        }
        if self.record_outcomes && message.kind == Kind::Withhold {
            steps.push(if fits { Step::LandAndRecord(place) } else { Step::Refuse(place) });
            steps.push(Step::TimeOut(place));
        }
    }

    fn fault_steps(&self, state: &State, slot: usize, steps: &mut Vec<Step>) {
        let (pod, faults, most) = (&state.pods[slot], &state.faults, &self.faults);
        if !pod.ready {
            steps.push(Step::Recover(slot));
        } else if faults.unready < most.unready {
            steps.push(Step::Fail(slot));
        }
        if faults.replaced < most.replaced && usize::from(pod.life) + 1 < LIVES {
            steps.push(Step::Replace(slot));
        }
        let existing = state.pods.iter().filter(|pod| pod.life != GONE).count();
        if faults.scale_downs < most.scale_downs && existing > usize::try_from(self.desired).unwrap_or(0) {
            steps.push(Step::ScaleDown(slot));
        }
        if faults.fences_removed < most.fences_removed && pod.fence != PackedFence::default() {
            steps.push(Step::Unfence(slot));
        }
        if faults.switch_edits < most.switch_edits {
            let other = if pod.switch == Switch::Yes { Switch::No } else { Switch::Yes };
            steps.push(Step::SetSwitch(slot, other));
        }
    }

    /// Where the slices follow at once, they do.
    fn follow(&self, state: &mut State) {
        if !self.slices_lag {
            state.list_pods();
        }
    }

    fn observe(&self, state: &mut State, place: usize, phase: Phase) -> bool {
        let ledger = state.ledger.filter(|_| phase == Phase::Observed);
        let generation = if phase == Phase::Observed { state.faults.recreated } else { 0 };
        state.controllers[place] = Controller { phase, generation, ledger, pods: state.pods, lost: 0 };
        true
    }

    fn plan(&self, state: &mut State, place: usize, verdict: Verdict) -> bool {
        let controller = std::mem::take(&mut state.controllers[place]);
        let proven = controller.phase == Phase::Observed;
        let base = if proven { controller.ledger } else { state.ledger };
        let read = base.unwrap_or_else(|| self.begin(state.epochs, &controller.pods));
        let mut plan = decide(self.mutant, &self.view(controller.pods, proven, read, verdict));
        if let Some(mut next) = plan.next {
            let current =
                base == state.ledger && (!proven || controller.generation == state.faults.recreated);
            if !current && self.mutant == Some(Mutant::ReplayAfterConflict) {
                let Some(merged) = replay(state.ledger, read, next, &mut plan) else { return false };
                next = merged;
            } else if !current && self.mutant != Some(Mutant::NoCompareAndSwap) {
                return false;
            }
            if next.serial > self.serials || next.epoch > 2 {
                return false;
            }
            state.epochs = state.epochs.max(next.epoch + 1);
            state.ledger = Some(next);
        }
        let relied = relied(&controller, &plan.next.unwrap_or(read));
        plan.patches().all(|message| {
            let withhold = message.kind == Kind::Withhold;
            let (relied, lost) = if withhold { (relied, controller.lost & relied) } else { (0, 0) };
            state.send(Message { relied, lost, ..message })
        })
    }

    fn land(&self, state: &mut State, place: usize, again: bool) -> bool {
        let message = state.network[place];
        let before = state.serving();
        write(&mut state.pods[usize::from(message.slot)], &message);
        self.follow(state);
        clear_lost(state);
        if !again {
            state.network[place] = Message::default();
        }
        let after = state.serving();
        if message.kind == Kind::Withhold {
            state.withheld = true;
            let excused = message.relied & message.lost & !after;
            let enough = (after | excused).count_ones() >= self.floor.of(self.desired);
            state.broken |= before != after && !enough;
        }
        true
    }
}

/// The pods that the plan counted as serving and did not reserve, as bits.
fn relied(controller: &Controller, ledger: &PackedLedger) -> u8 {
    let free = |slot: usize, pod: &Pod| {
        pod.serves() && ledger.entries[slot].get(usize::from(pod.life)).is_none_or(|entry| entry.state == 0)
    };
    let bits = controller.pods.iter().enumerate().map(|(slot, pod)| u8::from(free(slot, pod)) << slot);
    bits.sum()
}

/// Applies the old plan's entries to the new ledger.
fn replay(
    ledger: Option<PackedLedger>,
    read: PackedLedger,
    planned: PackedLedger,
    plan: &mut PackedPlan,
) -> Option<PackedLedger> {
    let mut merged = ledger?;
    if merged.epoch != planned.epoch {
        return None;
    }
    merged.serial += 1;
    for ((now, planned), read) in merged
        .entries
        .iter_mut()
        .flatten()
        .zip(planned.entries.iter().flatten())
        .zip(read.entries.iter().flatten())
    {
        if planned != read {
            *now = *planned;
        }
    }
    plan.next = Some(merged);
    Some(merged)
}

/// The sender of a withdrawal records its outcome, if the ledger is still the one that it wrote.
fn record_outcome(state: &mut State, place: usize, outcome: ActionOutcome) -> bool {
    let message = state.network[place];
    let Some(stored) = state.ledger else { return false };
    let mut ledger = unpack(&stored, 0);
    if PackedFence::of(Some(ledger.fence())) != message.ledger_fence {
        return false;
    }
    ledger.serial += 1;
    ledger.outcome(uid(message.slot, message.life), outcome);
    state.ledger = Some(pack(&ledger));
    true
}

fn inject(setup: &Setup, state: &mut State, step: Step) -> bool {
    let before = state.serving();
    match step {
        Step::Fail(slot) => {
            state.pods[slot].ready = false;
            state.faults.unready += 1;
        }
        Step::Recover(slot) => state.pods[slot].ready = true,
        Step::Replace(slot) => {
            let life = state.pods[slot].life + 1;
            state.pods[slot] = Pod { life, ready: true, switch: Switch::Unlabelled, ..Pod::default() };
            state.faults.replaced += 1;
        }
        Step::ScaleDown(slot) => {
            state.pods[slot] = Pod { life: GONE, ..Pod::default() };
            state.faults.scale_downs += 1;
        }
        Step::Recreate => {
            state.ledger = None;
            state.faults.recreated += 1;
        }
        Step::Unfence(slot) => {
            state.pods[slot].fence = PackedFence::default();
            state.faults.fences_removed += 1;
        }
        Step::SetSwitch(slot, switch) => {
            state.pods[slot].switch = switch;
            state.faults.switch_edits += 1;
        }
        _ => return false,
    }
    setup.follow(state);
    // Pods deleted by a scale-down were above `desired`, so they are not counted as lost.
    let lost = if matches!(step, Step::ScaleDown(_)) { 0 } else { before & !state.serving() };
    state.controllers.iter_mut().filter(|one| one.phase != Phase::Idle).for_each(|one| one.lost |= lost);
    state.network.iter_mut().for_each(|message| message.lost |= lost & message.relied);
    clear_lost(state);
    true
}

/// Removes pods that serve again from the lost ones.
fn clear_lost(state: &mut State) {
    let serving = state.serving();
    state.controllers.iter_mut().for_each(|one| one.lost &= !serving);
    state.network.iter_mut().for_each(|message| message.lost &= !serving);
}

/// See [`DARK`]; not checked after a lost ledger or an edit of labels.
fn owned(state: &State) -> bool {
    let Some(ledger) = state.ledger.filter(|_| state.faults.recreated == 0 && state.faults.switch_edits == 0)
    else {
        return true;
    };
    state.pods.iter().enumerate().filter(|(_, pod)| pod.life != GONE).all(|(slot, pod)| {
        let dark = pod.withheld_by != 0 && matches!(pod.switch, Switch::No | Switch::Pause);
        !dark || ledger.entries[slot].get(usize::from(pod.life)).is_some_and(|entry| entry.state != 0)
    })
}
