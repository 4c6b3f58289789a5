//! `longtake checkpoint`: what it says of the checkpoints of a run, and what it leaves.

use std::fs;
use std::path::Path;

use longtake_coordinator::server::address::FolderLock;
use longtake_shared::checkpoint::{CheckpointStore, Depth};
use longtake_shared::config::{Resolved, RunConfig};
use longtake_shared::objects::Objects;
use longtake_tests::{Call, Said};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{load_newest, save, take_over};

/// A run that has ended, with checkpoints of the steps 1, 2 and 3.
async fn run() -> (TempDir, CheckpointStore) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let store = CheckpointStore::new(Objects::open(&run.display().to_string()).unwrap());
    let (incarnation, mut appender) = take_over(&store, "run").await.unwrap();
    for step in [1, 2, 3] {
        save(&store, &mut appender, incarnation, step).await.unwrap();
    }
    fs::write(run.join("config.json"), Resolved::from(RunConfig::default()).to_json()).unwrap();
    (folder, store)
}

fn longtake(folder: &TempDir, words: &str) -> Said {
    Call::new(env!("CARGO_BIN_EXE_longtake-under-test"), folder.path())
        .typed(&format!("checkpoint {words}"))
        .run()
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Flips a bit of a file that is kept read-only by nobody.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn the_checkpoints_of_a_run_are_listed() {
    let (folder, _) = run().await;
    let said = longtake(&folder, "list run");
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{said:?}");
    assert!(lines[2].starts_with("3-g1 ") && lines[2].contains("4 parts"), "{said:?}");
    let rows = json(&longtake(&folder, "list run --json"));
    let column =
        |name: &str| rows.as_array().unwrap().iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("step"), [1, 2, 3]);
    let (model, rest) = (96 << 10, 3000);
    assert_eq!(column("bytes"), [model + 3 * rest; 3]);
    assert_eq!(column("new_bytes"), [model + 3 * rest, model + 2 * rest, model + 2 * rest]);
    assert_eq!(column("whole"), [true; 3]);
}

#[tokio::test]
async fn damage_is_named_and_the_exit_code_tells() {
    let (folder, store) = run().await;
    let said = longtake(&folder, "verify run");
    assert_eq!(
        (said.code, said.stdout.starts_with("3 checkpoints are whole (")),
        (Some(0), true),
        "{said:?}"
    );
    assert_eq!(json(&longtake(&folder, "verify run --json"))["whole"], 3);

    let (_, manifest) = store.newest(Depth::Sizes).await.unwrap().found.unwrap();
    let damaged = [manifest.model.object(), "checkpoints/1-g1/manifest.json".to_owned()];
    for object in &damaged {
        flip(&folder.path().join("run").join(object));
    }
    let said = longtake(&folder, "verify run --json");
    assert_eq!(said.code, Some(1), "{said:?}");
    let error = &json(&said)["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("2 objects are damaged: "), "{message}");
    assert!(damaged.iter().all(|object| message.contains(object)), "{message}");
    assert!(error["hint"].as_str().unwrap().contains("longtake train --resume run"), "{error}");
    assert!(!folder.path().join("run/readers").exists(), "it reads no more");
    let rows = json(&longtake(&folder, "list run --json"));
    assert_eq!(rows[0]["whole"], false);
    assert_eq!(load_newest(&store).await.unwrap(), (Some(2), 1));
}

#[tokio::test]
async fn old_checkpoints_are_pruned_but_not_under_a_coordinator() {
    let (folder, store) = run().await;
    let lock = FolderLock::take(&folder.path().join("run")).unwrap();
    let said = longtake(&folder, "prune run --keep 1");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("is in use by process") && said.stderr.contains("hint: "), "{said:?}");
    drop(lock);
    assert_eq!(store.list().await.unwrap().len(), 3);

    let said = longtake(&folder, "prune run --keep 1 --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let result = json(&said);
    assert_eq!((&result["checkpoints"], &result["parts"]), (&Value::from(2), &Value::from(6)), "{result}");
    assert_eq!(load_newest(&store).await.unwrap(), (Some(3), 0));
    assert_eq!(
        fs::read_dir(folder.path().join("run/checkpoints")).unwrap().count(),
        1,
        "no empty folder stays"
    );
    let again = json(&longtake(&folder, "prune run --keep 1 --json"));
    assert_eq!((&again["checkpoints"], &again["parts"]), (&Value::from(0), &Value::from(0)));
    let (incarnation, mut appender) = take_over(&store, "it goes on").await.unwrap();
    save(&store, &mut appender, incarnation, 4).await.unwrap();
}

#[test]
fn a_folder_that_holds_no_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = longtake(&folder, "list .");
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.stderr.contains("is not the folder of a run"), "{said:?}");
}
