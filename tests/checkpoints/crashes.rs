//! A process that saves is killed at any instant: what it was told is saved is there, and the run goes on.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longtake_shared::checkpoint::CheckpointStore;
use longtake_shared::objects::Objects;
use longtake_shared::random::Key;
use rand::RngExt as _;

use crate::support::{count, load_newest, save, take_over};

/// What a killed process had said.
#[derive(Debug, Default)]
struct LastWords {
    begun: u64,
    saved: u64,
}

/// Starts the program, lets it begin a save, and kills it a while later.
fn crash(folder: &Path, after: Duration) -> LastWords {
    let mut child = Command::new(env!("CARGO_BIN_EXE_saving"))
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut words = LastWords::default();
    let mut note = |line: &str| match line.split_once(' ').map(|(word, step)| (word, step.parse())) {
        Some(("begin", Ok(step))) => words.begun = step,
        Some(("saved", Ok(step))) => words.saved = step,
        _ => panic!("it says `{line}`"),
    };
    note(&lines.next().expect("it begins to save").unwrap());
    // The instant of the crash.
    std::thread::sleep(after);
    kill(&mut child);
    lines.for_each(|line| note(&line.unwrap()));
    words
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_saves_loses_nothing_that_was_saved() {
    let crashes = count(50, 1000);
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(Objects::open(&folder.path().display().to_string()).unwrap());
    let mut rng = Key::root(crashes as u64).rng();
    let (mut before, mut between) = (0, 0);
    for crash_number in 0..crashes {
        let after = Duration::from_micros(rng.random_range(0..60_000));
        let words = crash(folder.path(), after);
        let (newest, passed_over) = load_newest(&store).await.unwrap();
        let newest = newest.unwrap_or_default();
        assert_eq!(passed_over, 0, "crash {crash_number}: a crash damages nothing that counts");
        assert!(
            newest >= words.saved.max(before) && newest <= words.begun,
            "crash {crash_number}: {newest} is there, {words:?}, {before} before"
        );
        between += usize::from(words.saved < words.begun);
        before = newest;
    }
    assert!(between > crashes / 4, "only {between} of {crashes} crashes met a save on its way");
    let (incarnation, mut appender) = take_over(&store, "after all of them").await.unwrap();
    save(&store, &mut appender, incarnation, before + 1).await.unwrap();
    assert_eq!(load_newest(&store).await.unwrap(), (Some(before + 1), 0));
    println!(
        "{crashes} crashes, {between} of them while a save was on its way, {before} checkpoints saved, none lost"
    );
}
