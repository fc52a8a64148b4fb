//! The log's writer. It is best effort, because a full disk, a closed pipe or a reader that stands still must stop no
//! work: a line that stderr does not take is dropped and counted.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest wait for a full pipe, in ns. While it stays full, later lines are dropped without a wait.
const PATIENCE: i64 = 100_000_000;

/// A pipe that is ready takes this many bytes without blocking (`PIPE_BUF`).
const CHUNK: usize = 4096;

static DELIVERY: Delivery = Delivery::new();

/// The lines that were dropped since this process started.
pub fn lost_lines() -> u64 {
    DELIVERY.lost.load(Ordering::Relaxed)
}

/// Writes whole lines to stderr and never fails.
pub(super) struct LogLines;

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        DELIVERY.deliver(&mut io::stderr().lock(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What happened to the lines of one descriptor.
struct Delivery {
    stalled: AtomicBool,
    lost: AtomicU64,
}

impl Delivery {
    const fn new() -> Self {
        Self { stalled: AtomicBool::new(false), lost: AtomicU64::new(0) }
    }

    fn deliver(&self, out: &mut (impl Write + AsFd), line: &[u8]) {
        let taken = line.chunks(CHUNK).all(|part| self.is_writable(out) && out.write_all(part).is_ok());
        self.lost.fetch_add(u64::from(!taken), Ordering::Relaxed);
    }

    /// A descriptor with an error counts as writable, because the write then fails at once.
    fn is_writable(&self, out: &impl AsFd) -> bool {
        let wait = if self.stalled.load(Ordering::Relaxed) { 0 } else { PATIENCE };
        let mut polled = [PollFd::new(out, PollFlags::OUT)];
        let ready =
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: wait })).is_ok_and(|ready| ready > 0);
        self.stalled.store(!ready, Ordering::Relaxed);
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, time::Instant};

    use super::*;

    fn lost(delivery: &Delivery) -> u64 {
        delivery.lost.load(Ordering::Relaxed)
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let (mut reader, writer) = rustix::pipe::pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
        let (delivery, mut writer, began) = (Delivery::new(), writer, Instant::now());
        let line = [b'x'; 10_000];
        for _ in 0..1000 {
            delivery.deliver(&mut writer, &line);
        }
        assert!(lost(&delivery) > 900, "a pipe holds 64 KiB");
        assert!(began.elapsed().as_secs() < 5, "it waits once");
        let before = lost(&delivery);
        reader.read_exact(&mut [0; 40_000]).unwrap();
        delivery.deliver(&mut writer, b"again\n");
        assert_eq!(lost(&delivery), before, "a reader that reads again gets lines again");
    }

    #[test]
    fn a_closed_pipe_and_a_full_disk_are_no_errors() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for mut out in [File::from(writer), full] {
            let delivery = Delivery::new();
            delivery.deliver(&mut out, b"a line\n");
            assert_eq!(lost(&delivery), 1);
        }
    }
}
