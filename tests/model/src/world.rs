//! The state of the model, packed into a few hundred bytes without pointers, because ten million states are kept.
//!
//! Reasons and times of entries, returned pods and retry counts are left out: they only make the gate withhold less or
//! later, so that the promises hold without them.

use std::hash::{Hash, Hasher};

use crate::decide::fleet::{Epoch, Fence};

/// The most pods.
pub const PODS: usize = 4;
/// The most incarnations of one pod's name.
pub const LIVES: usize = 2;
/// The most patches under way.
pub const MESSAGES: usize = 12;
/// The `life` of a deleted pod.
pub const GONE: u8 = 9;
const SERIALS: u64 = 84;

/// A fence in one byte; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackedFence(pub u8);

impl PackedFence {
    /// The packed form.
    #[must_use]
    pub fn of(fence: Option<Fence>) -> Self {
        fence.map_or(Self(0), |fence| {
            assert!(fence.serial < SERIALS && fence.epoch.0 < 3, "{fence}");
            Self(u8::try_from(1 + fence.epoch.0 * SERIALS + fence.serial).unwrap_or(0))
        })
    }

    /// The product's form; `None` for 0.
    #[must_use]
    pub fn unpack(self) -> Option<Fence> {
        let packed = u64::from(self.0.checked_sub(1)?);
        Some(Fence { epoch: Epoch(packed / SERIALS), serial: packed % SERIALS })
    }
}

/// The switch. In a patch `Any` means that it is not tested or not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Switch {
    /// Any value.
    #[default]
    Any,
    /// traffic=yes.
    Yes,
    /// traffic=no.
    No,
    /// traffic=pause.
    Pause,
    /// Not set.
    Unlabelled,
}

/// A pod as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Incarnation of its name, or [`GONE`].
    pub life: u8,
    /// Kubernetes' Ready.
    pub ready: bool,
    /// The label.
    pub switch: Switch,
    /// The fence.
    pub fence: PackedFence,
    /// It has `kubervisor/name`.
    pub ours: bool,
    /// The breaker that withheld it, from 1 (with breakAt); 0: none.
    pub withheld_by: u8,
    /// A ready endpoint of the Service's slices names it.
    pub listed: bool,
    /// Admission refused a claim, and none has landed since.
    pub claim_refused: bool,
}

impl Pod {
    /// Whether the slices should name it.
    #[must_use]
    pub fn routable(&self) -> bool {
        self.life != GONE && self.ready && self.switch == Switch::Yes
    }

    /// Whether it gets requests as it should.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.routable() && self.listed
    }
}

impl Hash for Pod {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes = [
            self.life,
            u8::from(self.ready),
            self.switch as u8,
            self.fence.0,
            u8::from(self.ours),
            self.withheld_by,
            u8::from(self.listed),
            u8::from(self.claim_refused),
        ];
        state.write_u64(u64::from_le_bytes(bytes));
    }
}

/// An entry of the ledger; state 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackedEntry {
    /// Index of the state, from 1.
    pub state: u8,
    /// The fence that the writes test.
    pub fence: PackedFence,
    /// The fence that an admit or cancel writes.
    pub next: PackedFence,
    /// Index of the breaker, plus 128 for a person's pause.
    pub breaker: u8,
}

impl Hash for PackedEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(u32::from_le_bytes([self.state, self.fence.0, self.next.0, self.breaker]));
    }
}

/// A ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackedLedger {
    /// A number instead of a random value.
    pub epoch: u8,
    /// Rises with each write.
    pub serial: u8,
    /// By name and incarnation.
    pub entries: [[PackedEntry; LIVES]; PODS],
}

impl PackedLedger {
    /// The number of entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.iter().flatten().filter(|entry| entry.state != 0).count()
    }
}

/// A patch under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// What it does.
    pub kind: Kind,
    /// Index of the pod's name.
    pub slot: u8,
    /// Incarnation of the name.
    pub life: u8,
    /// Test.
    pub fence: PackedFence,
    /// Test.
    pub switch: Switch,
    /// Test.
    pub ours: bool,
    /// Write.
    pub new_fence: PackedFence,
    /// Write.
    pub new_switch: Switch,
    /// Write.
    pub withheld_by: u8,
    /// Withdrawals: the pods that the plan counted as serving, as bits.
    pub relied: u8,
    /// Of these, the pods that left service since its list without us.
    pub lost: u8,
    /// Withdrawals: the fence of the ledger's write that reserved it.
    pub ledger_fence: PackedFence,
}

