//! Videos that are damaged: found before a run begins, tolerated up to a share, and the end of a run above it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use longtake_tests::Said;

use crate::lab::Lab;

/// Videos whose frames are decoded again for every window.
const UNCACHED: &str = "--set data.frame_cache=0 --set pretrain.steps=0 --set memory.init=absent";

fn video(lab: &Lab, id: &str) -> PathBuf {
    lab.path(&format!("data/videos/{id}.mp4"))
}

/// Zeros most of the pictures of a file in place: whoever has it open meets them, too.
fn tear(lab: &Lab, id: &str) {
    let path = video(lab, id);
    let length = fs::metadata(&path).unwrap().len();
    let zeros = vec![0; (length * 7 / 10) as usize];
    fs::File::options().write(true).open(path).unwrap().write_all_at(&zeros, length / 10).unwrap();
}

#[track_caller]
fn assert_ends_for_good(said: &Said, complaint: &str) {
    assert_eq!(said.code, Some(78), "{said:?}");
    let error = said.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains(complaint), "{said:?}");
    assert!(said.stderr.contains("\nhint: "), "{said:?}");
}

#[test]
fn a_check_names_every_damaged_video_with_place_and_hint() {
    let lab = Lab::with_own_data();
    tear(&lab, "train_001");
    tear(&lab, "val_000");
    fs::write(video(&lab, "train_002"), "").unwrap();
    for words in ["data check tiny.toml --json", "data check tiny.toml --thorough --json"] {
        let said = lab.run(words);
        assert_eq!(said.code, Some(78), "{said:?}");
        let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let unreadable: Vec<&str> = report["problems"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|problem| problem["kind"] == "unreadable" && problem["hint"].is_string())
            .map(|problem| problem["video"].as_str().unwrap())
            .collect();
        assert_eq!(unreadable, ["train_001", "train_002", "val_000"], "{report}");
        let reason = report["problems"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("is damaged"), "{report}");
    }
}

#[test]
fn a_thorough_check_finds_what_lies_between_the_ends_and_the_middle() {
    let lab = Lab::with_own_data();
    // A few bytes somewhere in the first half, behind the first pictures.
    let path = video(&lab, "train_001");
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0; (length / 50) as usize], length * 3 / 10).unwrap();
    let thorough = lab.run("data check tiny.toml --thorough");
    assert_eq!(thorough.code, Some(78), "{thorough:?}");
    assert!(thorough.stdout.contains("problem: video `train_001` is damaged"), "{thorough:?}");
}

#[test]
fn a_run_does_not_begin_with_more_damage_than_it_tolerates() {
    let lab = Lab::with_own_data();
    tear(&lab, "train_001");
    let said = lab.run("train tiny.toml");
    assert_ends_for_good(&said, "video `train_001` is damaged");
    tear(&lab, "train_002");
    let said = lab.run("train tiny.toml --set data.max_damaged=0.25");
    assert_ends_for_good(
        &said,
        "2 of 4 training videos cannot be read, more than the share 0.25 that `data.max_damaged` allows: video `train_001` is",
    );
    assert!(!lab.path("runs").exists(), "{said:?}");
}

#[test]
fn tolerated_damage_is_told_and_the_run_comes_to_its_end() {
    let lab = Lab::with_own_data();
    // The first video of all, of which checkpoints tell the decoder.
    fs::write(video(&lab, "train_000"), "").unwrap();
    tear(&lab, "val_001");
    let said = lab.train("--set data.max_damaged=0.5 --set train.epochs=2");
    let warning = "warning: 2 of 6 videos cannot be read, and the run does without what they show: video `train_000` is empty";
    assert!(said.stderr.contains(warning), "{said:?}");
    let missing =
        "warning: 1 of 2 validation videos have no detections, since they cannot be read: `val_001`";
    assert!(said.stderr.contains(missing), "{said:?}");
    let numbers = &lab.steps().into_values().last().unwrap()["numbers"];
    assert_eq!(numbers["damaged_videos"], 1.0, "{numbers}");
    assert!(numbers["skipped_samples"].as_f64().unwrap() >= 2.0, "{numbers}");
    let resumed = lab.run("train --resume runs/tiny --set train.epochs=3 --allow-different-config");
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
}

#[test]
fn damage_that_comes_while_a_run_trains_ends_it_above_the_share() {
    let lab = Lab::with_own_data();
    let words = format!("train tiny.toml --set train.epochs=100000 --set train.validate_every=0 {UNCACHED}");
    let mut running = lab.start(&format!("{words} --set data.max_damaged=0.25"));
    lab.wait_for_step(&mut running, "train", 2);
    tear(&lab, "train_001");
    lab.wait_for_numbers(&mut running, "one damaged video", |numbers| numbers["damaged_videos"] == 1.0);
    assert!(!running.has_ended(), "a quarter of the videos is tolerated");
    tear(&lab, "train_003");
    let said = running.end();
    assert_ends_for_good(
        &said,
        "2 of 4 training videos cannot be read, more than the share 0.25 that `data.max_damaged` allows: `train_001`, `train_003`",
    );
}

#[test]
fn damage_of_validation_videos_ends_a_run_above_the_share() {
    let lab = Lab::with_own_data();
    let mut running =
        lab.start(&format!("train tiny.toml --set train.epochs=30 --set train.validate_every=0 {UNCACHED}"));
    lab.wait_for_step(&mut running, "train", 2);
    tear(&lab, "val_000");
    let said = running.end();
    assert_ends_for_good(&said, "1 of 2 validation videos cannot be read, more than the share 0.01");
    assert!(said.stderr.contains("`val_000`"), "{said:?}");
}
