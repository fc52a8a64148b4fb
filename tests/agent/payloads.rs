//! The payload file, in all the ways in which files change.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fixture::{Agent, Master, ReceivedPing, Recipe};

/// A quiet agent with a payload file: whatever is heard after the first keepalive, the file caused.
struct Scene {
    folder: TempDir,
    master: Master,
    _agent: Agent,
}

impl Scene {
    async fn open(file: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let master = Master::open();
        let _agent = Recipe::of_master(&master).quiet().watching(&folder.path().join(file)).start();
        master.hears(1).await;
        Self { folder, master, _agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        fs::write(self.path("p.json"), text).unwrap();
    }

    /// The payload of the keepalive of this number.
    async fn payload(&self, number: usize) -> serde_json::Value {
        self.master.hears(number + 1).await[number].payload()
    }
}

#[tokio::test]
async fn the_first_keepalive_has_the_payload_already() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), r#"{"a":1}"#).unwrap()).await;
    assert_eq!(scene.payload(0).await, json!({ "a": 1 }));
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_the_payload() {
    let scene =
        Scene::open("p.json", |folder| fs::write(folder.join("p.json"), "\u{feff}{\"a\":1}").unwrap()).await;
    assert_eq!(scene.payload(0).await, json!({ "a": 1 }));
}

#[tokio::test]
async fn a_payload_whose_file_is_gone_or_broken_for_too_long_is_stale_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    fs::write(&file, "1").unwrap();
    let master = Master::open();
    let recipe = Recipe::of_master(&master).quiet().with("KONTROL_PAYLOAD_MAX_AGE", "0.5").watching(&file);
    let _agent = recipe.start();
    let stale = |heard: &ReceivedPing| heard.raw.contains(r#""stale":true"#);
    master.hears(1).await;
    fs::remove_file(&file).unwrap();
    let (_, heard) = master.hears_that(1, stale).await;
    assert_eq!(heard.payload(), 1, "the last good one");
    fs::write(&file, "{broken").unwrap();
    fs::write(&file, "2").unwrap();
    let (_, heard) = master.hears_that(1, |heard| heard.payload() == 2).await;
    assert!(!heard.raw.contains("stale"), "{}", heard.raw);
}

#[tokio::test]
async fn a_change_forces_a_keepalive_at_once() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), "1").unwrap()).await;
    let mut late = Vec::new();
    for number in 2..7 {
        let before = tokio::time::Instant::now();
        scene.write(&number.to_string());
        let (_, heard) = scene.master.hears_that(1, |heard| heard.payload() == number).await;
        late.push(heard.at - before);
    }
    late.sort();
    // The poll alone would need a second for each but the first.
    assert!(late[2] < Duration::from_millis(500), "{late:?}");
}

#[tokio::test]
async fn a_file_that_is_created_late_is_taken() {
    let scene = Scene::open("p.json", |_| {}).await;
    assert_eq!(scene.payload(0).await, "");
    scene.write("[1]");
    assert_eq!(scene.payload(1).await, json!([1]));
}

#[tokio::test]
async fn a_directory_that_is_created_late_is_watched() {
    let scene = Scene::open("later/p.json", |_| {}).await;
    assert_eq!(scene.payload(0).await, "");
    fs::create_dir(scene.path("later")).unwrap();
    fs::write(scene.path("later/p.json"), "7").unwrap();
    scene.master.hears_that(1, |heard| heard.payload() == 7).await;
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place_is_taken() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), "1").unwrap()).await;
    fs::write(scene.path("p.tmp"), "2").unwrap();
    fs::rename(scene.path("p.tmp"), scene.path("p.json")).unwrap();
    scene.master.hears_that(1, |heard| heard.payload() == 2).await;
}

/// As the kubelet does it: p.json -> ..data/p.json, ..data -> ..v1, and then ..data is renamed over.
#[tokio::test]
async fn the_symlink_swap_of_a_config_map_is_seen() {
    let volume = |folder: &Path, version: &str, text: &str| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("p.json"), text).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let scene = Scene::open("p.json", |folder| {
        volume(folder, "..v1", "1");
        symlink("..data/p.json", folder.join("p.json")).unwrap();
    })
    .await;
    assert_eq!(scene.payload(0).await, 1);
    for (version, number) in [("..v2", 2), ("..v3", 3)] {
        let heard = scene.master.heard().len();
        volume(scene.folder.path(), version, &number.to_string());
        let (_, found) = scene.master.hears_that(heard, |heard| heard.payload() == number).await;
        assert!(!found.down());
    }
    fs::remove_dir_all(scene.path("..v1")).unwrap();
}

#[tokio::test]
async fn while_the_file_is_invalid_the_last_good_payload_stays() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), "1").unwrap()).await;
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    for bad in ["{", "", deep.as_str()] {
        scene.write(bad);
        sleep(Duration::from_millis(50)).await;
    }
    fs::write(scene.path("p.json"), b"\"\xff\"").unwrap();
    sleep(Duration::from_millis(50)).await;
    fs::remove_file(scene.path("p.json")).unwrap();
    sleep(Duration::from_millis(50)).await;
    fs::create_dir(scene.path("p.json")).unwrap();
    sleep(Duration::from_millis(50)).await;
    fs::remove_dir(scene.path("p.json")).unwrap();
    scene.write("2");
    let (number, _) = scene.master.hears_that(1, |heard| heard.payload() == 2).await;
    let before = scene.master.heard();
    assert!(before[..number].iter().all(|heard| heard.payload() == 1), "{before:?}");
}

#[tokio::test]
async fn a_touched_file_forces_a_keepalive_of_the_same_bytes() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), r#"{"a":1}"#).unwrap()).await;
    let file = fs::File::options().append(true).open(scene.path("p.json")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    let heard = scene.master.hears(2).await;
    assert_eq!(heard[0].raw, heard[1].raw);
}

#[tokio::test]
async fn other_files_of_the_directory_force_nothing() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), "1").unwrap()).await;
    for _ in 0..5 {
        fs::write(scene.path("other"), "x").unwrap();
        sleep(Duration::from_millis(30)).await;
    }
    scene.write("2");
    scene.master.hears_that(1, |heard| heard.payload() == 2).await;
    let heard = scene.master.heard();
    // A write may be seen between its truncation and its end, never the other file's.
    assert!(heard.iter().filter(|heard| heard.payload() == 1).count() == 1, "{heard:?}");
}

#[tokio::test]
async fn a_storm_of_changes_is_coalesced_and_ends_with_the_last() {
    let scene = Scene::open("p.json", |folder| fs::write(folder.join("p.json"), "0").unwrap()).await;
    let path = scene.path("p.json");
    // On a thread of its own: the master lives on this one.
    let storm = tokio::task::spawn_blocking(move || {
        for n in 1..=1000 {
            fs::write(&path, n.to_string()).unwrap();
        }
    });
    storm.await.unwrap();
    scene.master.hears_that(1, |heard| heard.payload() == 1000).await;
    assert!(scene.master.heard().len() < 500, "{}", scene.master.heard().len());
}
