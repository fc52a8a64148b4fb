//! Runs one test for many seeds, each in a process of its own: everything that is drawn at random comes from the seed, so
//! that a run can be repeated exactly.

use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The seed that this process runs, where it is one of many.
pub fn given() -> Option<u64> {
    std::env::var("SIM_SEED").ok()?.parse().ok()
}

/// What the process of one seed has said.
#[derive(Clone, Debug)]
pub struct Said {
    pub seed: u64,
    pub succeeded: bool,
    pub text: String,
}

impl Said {
    /// The line that the run ends with.
    pub fn summary(&self) -> &str {
        // After the test's name, on one line.
        self.text.lines().find(|line| line.contains("digest ")).unwrap_or_default()
    }
}

/// How many seeds a test runs: `SIM_SEEDS`, else `usual`.
pub fn count(usual: u64) -> u64 {
    std::env::var("SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// The command that repeats a run.
pub fn replay(test: &str, seed: u64, mutant: Option<&str>) -> String {
    let mutant = mutant.map(|mutant| format!("SIM_MUTANT={mutant} ")).unwrap_or_default();
    format!("to replay: SIM_SEED={seed} {mutant}cargo test --test sim {test} -- --nocapture")
}

/// Runs `test` in a process of its own with this seed.
pub fn run(test: &str, seed: u64, mutant: Option<&str>) -> Said {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("SIM_SEED", seed.to_string());
    command.env_remove("SIM_MUTANT").envs(mutant.map(|mutant| ("SIM_MUTANT", mutant)));
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Said { seed, succeeded: output.status.success(), text }
}

/// Runs `test` for `count` seeds from 0, or for `SIM_MINUTES` from a seed that no run before has begun with, on all cores.
/// Panics with what the first failing one has said.
pub fn sweep(test: &str, count: u64) {
    let minutes: Option<f64> = std::env::var("SIM_MINUTES").ok().and_then(|minutes| minutes.parse().ok());
    let first = minutes.map_or(0, |_| fastrand::u64(..1 << 40));
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let due = |seed: u64| match minutes {
        Some(minutes) => begun.elapsed() < Duration::from_secs_f64(minutes * 60.0),
        None => seed < count,
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !due(seed) {
                return None;
            }
            let said = run(test, seed, None);
            if !said.succeeded {
                return Some(said);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failed: Vec<Said> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).collect()
    });
    if let Some(said) = failed.first() {
        panic!("{}\n{}", said.text, replay(test, said.seed, None));
    }
    let seeds = next.into_inner() - first - u64::try_from(threads).unwrap_or(0);
    println!("{seeds} seeds from {first} in {:?}", begun.elapsed());
}
