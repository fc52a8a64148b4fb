//! The world of the model, packed: a few hundred bytes without a pointer, because ten million of them are looked at.
//!
//! What is left out cannot weaken what is kept: reasons and times in entries, memories of returned pods and retry counts
//! only ever make the gate withhold less or later.

use std::hash::{Hash, Hasher};

use crate::decide::fleet::{Epoch, Fence};

/// The most pods.
pub const PODS: usize = 4;
/// How many pods may have had one name.
pub const LIVES: usize = 2;
/// The most patches under way.
pub const MESSAGES: usize = 12;
/// The life of a pod that is no more.
pub const GONE: u8 = 9;
const SERIALS: u64 = 84;

/// A fence, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(pub u8);

impl Mark {
    /// Packs.
    #[must_use]
    pub fn of(fence: Option<Fence>) -> Self {
        fence.map_or(Self(0), |fence| {
            assert!(fence.serial < SERIALS && fence.epoch.0 < 3, "{fence}");
            Self(u8::try_from(1 + fence.epoch.0 * SERIALS + fence.serial).unwrap_or(0))
        })
    }

    /// Unpacks.
    #[must_use]
    pub fn fence(self) -> Option<Fence> {
        let packed = u64::from(self.0.checked_sub(1)?);
        Some(Fence { epoch: Epoch(packed / SERIALS), serial: packed % SERIALS })
    }
}

/// The switch, packed; as a test or a write, `Any` leaves it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Switch {
    /// Whatever it says.
    #[default]
    Any,
    /// Traffic.
    Yes,
    /// None.
    No,
    /// None, until a person says so.
    Pause,
    /// Not set.
    Unlabelled,
}

/// A pod as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Which of its name; [`GONE`].
    pub life: u8,
    /// Kubernetes' Ready.
    pub ready: bool,
    /// The label.
    pub switch: Switch,
    /// The fence.
    pub mark: Mark,
    /// It carries our name.
    pub ours: bool,
    /// Breaker and breakAt: 0 for none, else the breaker's number.
    pub cut: u8,
}

impl Pod {
    /// It takes requests.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.life != GONE && self.ready && self.switch == Switch::Yes
    }
}

impl Hash for Pod {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes = [
            self.life,
            u8::from(self.ready),
            self.switch as u8,
            self.mark.0,
            u8::from(self.ours),
            self.cut,
            0,
            0,
        ];
        state.write_u64(u64::from_le_bytes(bytes));
    }
}

/// An entry; state 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// One more than the place of the state.
    pub state: u8,
    /// The fence that its writes test.
    pub mark: Mark,
    /// The fence that ends it.
    pub next: Mark,
    /// The breaker's number, and 128 for a person's pause.
    pub breaker: u8,
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(u32::from_le_bytes([self.state, self.mark.0, self.next.0, self.breaker]));
    }
}

/// The ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Book {
    /// Its number, for the random one.
    pub epoch: u8,
    /// Rises with each write.
    pub serial: u8,
    /// By name and life.
    pub held: [[Held; LIVES]; PODS],
}

impl Book {
    /// Entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.held.iter().flatten().filter(|held| held.state != 0).count()
    }
}

/// A patch under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// 0 for none; see [`Kind`].
    pub kind: Kind,
    /// To which name.
    pub slot: u8,
    /// And which of it.
    pub life: u8,
    /// Test.
    pub mark: Mark,
    /// Test.
    pub switch: Switch,
    /// Test.
    pub ours: bool,
    /// Write.
    pub new_mark: Mark,
    /// Write.
    pub new_switch: Switch,
    /// Write.
    pub cut: u8,
    /// A withdrawal: pods that its plan counted on.
    pub relied: u8,
    /// Of these, pods that left service since its list without us.
    pub lost: u8,
    /// A withdrawal: the ledger's write that reserved it.
    pub stamp: Mark,
}

/// What a patch is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// No patch.
    #[default]
    Empty,
    /// Our name, a fence, a switch where there is none.
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
        let tests = [a, self.slot, self.life, self.mark.0, b, u8::from(self.ours), self.new_mark.0, self.cut];
        state.write_u64(u64::from_le_bytes(tests));
        state.write_u32(u32::from_le_bytes([self.new_switch as u8, self.relied, self.lost, self.stamp.0]));
    }
}

/// What a controller knows: nothing of it outlives a crash, and a crash is to look anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Controller {
    /// How far it is.
    pub phase: Phase,
    /// The resource's generation that it read.
    pub generation: u8,
    /// The ledger that it read, if there was one.
    pub book: Option<Book>,
    /// Its list.
    pub pods: [Pod; PODS],
    /// Pods that left service since then without us.
    pub lost: u8,
}

/// How far a controller is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// It knows nothing.
    #[default]
    Idle,
    /// It read the ledger and then listed the pods.
    Looked,
    /// It has a list, and will read the ledger after it.
    Listed,
}

/// How many faults have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Faults {
    /// Patches that land once more.
    pub duplicates: u8,
    /// Pods that became unready.
    pub unready: u8,
    /// Pods replaced by one of the same name.
    pub replaced: u8,
    /// Deletions and re-creations of the resource.
    pub recreated: u8,
    /// Fences removed by a person.
    pub unfenced: u8,
    /// Switches set by a person.
    pub hands: u8,
    /// Pods of a scale-down.
    pub scaled: u8,
}

impl Hash for Faults {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { duplicates, unready, replaced, recreated, unfenced, hands, scaled } = *self;
        let bytes = [duplicates, unready, replaced, recreated, unfenced, hands, scaled, 0];
        state.write_u64(u64::from_le_bytes(bytes));
    }
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// As stored.
    pub pods: [Pod; PODS],
    /// As stored.
    pub book: Option<Book>,
    /// Epochs drawn so far.
    pub epochs: u8,
    /// In order, the empty ones first.
    pub network: [Message; MESSAGES],
    /// In order: they are alike.
    pub controllers: [Controller; 2],
    /// So far.
    pub faults: Faults,
    /// A withdrawal landed that left fewer than the floor.
    pub broken: bool,
    /// A withdrawal has landed.
    pub cut: bool,
}

impl State {
    /// Pods that serve, as bits.
    #[must_use]
    pub fn serving(&self) -> u8 {
        self.pods.iter().enumerate().map(|(slot, pod)| u8::from(pod.serves()) << slot).sum()
    }

    /// Puts a patch under way; the same one again is the same one. `false`: the network is full.
    #[must_use]
    pub fn send(&mut self, message: Message) -> bool {
        if self.network.contains(&message) {
            return true;
        }
        let free = self.network.iter_mut().find(|place| place.kind == Kind::Empty);
        free.map(|place| *place = message).is_some()
    }

    /// The one form of all states that mean the same.
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
