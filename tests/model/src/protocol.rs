//! What may happen, in any order: two controllers that look and plan, patches that land late, twice or never, pods that
//! fail and are replaced, a resource that is made anew, people who edit labels.
//!
//! A plan is stored and its patches are sent in one step: a crash between any two of these writes is a patch that never
//! lands, and a crash before is a controller that looks anew. Reading the ledger and listing the pods after it is one step,
//! too: whatever happens between them is either seen by the list or refused by the compare-and-swap.

use stateright::{Model, Property};

use crate::{
    bridge::{CALM, Floor, Thought, Verdict, View, book, ledger, uid},
    decide::gate::ledger::ActionOutcome,
    heal::heals,
    mutant::{Mutant, decide},
    world::{
        Book, Controller, Faults, GONE, Kind, LIVES, MESSAGES, Mark, Message, PODS, Phase, Pod, State, Switch,
    },
};

/// At the moment of each withdrawal the pods that serve afterwards are at least the floor; those that the plan counted on
/// and that were lost without us since its list are not held against it.
pub const FLOOR: &str = "the floor holds";
/// What we took out is in the ledger.
pub const DARK: &str = "a dark pod has an entry";
/// See [`heals`].
pub const STUCK: &str = "when all is well again nothing is stuck";
/// That something happens at all.
pub const LANDS: &str = "a withdrawal lands";

/// A bounded world.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many.
    pub pods: usize,
    /// How many there should be.
    pub desired: u32,
    /// How many must serve.
    pub floor: Floor,
    /// What the breakers may say when a controller plans.
    pub verdicts: Vec<Verdict>,
    /// The last serial of a ledger.
    pub serials: u8,
    /// Lists older than the ledger.
    pub stale: bool,
    /// What became of a withdrawal is written into the ledger at once.
    pub told: bool,
    /// The most of each.
    pub faults: Faults,
    /// The pods begin without a fence.
    pub bare: bool,
    /// The ledger's serial, and the pods' fence, at the beginning.
    pub serial: u8,
    /// One decision is replaced.
    pub mutant: Option<Mutant>,
}

impl Setup {
    /// A fleet without faults.
    #[must_use]
    pub fn calm(pods: usize, floor: u32, serials: u8) -> Self {
        let verdict = |bad, last| Verdict { bad, last, breaker: 0 };
        let all = (1 << pods) - 1;
        Self {
            pods,
            desired: u32::try_from(pods).unwrap_or(0),
            floor: Floor { count: floor, ratio: 0 },
            verdicts: vec![CALM, verdict(all, false), verdict(all, true)],
            serials,
            stale: false,
            told: false,
            faults: Faults::default(),
            bare: false,
            serial: 0,
            mutant: None,
        }
    }

    fn start(&self) -> State {
        let mark = if self.bare { Mark::default() } else { Mark(1 + self.serial) };
        let pod = Pod { life: 0, ready: true, switch: Switch::Yes, mark, ours: true, cut: 0 };
        let none = Pod { life: GONE, ..Pod::default() };
        State {
            pods: std::array::from_fn(|slot| if slot < self.pods { pod } else { none }),
            book: Some(Book { epoch: 0, serial: self.serial, ..Book::default() }),
            epochs: 1,
            network: [Message::default(); MESSAGES],
            controllers: [Controller::default(); 2],
            faults: Faults::default(),
            broken: false,
            cut: false,
        }
    }

    /// What a controller knows, as the plan sees it.
    #[must_use]
    pub fn view(&self, pods: [Pod; PODS], proven: bool, book: Book, verdict: Verdict) -> View {
        View { desired: self.desired, floor: self.floor, pods, proven, book, verdict }
    }

    /// A ledger that begins.
    #[must_use]
    pub fn begin(&self, epochs: u8, pods: &[Pod; PODS]) -> Book {
        if self.mutant == Some(Mutant::NoSweep) {
            let newest = pods.iter().map(|pod| pod.mark).max().and_then(Mark::fence);
            let serial = newest.map_or(0, |fence| u8::try_from(fence.serial).unwrap_or(0));
            return Book { epoch: 0, serial, ..Book::default() };
        }
        Book { epoch: epochs, serial: 0, ..Book::default() }
    }

    /// The patch's tests hold.
    #[must_use]
    pub fn fits(&self, pod: &Pod, message: &Message) -> bool {
        let fence = match self.mutant {
            Some(Mutant::NoFence) => true,
            Some(Mutant::FenceRestarts) => {
                pod.mark.fence().map(|fence| fence.serial) == message.mark.fence().map(|fence| fence.serial)
            }
            _ => pod.mark == message.mark,
        };
        fence
            && pod.life == message.life
            && (message.switch == Switch::Any || message.switch == pod.switch)
            && (!message.ours || pod.ours)
    }
}

