//! The file: atomic for concurrent readers, not emptied by a cut network, retried when it cannot be written, followed by the
//! command.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kubervisor::{
    adapters::sink::endpoints::{CHECK_EVERY, EndpointsFile, Projection, format::render},
    alarms::Alarms,
    clock::Clock,
    config::EndpointsFormat,
    decide::alarm_reason::AlarmReason,
};

use crate::stage::{CAP, config, listing, until};

fn is_up(alarms: &Alarms, reason: AlarmReason) -> bool {
    alarms.up().iter().any(|alarm| alarm.reason == reason)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn many(offset: u32) -> BTreeSet<SocketAddrV4> {
    (1..=2000).map(|n| SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0000 + offset + n), 8080)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_one_whole_list_or_the_other_and_never_a_mixture() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.json");
    let settings = config(&path, EndpointsFormat::Envoy, None);
    let file = EndpointsFile::start(&settings, "web", &Alarms::new(Clock::start()));
    let lists = [many(0), many(1000)];
    let whole: Vec<Vec<u8>> = lists.iter().map(|list| render(EndpointsFormat::Envoy, "web", list)).collect();
    file.project(Projection { addresses: lists[0].clone(), all_said_down: false });
    until("the first list is there", || path.exists()).await;

    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (stop, path, whole) = (stop.clone(), path.clone(), whole.clone());
        move || {
            let mut seen = [0_usize; 2];
            while !stop.load(Ordering::Relaxed) {
                let bytes = fs::read(&path).expect("the file is never absent");
                let which = whole.iter().position(|list| *list == bytes);
                seen[which.unwrap_or_else(|| panic!("{} bytes of a mixture", bytes.len()))] += 1;
            }
            seen
        }
    });
    for round in 1..=60_usize {
        file.project(Projection { addresses: lists[round % 2].clone(), all_said_down: false });
        let expected = &whole[round % 2];
        until("the next list is there", || fs::read(&path).unwrap() == *expected).await;
    }
    stop.store(true, Ordering::Relaxed);
    let seen = reader.join().unwrap();
    assert!(seen.iter().all(|&times| times > 10), "{seen:?}: too few reads to prove anything");
    until("every list was written once", || file.status().borrow().writes == 61).await;
}

#[tokio::test]
async fn an_unchanged_list_is_not_written_again_and_a_damaged_file_is_put_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web");
    let file = EndpointsFile::start(
        &config(&path, EndpointsFormat::Plain, None),
        "web",
        &Alarms::new(Clock::start()),
    );
    file.project(listing(["10.0.0.1:80"]));
    until("it is written", || text(&path) == "10.0.0.1:80\n").await;
    let inode = fs::metadata(&path).unwrap().ino();
    // On this runtime the list in between is not written; the last projection is.
    file.project(listing(["10.0.0.1:80", "10.0.0.2:80"]));
    file.project(listing(["10.0.0.1:80"]));
    tokio::time::sleep(CHECK_EVERY * 2).await;
    assert_eq!(file.status().borrow().writes, 1);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    fs::write(&path, "nonsense").unwrap();
    until("the damage is repaired", || text(&path) == "10.0.0.1:80\n").await;
    fs::remove_file(&path).unwrap();
    until("the removed file is back", || text(&path) == "10.0.0.1:80\n").await;
}

#[tokio::test]
async fn an_empty_list_never_replaces_a_full_one_unless_every_pod_said_down() {
    for format in
        [EndpointsFormat::Plain, EndpointsFormat::Envoy, EndpointsFormat::FileSd, EndpointsFormat::Nginx]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        let before = render(format, "web", &listing(["10.0.0.1:80"]).addresses);
        fs::write(&path, &before).unwrap();
        let alarms = Alarms::new(Clock::start());
        let file = EndpointsFile::start(&config(&path, format, None), "web", &alarms);
        file.project(Projection::default());
        until("the empty list is held back", || file.status().borrow().held_back).await;
        assert_eq!(fs::read(&path).unwrap(), before, "{format:?}");
        assert!(is_up(&alarms, AlarmReason::EndpointsEmpty));
        file.project(Projection { all_said_down: true, ..Projection::default() });
        until("all said down", || fs::read(&path).unwrap() == render(format, "web", &BTreeSet::new())).await;
        until("the alarm is over", || !is_up(&alarms, AlarmReason::EndpointsEmpty)).await;
        until("nothing is held back", || !file.status().borrow().held_back).await;
    }
}

#[tokio::test]
async fn a_missing_directory_is_alarmed_and_the_write_succeeds_once_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not/yet/web");
    let alarms = Alarms::new(Clock::start());
    let file = EndpointsFile::start(&config(&path, EndpointsFormat::Plain, None), "web", &alarms);
    file.project(listing(["10.0.0.1:80"]));
    until("the failure is alarmed", || is_up(&alarms, AlarmReason::EndpointsWrite)).await;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    until("the file is there", || text(&path) == "10.0.0.1:80\n").await;
    until("the alarm is over", || !is_up(&alarms, AlarmReason::EndpointsWrite)).await;
    assert!(file.status().borrow().failures > 0);
}

