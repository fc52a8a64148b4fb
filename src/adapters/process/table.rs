//! The processes of this machine and their parents, from /proc.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt,
    sync::Once,
};

use rustix::process::getpid;

use super::namespace::{ProcView, ProcessIds};

/// One process; all ids are those of our pid namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessEntry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) zombie: bool,
    /// The name in /proc: the pid, unless /proc belongs to another pid namespace.
    name: i32,
    /// The start in clock ticks after boot; with the pid, it identifies the process.
    started: u64,
}

impl ProcessEntry {
    fn read(name: i32) -> Option<Self> {
        Self::parse(name, &fs::read(format!("/proc/{name}/stat")).ok()?)
    }

    /// `pid (name) state ppid pgrp session ...`, the start time being field 22; the name may hold anything, `)` too.
    fn parse(name: i32, stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        let mut number = || fields.next()?.parse::<i32>().ok();
        let (parent, group, session) = (number()?, number()?, number()?);
        let started = fields.nth(15)?.parse().ok()?;
        let zombie = matches!(state, "Z" | "X");
        Some(Self { pid: name, parent, group, session, zombie, name, started })
    }

    /// Whether the pid still belongs to this process.
    pub(super) fn is_still_there(&self) -> bool {
        Self::read(self.name).is_some_and(|now| now.started == self.started)
    }

    /// A variable of its initial environment; `None` also when reading it is not permitted.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.name)).ok()?;
        environment.split(|byte| *byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }
}

/// A snapshot of all processes; /proc does not give a consistent one.
pub(super) struct ProcessTable {
    own_pid: i32,
    own_session: i32,
    processes: BTreeMap<i32, ProcessEntry>,
}

impl ProcessTable {
    /// Reads /proc. Empty when it does not show this process; then a job's process group alone is killed.
    pub(super) fn take() -> Self {
        let own_pid = getpid().as_raw_nonzero().get();
        let Some(view) = ProcView::here(own_pid) else {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!("/proc does not show us: what leaves a command's process group outlives it");
            });
            return Self::of(own_pid, BTreeMap::new());
        };
        let names =
            fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
                std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse::<i32>().ok()
            });
        let processes = names.filter_map(|name| Some((name, ProcessEntry::read(name)?))).collect();
        if view.is_ours() {
            return Self::of(own_pid, processes);
        }
        Self::of(own_pid, translated(processes, view.us, |name| view.ids(name)))
    }

    /// Our session comes from /proc, too: `getsid` returns 0 for a session that began outside our namespace,
    /// which a `Pid` cannot hold.
    fn of(own_pid: i32, processes: BTreeMap<i32, ProcessEntry>) -> Self {
        let own_session = processes.get(&own_pid).map_or(0, |process| process.session);
        Self { own_pid, own_session, processes }
    }

    /// Whether it is a child of ours in another session: a job's main child, or an orphan.
    pub(super) fn is_orphan(&self, process: &ProcessEntry) -> bool {
        process.parent == self.own_pid && process.session != self.own_session
    }

    /// All children of ours in other sessions.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &ProcessEntry> {
        self.processes.values().filter(|process| self.is_orphan(process))
    }

    /// The main child, its session, the orphans that `ours` accepts, and all descendants of these.
    pub(super) fn members(&self, main: i32, ours: impl Fn(&ProcessEntry) -> bool) -> Vec<&ProcessEntry> {
        let mut children = BTreeMap::<i32, Vec<i32>>::new();
        for process in self.processes.values() {
            children.entry(process.parent).or_default().push(process.pid);
        }
        let roots = self.processes.values().filter(|process| {
            process.pid == main || process.session == main || (self.is_orphan(process) && ours(process))
        });
        let mut next: Vec<i32> = roots.map(|process| process.pid).collect();
        let mut found = BTreeSet::new();
        while let Some(pid) = next.pop() {
            if pid != self.own_pid && found.insert(pid) {
                next.extend(children.get(&pid).into_iter().flatten());
            }
        }
        found.iter().filter_map(|pid| self.processes.get(pid)).collect()
    }
}