/// What the patch writes.
pub fn write(pod: &mut Pod, message: &Message) {
    if message.new_mark != Mark::default() {
        pod.mark = message.new_mark;
    }
    if message.new_switch != Switch::Any {
        pod.switch = message.new_switch;
    }
    match message.kind {
        Kind::Claim => pod.ours = true,
        Kind::Withhold => pod.cut = message.cut,
        Kind::Admit => pod.cut = 0,
        Kind::Empty | Kind::Cancel | Kind::Pause => {}
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A controller reads the ledger and lists the pods; what it knew before is lost (also: it crashed).
    Look(usize),
    /// A controller lists the pods, and will read the ledger later.
    List(usize),
    /// It plans, stores the ledger by compare-and-swap, and sends the patches.
    Plan(usize, usize),
    /// A patch lands.
    Land(usize),
    /// A patch lands, and will land again.
    LandTwice(usize),
    /// A withdrawal lands, and its sender writes so.
    LandAndTell(usize),
    /// There is no answer to a withdrawal, and its sender writes so.
    TimeOut(usize),
    /// A withdrawal is refused, and its sender writes so.
    Refuse(usize),
    /// A pod is not ready any more.
    Fail(usize),
    /// It is again.
    Recover(usize),
    /// It is deleted, and one of the same name is made.
    Replace(usize),
    /// The fleet is one pod too large: this one goes.
    ScaleDown(usize),
    /// The resource is deleted and made anew (or its status wiped).
    Recreate,
    /// A person removes the fence.
    Unfence(usize),
    /// A person sets the switch.
    Hand(usize, Switch),
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
            steps.push(Step::Look(place));
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
            self.arrivals(state, place, message, steps);
        }
        for slot in (0..self.pods).filter(|slot| state.pods[*slot].life != GONE) {
            self.mishaps(state, slot, steps);
        }
        if state.faults.recreated < self.faults.recreated {
            steps.push(Step::Recreate);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        let changed = match step {
            Step::Look(place) => self.look(&mut state, place, Phase::Looked),
            Step::List(place) => self.look(&mut state, place, Phase::Listed),
            Step::Plan(place, verdict) => self.plan(&mut state, place, self.verdicts[verdict]),
            Step::Land(place) => self.land(&mut state, place, false),
            Step::LandTwice(place) => {
                state.faults.duplicates += 1;
                self.land(&mut state, place, true)
            }
            Step::LandAndTell(place) => {
                let told = tell(&mut state, place, ActionOutcome::Landed);
                told && self.land(&mut state, place, false)
            }
            Step::TimeOut(place) => tell(&mut state, place, ActionOutcome::Unknown),
            Step::Refuse(place) => {
                let told = tell(&mut state, place, ActionOutcome::Refused);
                state.network[place] = Message::default();
                told
            }
            _ => mishap(&mut state, step),
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
            Property::always(STUCK, |setup: &Self, state: &State| heals(setup, state)),
            Property::sometimes(LANDS, |_, state: &State| state.cut),
        ]
    }
}

impl Setup {
    fn arrivals(&self, state: &State, place: usize, message: &Message, steps: &mut Vec<Step>) {
        let fits = self.fits(&state.pods[usize::from(message.slot)], message);
        if fits {
            steps.push(Step::Land(place));
        }
        // A claim is sent once and never again by whatever carries it.
        let once = message.kind == Kind::Claim;
        if fits && state.faults.duplicates < self.faults.duplicates && !once {
            steps.push(Step::LandTwice(place));
        }
        if self.told && message.kind == Kind::Withhold {
            steps.push(if fits { Step::LandAndTell(place) } else { Step::Refuse(place) });
            steps.push(Step::TimeOut(place));
        }
    }

    fn mishaps(&self, state: &State, slot: usize, steps: &mut Vec<Step>) {
        let (pod, faults, most) = (&state.pods[slot], &state.faults, &self.faults);
        if !pod.ready {
            steps.push(Step::Recover(slot));
        } else if faults.unready < most.unready {
            steps.push(Step::Fail(slot));
        }
        if faults.replaced < most.replaced && usize::from(pod.life) + 1 < LIVES {
            steps.push(Step::Replace(slot));
        }
        let there = state.pods.iter().filter(|pod| pod.life != GONE).count();
        if faults.scaled < most.scaled && there > usize::try_from(self.desired).unwrap_or(0) {
            steps.push(Step::ScaleDown(slot));
        }
        if faults.unfenced < most.unfenced && pod.mark != Mark::default() {
            steps.push(Step::Unfence(slot));
        }
        if faults.hands < most.hands {
            let other = if pod.switch == Switch::Yes { Switch::No } else { Switch::Yes };
            steps.push(Step::Hand(slot, other));
        }
    }

    fn look(&self, state: &mut State, place: usize, phase: Phase) -> bool {
        let book = state.book.filter(|_| phase == Phase::Looked);
        let generation = if phase == Phase::Looked { state.faults.recreated } else { 0 };
        state.controllers[place] = Controller { phase, generation, book, pods: state.pods, lost: 0 };
        true
    }

