//! Who is alive on this machine and whose child it is, from /proc.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt,
};

use rustix::process::{getpid, getsid};

/// One process at the time of the count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) zombie: bool,
    /// Clock ticks after boot: with the pid, which process this is.
    started: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state ppid pgrp session ...`, the start time being field 22; the name may hold anything, `)` too.
    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        let mut number = || fields.next()?.parse::<i32>().ok();
        let (parent, group, session) = (number()?, number()?, number()?);
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, parent, group, session, zombie: matches!(state, "Z" | "X"), started })
    }

    /// Whether the pid is still this process and not a later one.
    pub(super) fn is_still_there(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started)
    }

    /// A variable of the environment that it was started with; `None` also when we may not look.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        environment.split(|byte| *byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }
}

/// All processes of one moment, as far as /proc can tell one.
pub(super) struct Census {
    us: i32,
    our_session: i32,
    processes: BTreeMap<i32, Process>,
}

impl Census {
    /// Counts. Without /proc nobody is found but what a group holds.
    pub(super) fn take() -> Self {
        let pids =
            fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
                std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse::<i32>().ok()
            });
        let processes = pids.filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
        let our_session = getsid(None).map_or(0, |session| session.as_raw_nonzero().get());
        Self { us: getpid().as_raw_nonzero().get(), our_session, processes }
    }

    /// A child of ours that left our session: a job's main child, or a stray that came to us.
    pub(super) fn is_orphan(&self, process: &Process) -> bool {
        process.parent == self.us && process.session != self.our_session
    }

    /// The main child, the orphans that `ours` claims, everybody in the main child's session, and all their descendants.
    pub(super) fn members(&self, main: i32, ours: impl Fn(&Process) -> bool) -> Vec<&Process> {
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
            if pid != self.us && found.insert(pid) {
                next.extend(children.get(&pid).into_iter().flatten());
            }
        }
        found.iter().filter_map(|pid| self.processes.get(pid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_and_spaces_does_not_confuse_the_parser() {
        let stat = b"42 (a) R) (b c) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 1";
        let process = Process::parse(42, stat).unwrap();
        assert_eq!((process.parent, process.group, process.session), (7, 42, 40));
        assert_eq!(process.started, 123_456);
        assert!(!process.zombie);
        assert_eq!(Process::parse(1, b"1 (cut short) S 0 1"), None);
    }

    #[test]
    fn members_are_the_session_the_claimed_orphans_and_their_descendants_and_nobody_else() {
        let process = |pid, parent, session| {
            (pid, Process { pid, parent, group: session, session, zombie: false, started: 1 })
        };
        let processes = [
            process(10, 1, 10),  // us
            process(11, 10, 10), // a child that other code started
            process(20, 10, 20), // the job
            process(21, 20, 20),
            process(22, 21, 22), // setsid, parent alive
            process(30, 10, 30), // a stray that is claimed
            process(31, 30, 31),
            process(40, 10, 40), // another job
            process(41, 40, 40),
        ];
        let census = Census { us: 10, our_session: 10, processes: processes.into_iter().collect() };
        let found: Vec<i32> = census.members(20, |orphan| orphan.pid == 30).iter().map(|p| p.pid).collect();
        assert_eq!(found, [20, 21, 22, 30, 31]);
    }

    #[test]
    fn we_are_in_our_own_census() {
        let census = Census::take();
        let me = &census.processes[&census.us];
        assert!(me.is_still_there());
        assert_eq!(me.session, census.our_session);
        assert!(me.variable("PATH").is_some());
    }
}
