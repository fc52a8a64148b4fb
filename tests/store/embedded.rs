//! Failures of the embedded store's file.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use kubervisor::{
    adapters::store::{RecordKey, Records, StoreError},
    config::StoreConfig,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::fixture::{leading, open, pod, put};

fn config(path: &Path) -> StoreConfig {
    StoreConfig::Embedded(path.to_owned())
}

async fn refusal(path: &Path) -> StoreError {
    match open(&config(path), "b").await {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_second_holder_of_the_file_is_refused_and_told_which_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.redb");
    let first = open(&config(&path), "a").await.unwrap();
    let term = leading(&*first).await;
    let refused = refusal(&path).await.to_string();
    assert!(
        refused.contains(path.to_str().unwrap()) && refused.contains("in use by another process"),
        "{refused}"
    );
    first.commit(term, put(RecordKey::State, "unharmed")).await.unwrap();
    drop(first);
    open(&config(&path), "b").await.unwrap();
}

#[tokio::test]
async fn directories_and_file_are_made_for_this_user_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/x.redb");
    let _store = open(&config(&path), "a").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("a")), 0o700);
    assert_eq!(mode(&directory.path().join("a/b")), 0o700);
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_with_what_to_do_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.redb");
    fs::write(&path, b"somebody's notes, not a database at all".repeat(200)).unwrap();
    let refused = refusal(&path).await;
    assert_eq!(refused.category(), "unusable");
    assert!(refused.to_string().contains("move it away"), "{refused}");
    assert!(fs::read(&path).unwrap().starts_with(b"somebody's notes"));
}

/// Overwrites the file's pages one at a time: each such file is refused, or opens with its records whole.
#[tokio::test]
async fn a_damaged_file_is_refused_and_never_read_as_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.redb");
    let store = open(&config(&path), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, &"precious ".repeat(3000))).await.unwrap();
    let records = store.load().await.unwrap();
    store.resign().await;
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    let pages: Vec<usize> =
        (0..whole.len()).step_by(4096).filter(|&at| whole[at..].iter().take(4096).any(|&b| b != 0)).collect();
    for &at in &pages {
        let mut damaged = whole.clone();
        let end = damaged.len().min(at + 4096);
        damaged[at + 64..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, damaged).unwrap();
        match open(&config(&path), "a").await {
            Ok(store) => assert_eq!(store.load().await.unwrap(), records, "page at {at}"),
            Err(error) => {
                refused += 1;
                assert_eq!(error.category(), "unusable", "{error}");
            }
        }
    }
    println!("{refused} of {} damaged files were refused", pages.len());
    assert!(refused > 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let refused = refusal(Path::new("/proc/none/x.redb")).await;
    assert_eq!(refused.category(), "unusable");
    assert!(refused.to_string().contains("/proc/none/x.redb"), "{refused}");
}

/// Runs itself again, as a process whose files may not grow over 4 MiB (a full disk, but one that the test
/// can make and free without privileges).
#[test]
fn a_full_disk_is_a_typed_error_and_nothing_need_be_restarted_when_there_is_space_again() {
    const NAME: &str =
        "embedded::a_full_disk_is_a_typed_error_and_nothing_need_be_restarted_when_there_is_space_again";
    if std::env::var_os("STORE_TEST_FULL_DISK").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(fill_and_free());
    }
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 8192; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env("STORE_TEST_FULL_DISK", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn fill_and_free() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.redb");
    let store = open(&config(&path), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::Sequence, "7")).await.unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let mut stored = 1;
    let refused = loop {
        match store.commit(term, put(pod(stored), &"x".repeat(300_000))).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the limit was not noticed");
    };
    assert_eq!(refused.category(), "no_space", "{refused}");
    let still = store.commit(term, put(pod(stored), &"x".repeat(300_000))).await.unwrap_err();
    assert_eq!(still.category(), "no_space", "{still}");
    let count = |records: Records| u32::try_from(records.len()).unwrap();
    assert_eq!(count(store.load().await.unwrap()), stored, "what was there is there");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    store.commit(term, put(pod(stored), &"x".repeat(300_000))).await.unwrap();
    assert_eq!(count(store.load().await.unwrap()), stored + 1);
}