    fn plan(&self, state: &mut State, place: usize, verdict: Verdict) -> bool {
        let controller = std::mem::take(&mut state.controllers[place]);
        let proven = controller.phase == Phase::Looked;
        let base = if proven { controller.book } else { state.book };
        let read = base.unwrap_or_else(|| self.begin(state.epochs, &controller.pods));
        let mut thought = decide(self.mutant, &self.view(controller.pods, proven, read, verdict));
        if let Some(mut next) = thought.next {
            let current = base == state.book && (!proven || controller.generation == state.faults.recreated);
            if !current && self.mutant == Some(Mutant::ReplayAfterConflict) {
                let Some(merged) = replay(state.book, read, next, &mut thought) else { return false };
                next = merged;
            } else if !current && self.mutant != Some(Mutant::NoCompareAndSwap) {
                return false;
            }
            if next.serial > self.serials || next.epoch > 2 {
                return false;
            }
            state.epochs = state.epochs.max(next.epoch + 1);
            state.book = Some(next);
        }
        let relied = relied(&controller, &thought.next.unwrap_or(read));
        thought.patches().all(|message| {
            let cut = message.kind == Kind::Withhold;
            let (relied, lost) = if cut { (relied, controller.lost & relied) } else { (0, 0) };
            state.send(Message { relied, lost, ..message })
        })
    }

    fn land(&self, state: &mut State, place: usize, again: bool) -> bool {
        let message = state.network[place];
        let before = state.serving();
        write(&mut state.pods[usize::from(message.slot)], &message);
        back(state);
        if !again {
            state.network[place] = Message::default();
        }
        let after = state.serving();
        if message.kind == Kind::Withhold {
            state.cut = true;
            let excused = message.relied & message.lost & !after;
            let enough = (after | excused).count_ones() >= self.floor.of(self.desired);
            state.broken |= before != after && !enough;
        }
        true
    }
}

/// Pods that the plan counted on: they served, and it left them alone.
fn relied(controller: &Controller, book: &Book) -> u8 {
    let free = |slot: usize, pod: &Pod| {
        pod.serves() && book.held[slot].get(usize::from(pod.life)).is_none_or(|held| held.state == 0)
    };
    let bits = controller.pods.iter().enumerate().map(|(slot, pod)| u8::from(free(slot, pod)) << slot);
    bits.sum()
}

/// The old reservations over the new ledger.
fn replay(book: Option<Book>, read: Book, planned: Book, thought: &mut Thought) -> Option<Book> {
    let mut merged = book?;
    if merged.epoch != planned.epoch {
        return None;
    }
    merged.serial += 1;
    for ((now, planned), read) in
        merged.held.iter_mut().flatten().zip(planned.held.iter().flatten()).zip(read.held.iter().flatten())
    {
        if planned != read {
            *now = *planned;
        }
    }
    thought.next = Some(merged);
    Some(merged)
}

/// The sender of a withdrawal writes what became of it over the ledger that it wrote itself; on a conflict it does not.
fn tell(state: &mut State, place: usize, outcome: ActionOutcome) -> bool {
    let message = state.network[place];
    let Some(stored) = state.book else { return false };
    let mut ledger = ledger(&stored, 0);
    if Mark::of(Some(ledger.fence())) != message.stamp {
        return false;
    }
    ledger.serial += 1;
    ledger.outcome(uid(message.slot, message.life), outcome);
    state.book = Some(book(&ledger));
    true
}

fn mishap(state: &mut State, step: Step) -> bool {
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
            state.faults.scaled += 1;
        }
        Step::Recreate => {
            state.book = None;
            state.faults.recreated += 1;
        }
        Step::Unfence(slot) => {
            state.pods[slot].mark = Mark::default();
            state.faults.unfenced += 1;
        }
        Step::Hand(slot, switch) => {
            state.pods[slot].switch = switch;
            state.faults.hands += 1;
        }
        _ => return false,
    }
    // Nobody has to excuse a scale-down: it was known that there were too many.
    let lost = if matches!(step, Step::ScaleDown(_)) { 0 } else { before & !state.serving() };
    state.controllers.iter_mut().filter(|one| one.phase != Phase::Idle).for_each(|one| one.lost |= lost);
    state.network.iter_mut().for_each(|message| message.lost |= lost & message.relied);
    back(state);
    true
}

/// A pod that serves again is not lost any more.
fn back(state: &mut State) {
    let serving = state.serving();
    state.controllers.iter_mut().for_each(|one| one.lost &= !serving);
    state.network.iter_mut().for_each(|message| message.lost &= !serving);
}

/// While nobody touched ledger or labels: what we took out is in the ledger.
fn owned(state: &State) -> bool {
    let Some(book) = state.book.filter(|_| state.faults.recreated == 0 && state.faults.hands == 0) else {
        return true;
    };
    state.pods.iter().enumerate().filter(|(_, pod)| pod.life != GONE).all(|(slot, pod)| {
        let dark = pod.cut != 0 && matches!(pod.switch, Switch::No | Switch::Pause);
        !dark || book.held[slot].get(usize::from(pod.life)).is_some_and(|held| held.state != 0)
    })
}
