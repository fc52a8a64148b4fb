//! Translates the pids of /proc into those of our pid namespace. They differ when /proc was mounted outside it
//! (`unshare --pid` without `--mount-proc`); `/proc/<name>/status` lists a process's pids in all namespaces.

use std::fs;

/// Our position in the namespace of /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcView {
    /// Our pid in /proc.
    pub(super) us: i32,
    /// Levels of our namespace below that of /proc: the index of our ids in each list.
    depth: usize,
}

impl ProcView {
    /// Our view; `None` when /proc does not show this process: absent, or of a namespace that does not contain ours.
    pub(super) fn here(pid: i32) -> Option<Self> {
        Self::parse(&status("self")?, pid)
    }

    fn parse(status: &str, pid: i32) -> Option<Self> {
        // Without NSpid (an old kernel) the namespaces are taken to be one if our pid matches.
        let list = numbers(status, "NSpid:").or_else(|| numbers(status, "Pid:"))?;
        let (us, last) = (*list.first()?, *list.last()?);
        (last == pid).then_some(Self { us, depth: list.len() - 1 })
    }

    /// Whether the names in /proc are pids of our namespace.
    pub(super) fn is_ours(self) -> bool {
        self.depth == 0
    }

    /// The ids in our namespace of a process in /proc; valid for processes in our namespace and in nested ones.
    pub(super) fn ids(self, name: i32) -> Option<ProcessIds> {
        ProcessIds::parse(&status(&name.to_string())?, self.depth)
    }
}

/// Ids in our namespace; 0 is a group or session from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessIds {
    pub(super) pid: i32,
    pub(super) group: i32,
    pub(super) session: i32,
}

impl ProcessIds {
    fn parse(status: &str, depth: usize) -> Option<Self> {
        let at = |key| numbers(status, key)?.get(depth).copied();
        Some(Self { pid: at("NSpid:")?, group: at("NSpgid:")?, session: at("NSsid:")? })
    }
}

fn status(name: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{name}/status")).ok()?;
    // Only the program's name may be no UTF-8, and it is not used.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn numbers(status: &str, key: &str) -> Option<Vec<i32>> {
    let list = status.lines().find_map(|line| line.strip_prefix(key))?;
    list.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str =
        "Name:\tx\nPid:\t900\nPPid:\t1\nNSpid:\t900\t7\t1\nNSpgid:\t880\t0\t0\nNSsid:\t870\t5\t0\n";

    #[test]
    fn our_depth_is_the_index_of_our_pid_in_the_list() {
        assert_eq!(ProcView::parse(NESTED, 1), Some(ProcView { us: 900, depth: 2 }));
        assert_eq!(ProcView::parse("Pid:\t42\nNSpid:\t42\n", 42), Some(ProcView { us: 42, depth: 0 }));
        assert_eq!(ProcView::parse("Pid:\t42\n", 42), Some(ProcView { us: 42, depth: 0 }), "an old kernel");
    }

    #[test]
    fn a_list_that_does_not_end_with_our_pid_is_not_about_us() {
        assert_eq!(ProcView::parse(NESTED, 7), None);
        assert_eq!(ProcView::parse("Pid:\t43\n", 42), None);
        assert_eq!(ProcView::parse("", 42), None);
        assert_eq!(ProcView::parse("NSpid:\n", 42), None);
    }

    #[test]
    fn each_id_is_read_at_our_depth_and_a_process_from_outside_has_none() {
        assert_eq!(ProcessIds::parse(NESTED, 1), Some(ProcessIds { pid: 7, group: 0, session: 5 }));
        assert_eq!(ProcessIds::parse(NESTED, 0), Some(ProcessIds { pid: 900, group: 880, session: 870 }));
        assert_eq!(ProcessIds::parse(NESTED, 3), None);
    }
}
