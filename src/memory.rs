//! Gives memory that the allocator keeps unused back to the system.
//!
//! glibc returns on its own only what lies at the end of a heap. After the adoption of 10 000 pods by a controller 42 of
//! 87 MiB were free and stayed in its resident set (`scripts/bench cache`).

use std::{convert::Infallible, time::Duration};

/// Interval between looks at the memory in use.
const EVERY: Duration = Duration::from_secs(5);

/// Bytes that must have been freed since the last return: returned pages cost a fault each when they are used again.
const LEAST: usize = 8 << 20;

/// Returns memory whenever much of it has been freed; runs as long as the process.
pub async fn return_unused() -> Infallible {
    let mut peak = Peak::default();
    loop {
        tokio::time::sleep(EVERY).await;
        if peak.has_passed(in_use()) {
            // It takes milliseconds, during which allocations wait.
            _ = tokio::task::spawn_blocking(trim).await;
        }
    }
}

/// The most bytes in use since the last return.
#[derive(Debug, Default)]
struct Peak(usize);

impl Peak {
    /// Whether [`LEAST`] bytes of it are free now; the next one begins then.
    fn has_passed(&mut self, in_use: usize) -> bool {
        let passed = self.0 >= in_use + LEAST;
        self.0 = if passed { in_use } else { self.0.max(in_use) };
        passed
    }
}

#[cfg(target_env = "gnu")]
fn in_use() -> usize {
    // SAFETY: only reads the allocator's own counts, under its locks.
    let info = unsafe { nix::libc::mallinfo2() };
    info.uordblks
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: frees whole pages that no allocation is in, under the allocator's locks.
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn in_use() -> usize {
    0
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_has_passed_when_enough_of_it_is_free_and_then_the_next_one_begins() {
        let mut peak = Peak::default();
        let looks = [10, 90, 85, 82, 40, 40, 47, 39, 38].map(|mebibytes: usize| mebibytes << 20);
        let passed: Vec<bool> = looks.into_iter().map(|in_use| peak.has_passed(in_use)).collect();
        assert_eq!(passed, [false, false, false, true, true, false, false, true, false]);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn freed_memory_below_the_end_of_a_heap_leaves_the_resident_set() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        const SIZE: usize = 128 << 20;
        // Small ones, so that they are in a heap and not mapped one by one; every second page stays in use.
        let kept: Vec<Box<[u8]>> = {
            let mut all: Vec<Box<[u8]>> =
                (0..SIZE / 1024).map(|_| vec![1; 1024].into_boxed_slice()).collect();
            let mut at = 0;
            all.retain(|_| {
                at += 1;
                at % 64 == 0
            });
            all
        };
        let before = resident();
        trim();
        let after = resident();
        assert!(before.saturating_sub(after) > SIZE / 2, "{before} to {after}");
        assert_eq!(kept.len(), SIZE / 1024 / 64);
    }
}