/// This process and all that descend from it, with the ids of our namespace instead of those of /proc.
///
/// Others are left out: in a sibling namespace a process can have the same pid as one in ours.
fn translated(
    named: BTreeMap<i32, ProcessEntry>,
    own_pid: i32,
    ids: impl Fn(i32) -> Option<ProcessIds>,
) -> BTreeMap<i32, ProcessEntry> {
    // A process in a session that a child of ours began descends from it, even when init has adopted it.
    let mut followers = BTreeMap::<i32, Vec<i32>>::new();
    for process in named.values() {
        for leader in [process.parent, process.session] {
            followers.entry(leader).or_default().push(process.name);
        }
    }
    let (mut next, mut known) = (vec![own_pid], BTreeMap::new());
    let mut seen = BTreeSet::new();
    while let Some(name) = next.pop() {
        if seen.insert(name) {
            next.extend(followers.get(&name).into_iter().flatten());
            known.extend(ids(name).map(|ids| (name, ids)));
        }
    }
    let translate = |process: ProcessEntry| {
        let ProcessIds { pid, group, session } = *known.get(&process.name)?;
        let parent = known.get(&process.parent).map_or(0, |parent| parent.pid);
        Some((pid, ProcessEntry { pid, parent, group, session, ..process }))
    };
    named.into_values().filter_map(translate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_and_spaces_does_not_confuse_the_parser() {
        let stat = b"42 (a) R) (b c) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 1";
        let process = ProcessEntry::parse(42, stat).unwrap();
        assert_eq!((process.parent, process.group, process.session), (7, 42, 40));
        assert_eq!(process.started, 123_456);
        assert!(!process.zombie);
        assert_eq!(ProcessEntry::parse(1, b"1 (cut short) S 0 1"), None);
    }

    #[test]
    fn members_are_the_session_the_accepted_orphans_and_their_descendants() {
        let process = |pid, parent, session| {
            (pid, ProcessEntry { pid, parent, group: session, session, zombie: false, name: pid, started: 1 })
        };
        let processes = [
            process(10, 1, 10),  // this process
            process(11, 10, 10), // a child that other code started
            process(20, 10, 20), // the job
            process(21, 20, 20),
            process(22, 21, 22), // setsid, parent alive
            process(30, 10, 30), // an accepted orphan
            process(31, 30, 31),
            process(40, 10, 40), // another job
            process(41, 40, 40),
        ];
        let table = ProcessTable { own_pid: 10, own_session: 10, processes: processes.into_iter().collect() };
        let found: Vec<i32> = table.members(20, |orphan| orphan.pid == 30).iter().map(|p| p.pid).collect();
        assert_eq!(found, [20, 21, 22, 30, 31]);
    }

    #[test]
    fn with_another_namespaces_proc_only_our_descendants_are_listed_by_our_pids() {
        let process = |name, parent, session| {
            (
                name,
                ProcessEntry { pid: name, parent, group: session, session, zombie: false, name, started: 1 },
            )
        };
        let named = [
            process(1, 0, 1),
            process(700, 1, 700),   // in a sibling namespace, with pid 3 there, too
            process(900, 850, 850), // this process, in a session from outside
            process(901, 900, 850), // a child that other code started
            process(902, 900, 902), // the job
            process(903, 902, 902), // its child, gone before its ids are read
            process(904, 902, 904), // setsid, parent alive
            process(905, 1, 902),   // the job's session, but adopted by another
        ];
        let ids = |name| {
            let ids = |pid, session| Some(ProcessIds { pid, group: session, session });
            match name {
                700 => ids(3, 3),
                900 => ids(1, 0),
                901 => ids(2, 0),
                902 => ids(3, 3),
                904 => ids(5, 5),
                905 => ids(6, 3),
                _ => None,
            }
        };
        let table = ProcessTable::of(1, translated(named.into_iter().collect(), 900, ids));
        let found: Vec<_> = table.processes.values().map(|p| (p.pid, p.parent, p.session, p.name)).collect();
        assert_eq!(found, [(1, 0, 0, 900), (2, 1, 0, 901), (3, 1, 3, 902), (5, 3, 5, 904), (6, 0, 3, 905)]);
        assert!(table.is_orphan(&table.processes[&3]));
        assert!(!table.is_orphan(&table.processes[&2]));
        let members: Vec<i32> = table.members(3, |_| false).iter().map(|p| p.pid).collect();
        assert_eq!(members, [3, 5, 6]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let table = ProcessTable::take();
        let me = &table.processes[&table.own_pid];
        assert!(me.is_still_there());
        assert_eq!(me.session, table.own_session);
        assert!(me.variable("PATH").is_some());
    }
}
