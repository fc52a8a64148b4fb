//! A master and its pods in simulated time: keepalives at an interval, expiry at the TTL, and a plan after each change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use crate::decide::{
    ensemble::LifeStatus,
    fleet::Epoch,
    gate::{self, Plan, budget::Budget},
    key::Key,
    policy::Policy,
    roster::{EnsembleRow, FleetRules, Roster, silence::SilenceTracker},
    time::Timestamp,
    verdict::{Call, Opinion, Source, SourceKind, Verdicts},
};

pub(super) const TTL: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_millis(100);

pub(super) fn key(n: u8) -> Key {
    Key::of(Ipv4Addr::new(10, 0, 0, n))
}

pub(super) fn address(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 80)
}

pub(super) fn addresses(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<SocketAddrV4> {
    numbers.into_iter().map(address).collect()
}

/// One pod and its agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) id: String,
    pub(super) nonce: String,
    pub(super) port: Option<u16>,
    pub(super) pinging: bool,
    pub(super) said_down: bool,
    heard: Timestamp,
    next_ping: Timestamp,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) started: Timestamp,
    pub(super) every: Duration,
    pub(super) policy: Policy,
    pub(super) rules: FleetRules,
    pub(super) agents: BTreeMap<u8, Agent>,
    pub(super) roster: Roster,
    pub(super) withheld: BTreeSet<u8>,
    pub(super) plan: Option<Plan>,
    pub(super) lists: Vec<BTreeSet<SocketAddrV4>>,
    silence: SilenceTracker,
    evaluation: u64,
    connected: bool,
}

impl World {
    /// `pods` healthy pods with a keepalive each `every`, later than one TTL after the start.
    pub(super) fn new(pods: u8, every: Duration) -> Self {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let mut world = Self {
            now,
            started: now,
            every,
            policy: Policy::without_manifest("web"),
            rules: FleetRules::default(),
            agents: BTreeMap::new(),
            roster: Roster::begin("default/web", Epoch(7)),
            withheld: BTreeSet::new(),
            plan: None,
            lists: Vec::new(),
            silence: SilenceTracker::default(),
            evaluation: 0,
            connected: true,
        };
        for n in 1..=pods {
            world.join(n, Some(80));
        }
        world.run(TTL + every);
        world.lists.clear();
        world
    }

    pub(super) fn join(&mut self, n: u8, port: Option<u16>) {
        let (id, nonce) = (format!("web-{n}"), format!("{n}-first"));
        // Spread over the interval, as with real pods.
        let offset = self.every * u32::from(n % 8) / 8;
        let next_ping = self.now + (self.every - offset);
        let agent = Agent { id, nonce, port, pinging: true, said_down: false, heard: self.now, next_ping };
        self.agents.insert(n, agent);
        self.settle();
    }

    pub(super) fn agent(&mut self, n: u8) -> &mut Agent {
        self.agents.get_mut(&n).unwrap()
    }

    /// The process ends without `down`.
    pub(super) fn kill(&mut self, n: u8) {
        self.agent(n).pinging = false;
    }

    pub(super) fn down(&mut self, n: u8) {
        let agent = self.agent(n);
        (agent.pinging, agent.said_down) = (false, true);
        self.settle();
    }

    /// The process ends and starts again: a new nonce, and a payload without a port at first.
    pub(super) fn restart(&mut self, n: u8) {
        let now = self.now;
        let agent = self.agent(n);
        agent.nonce.push('+');
        (agent.pinging, agent.said_down, agent.port, agent.heard) = (true, false, None, now);
        self.settle();
    }

    /// Whether keepalives reach the master.
    pub(super) fn connect(&mut self, connected: bool) {
        self.connected = connected;
    }

    /// The callback's verdict is `withhold` for exactly these.
    pub(super) fn object(&mut self, numbers: impl IntoIterator<Item = u8>) {
        self.withheld = numbers.into_iter().collect();
        self.evaluation += 1;
        self.settle();
    }

    /// A new process of the master with the stored roster; `lost`: with the endpoints file only.
    pub(super) fn restart_master(&mut self, lost: bool) {
        self.started = self.now;
        self.silence = SilenceTracker::default();
        self.roster = if lost {
            Roster::adopt("default/web", Epoch(8), &self.roster.addresses(), self.now)
        } else {
            Roster::decode(&self.roster.encode().unwrap(), "default/web").unwrap()
        };
        if lost {
            // The ensemble is lost with the store.
            for agent in self.agents.values_mut() {
                agent.heard = Timestamp::from_unix_millis(0);
            }
        }
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + TICK;
            for agent in self.agents.values_mut().filter(|agent| agent.next_ping <= self.now) {
                agent.next_ping = self.now + self.every;
                if agent.pinging && self.connected {
                    agent.heard = self.now;
                }
            }
            self.settle();
        }
    }

    pub(super) fn listed(&self) -> BTreeSet<SocketAddrV4> {
        self.roster.addresses()
    }

    pub(super) fn floor(&self) -> u32 {
        Budget::floor(&self.policy, self.roster.desired(&self.rules))
    }

    /// Live and listed.
    pub(super) fn serving(&self) -> usize {
        let listed = self.listed();
        let serves = |(n, agent): &(&u8, &Agent)| self.live(agent) && listed.contains(&address(**n));
        self.agents.iter().filter(serves).count()
    }

    fn live(&self, agent: &Agent) -> bool {
        !agent.said_down && self.now.since(agent.heard) < TTL
    }

    /// Plans until nothing changes, as the gate does.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20, "the gate does not settle: {:?}", self.plan);
            let before = self.roster.clone();
            self.step();
            self.lists.push(self.roster.addresses());
            if self.roster == before {
                return;
            }
        }
    }

    fn step(&mut self) {
        let rows: Vec<EnsembleRow> = self.agents.iter().map(|(n, agent)| self.row(*n, agent)).collect();
        let draft = self.roster.clone().observe(self.now, &self.rules, &rows);
        let floor = Budget::floor(&self.policy, draft.desired(&self.rules));
        self.silence.notice(self.now, TTL, floor, &draft, &rows);
        let hold = (self.now < self.started + TTL).then(|| "just started".to_owned());
        let fleet = draft.fleet(&self.rules, |key| self.silence.believed(key), hold);
        let plan = gate::plan(self.now, &self.policy, &fleet, &draft.ledger, &self.verdicts(&draft));
        self.roster = draft.apply(&plan);
        self.plan = Some(plan);
    }

    fn row(&self, n: u8, agent: &Agent) -> EnsembleRow {
        let state = match agent.said_down {
            true => LifeStatus::Down,
            false if self.live(agent) => LifeStatus::Live,
            false => LifeStatus::Expired,
        };
        EnsembleRow {
            key: key(n),
            id: agent.id.clone(),
            nonce: Some(agent.nonce.clone()),
            role: "app".to_owned(),
            port: agent.port,
            heard: agent.heard,
            state,
        }
    }

    fn verdicts(&self, roster: &Roster) -> Verdicts {
        let call = |n: &u8| {
            let opinion =
                Opinion::Called { call: Call::Withhold, reason: "bad".into(), severity: 0.5, breaker: None };
            Some((roster.pods.get(&key(*n))?.uid(key(*n)), opinion))
        };
        let opinions = self.withheld.iter().filter_map(call).collect();
        let source = Source::new("callback", SourceKind::Callback, self.now, opinions);
        Verdicts { evaluation: self.evaluation, sources: vec![source] }
    }
}