/// A temporary file system, unmounted on drop.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None` where this user may not mount.
    fn new(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }

    fn remount(&self, options: &str) {
        let remounted = Command::new("mount").args(["-o", options]).arg(self.0.path()).status().unwrap();
        assert!(remounted.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_and_a_read_only_one_keep_the_old_list_until_they_are_mended() {
    let Some(mount) = Mount::new("size=16k") else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let path = mount.0.path().join("web");
    let alarms = Alarms::new(Clock::start());
    let file = EndpointsFile::start(&config(&path, EndpointsFormat::Plain, None), "web", &alarms);
    file.project(listing(["10.0.0.1:80"]));
    until("there is a list", || text(&path) == "10.0.0.1:80\n").await;

    file.project(Projection { addresses: many(0), all_said_down: false });
    until("the full disk is alarmed", || is_up(&alarms, AlarmReason::EndpointsWrite)).await;
    assert_eq!(text(&path), "10.0.0.1:80\n");
    assert_eq!(fs::read_dir(mount.0.path()).unwrap().count(), 1, "a temporary file was left behind");
    mount.remount("remount,size=1m");
    until("the long list is there", || text(&path).lines().count() == 2000).await;

    mount.remount("remount,ro");
    file.project(listing(["10.0.0.2:80"]));
    until("the read-only disk is alarmed", || is_up(&alarms, AlarmReason::EndpointsWrite)).await;
    mount.remount("remount,rw");
    until("the new list is there", || text(&path) == "10.0.0.2:80\n").await;
    file.stop(CAP).await;
}

#[tokio::test]
async fn the_command_runs_one_at_a_time_and_the_last_write_is_always_followed_by_a_run() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log, lock) =
        (directory.path().join("web"), directory.path().join("log"), directory.path().join("lock"));
    // Fails when another run is active; records the contents of the file.
    let command = format!(
        "mkdir {lock} || {{ echo overlap >> {log}; exit 9; }}; tail -n 1 {path} >> {log}; sleep 0.05; rmdir {lock}",
        lock = lock.display(),
        log = log.display(),
        path = path.display()
    );
    let alarms = Alarms::new(Clock::start());
    let file = EndpointsFile::start(&config(&path, EndpointsFormat::Plain, Some(command)), "web", &alarms);
    for last in 1..=100_u8 {
        file.project(listing([format!("10.0.0.{last}:80")]));
        let line = format!("10.0.0.{last}:80\n");
        until("it is written", || text(&path) == line).await;
    }
    file.stop(CAP).await;
    let log = text(&log);
    assert_eq!(log.lines().last(), Some("10.0.0.100:80"), "{log}");
    assert!(!log.contains("overlap"), "{log}");
    assert!(log.lines().count() < 50, "{} runs for 100 writes in a burst", log.lines().count());
    assert!(!is_up(&alarms, AlarmReason::EndpointsCommand));
}

#[tokio::test]
async fn a_failing_command_is_alarmed_and_tried_again_until_it_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ready) = (directory.path().join("web"), directory.path().join("ready"));
    let alarms = Alarms::new(Clock::start());
    let command = Some(format!("test -e {}", ready.display()));
    let file = EndpointsFile::start(&config(&path, EndpointsFormat::Plain, command), "web", &alarms);
    file.project(listing(["10.0.0.1:80"]));
    until("the failure is alarmed", || is_up(&alarms, AlarmReason::EndpointsCommand)).await;
    fs::write(&ready, "").unwrap();
    until("the alarm is over", || !is_up(&alarms, AlarmReason::EndpointsCommand)).await;
}

/// Set in the process that has the mount, which the test starts.
const MOUNTED: &str = "KUBERVISOR_TEST_MOUNTED";

#[tokio::test]
async fn a_file_that_is_a_mount_is_told_and_written_in_place_when_told_to() {
    let Some(path) = std::env::var_os(MOUNTED) else { return with_a_mount() };
    let path = Path::new(&path);
    let alarms = Alarms::new(Clock::start());
    let settings = config(path, EndpointsFormat::Plain, None);
    let file = EndpointsFile::start(&settings, "web", &alarms);
    file.project(listing(["10.0.0.1:80"]));
    until("the alarm", || is_up(&alarms, AlarmReason::EndpointsWrite)).await;
    let said = alarms.up().remove(0).message;
    assert!(said.contains("mount its directory") && said.contains("KUBERVISOR_ENDPOINTS_IN_PLACE"), "{said}");
    drop(file);
    let settings = kubervisor::config::EndpointsConfig { in_place: true, ..settings };
    let file = EndpointsFile::start(&settings, "web", &alarms);
    file.project(listing(["10.0.0.1:80"]));
    until("it is written", || text(path).contains("10.0.0.1:80")).await;
    drop(file);
}

/// This test once more, in a mount namespace of its own where the file is a mount.
fn with_a_mount() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.conf");
    fs::write(&path, "").unwrap();
    let mount = "mount --bind \"$0\" \"$0\" || exit 77; exec \"$@\"";
    let name = "file::a_file_that_is_a_mount_is_told_and_written_in_place_when_told_to";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount])
        .arg(&path)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(MOUNTED, &path)
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || output.status.code() == Some(77) {
        eprintln!("not allowed to mount: this is not tested here");
        return;
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