/// What a patch is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// No patch.
    #[default]
    Empty,
    /// Name and fence; a switch where there is none.
    Claim,
    /// traffic=no.
    Withhold,
    /// A new fence.
    Cancel,
    /// traffic=yes and a new fence.
    Admit,
    /// traffic=pause and a new fence.
    Pause,
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (a, b) = (self.kind as u8, self.switch as u8);
        let tests = [
            a,
            self.slot,
            self.life,
            self.fence.0,
            b,
            u8::from(self.ours),
            self.new_fence.0,
            self.withheld_by,
        ];
        state.write_u64(u64::from_le_bytes(tests));
        state.write_u32(u32::from_le_bytes([
            self.new_switch as u8,
            self.relied,
            self.lost,
            self.ledger_fence.0,
        ]));
    }
}

/// The memory of a controller. A crash loses it, which is the same as a new `Observe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Controller {
    /// Its phase.
    pub phase: Phase,
    /// The resource's generation that it read.
    pub generation: u8,
    /// The ledger that it read, if any.
    pub ledger: Option<PackedLedger>,
    /// Its list.
    pub pods: [Pod; PODS],
    /// The pods that left service since the list without us, as bits.
    pub lost: u8,
}

/// The phase of a controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// No list.
    #[default]
    Idle,
    /// It has read the ledger, then listed the pods.
    Observed,
    /// It has listed the pods, and reads the ledger when it plans.
    Listed,
}

/// Counts of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Faults {
    /// Patches that land twice.
    pub duplicates: u8,
    /// Pods that became unready.
    pub unready: u8,
    /// Pods replaced under the same name.
    pub replaced: u8,
    /// Deletions and re-creations of the resource.
    pub recreated: u8,
    /// Fences removed by a person.
    pub fences_removed: u8,
    /// Switches set by a person.
    pub switch_edits: u8,
    /// Pods deleted by a scale-down.
    pub scale_downs: u8,
    /// Claims refused by admission.
    pub claims_refused: u8,
}

impl Hash for Faults {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            duplicates,
            unready,
            replaced,
            recreated,
            fences_removed,
            switch_edits,
            scale_downs,
            claims_refused,
        } = *self;
        let bytes = [
            duplicates,
            unready,
            replaced,
            recreated,
            fences_removed,
            switch_edits,
            scale_downs,
            claims_refused,
        ];
        state.write_u64(u64::from_le_bytes(bytes));
    }
}

/// One state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The pods as stored.
    pub pods: [Pod; PODS],
    /// The ledger as stored.
    pub ledger: Option<PackedLedger>,
    /// Epochs drawn so far.
    pub epochs: u8,
    /// The patches under way, sorted.
    pub network: [Message; MESSAGES],
    /// Sorted, because they are interchangeable.
    pub controllers: [Controller; 2],
    /// Faults so far.
    pub faults: Faults,
    /// A withdrawal landed that left fewer than the floor.
    pub broken: bool,
    /// A withdrawal has landed.
    pub withheld: bool,
}

impl State {
    /// Pods that serve, as bits.
    #[must_use]
    pub fn serving(&self) -> u8 {
        self.pods.iter().enumerate().map(|(slot, pod)| u8::from(pod.serves()) << slot).sum()
    }

    /// Adds a patch to the network unless it is there already. `false`: the network is full.
    #[must_use]
    pub fn send(&mut self, message: Message) -> bool {
        if self.network.contains(&message) {
            return true;
        }
        let free = self.network.iter_mut().find(|place| place.kind == Kind::Empty);
        free.map(|place| *place = message).is_some()
    }

    /// The slices follow the pods.
    pub fn list_pods(&mut self) {
        self.pods.iter_mut().for_each(|pod| pod.listed = pod.routable());
    }

    /// Normalises equivalent states.
    pub fn settle(&mut self) {
        let lives = self.pods.map(|pod| pod.life);
        for message in &mut self.network {
            if lives[usize::from(message.slot)] != message.life {
                *message = Message::default();
            }
        }
        self.network.sort_unstable();
        self.controllers.sort_unstable();
    }
}
