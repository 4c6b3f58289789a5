//! What is wrong is said in one sentence, by name, before or instead of training; nothing half-written is left.

use std::fs;

use insta::assert_snapshot;
use longtake_tests::repository;
use serde_json::Value;

use crate::lab::Lab;

/// Refused before there is anything of a run.
fn refused(lab: &Lab, words: &str) -> String {
    let said = lab.run(&format!("train tiny.toml {words}"));
    assert!(!lab.path("runs").exists(), "{said:?}");
    said.transcript()
}

fn change_annotations(lab: &Lab, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = lab.path("data/annotations.json");
    let mut annotations: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(annotations["database"].as_object_mut().unwrap());
    fs::write(path, annotations.to_string()).unwrap();
}

fn first_training(database: &mut serde_json::Map<String, Value>) -> &mut Value {
    database.values_mut().find(|video| video["subset"] == "training").unwrap()
}

fn first_training_video(lab: &Lab) -> std::path::PathBuf {
    let annotations: Value =
        serde_json::from_slice(&fs::read(lab.path("data/annotations.json")).unwrap()).unwrap();
    let database = annotations["database"].as_object().unwrap();
    let (name, _) = database.iter().find(|(_, video)| video["subset"] == "training").unwrap();
    lab.path(&format!("data/videos/{name}.mp4"))
}

#[test]
fn settings_that_cannot_be() {
    let lab = Lab::new();
    for (name, set) in [
        ("a_rate_below_one_clip", "memory.sampling_rate=0.1"),
        ("a_rate_above_one", "memory.sampling_rate=1.5"),
        ("a_window_that_is_no_multiple_of_the_clip", "data.window_frames=60"),
        ("an_unknown_key", "optim.learning_rat=1"),
        ("a_value_of_another_type", "train.epochs=many"),
        ("more_lanes_than_videos", "train.lanes=5"),
        ("more_workers_than_lanes", "cluster.workers=4"),
        ("a_subset_that_matches_nothing", "data.train_subset=trianing"),
    ] {
        assert_snapshot!(name, refused(&lab, &format!("--set {set}")));
    }
}

#[test]
fn no_videos_at_all() {
    let lab = Lab::with_own_data();
    change_annotations(&lab, serde_json::Map::clear);
    assert_snapshot!(refused(&lab, ""));
}

#[test]
fn a_label_outside_the_class_file() {
    let lab = Lab::with_own_data();
    fs::write(lab.path("classes.txt"), "dive\n").unwrap();
    change_annotations(&lab, |database| first_training(database)["annotations"][0]["label"] = "dvie".into());
    assert_snapshot!(refused(&lab, "--set data.classes=classes.txt"));
}

#[test]
fn an_action_beyond_the_end_of_its_video_is_clipped_with_a_remark() {
    let lab = Lab::with_own_data();
    change_annotations(&lab, |database| {
        first_training(database)["annotations"][0]["segment"][1] = 1000.into();
    });
    let said = lab.train("--set train.epochs=1 --set pretrain.steps=0");
    let name = first_training_video(&lab).file_stem().unwrap().to_string_lossy().into_owned();
    let remark = format!("warning: 1 action reaches beyond its video: clipped (first: `{name}`)\n");
    assert!(said.stderr.contains(&remark), "{said:?}");
}

#[test]
fn an_action_beyond_the_end_of_the_file_is_told_with_the_video() {
    let lab = Lab::with_own_data();
    let video = first_training_video(&lab);
    let name = video.file_stem().unwrap().to_string_lossy().into_owned();
    // Four seconds, where the annotations promise six at least.
    let four_seconds = repository().join("tests/fixtures/decode/h264_faststart.mp4");
    fs::copy(four_seconds, &video).unwrap();
    change_annotations(&lab, |database| {
        first_training(database)["annotations"][0]["segment"] = serde_json::json!([0.5, 5.9]);
    });
    let said = lab.train("--set train.max_steps=1 --set pretrain.steps=0");
    let warning = format!(
        "warning: 1 of 6 files are not as long as annotated: video `{name}` is 4.00 s long, but an action ends at 5.90 s\n\
         hint: copy the file again or correct its annotations; `longtake data check CONFIG` names every such video\n"
    );
    assert!(said.stderr.contains(&warning), "{said:?}");

    let checked = lab.run("data check tiny.toml");
    assert_eq!(checked.code, Some(78), "{checked:?}");
    let problem = format!("problem: video `{name}` is 4.00 s long, but an action ends at 5.90 s");
    assert!(checked.stdout.lines().any(|line| line == problem), "{checked:?}");
}

#[test]
fn videos_that_cannot_be_read_are_not_detected_in() {
    let lab = Lab::new();
    lab.train("--set pretrain.steps=0 --set train.max_steps=1");
    let bytes = fs::read(first_training_video(&lab)).unwrap();
    fs::write(lab.path("cut.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(lab.path("empty.mp4"), "").unwrap();
    for name in ["cut", "empty"] {
        let said = lab.run(&format!("detect runs/tiny {name}.mp4"));
        assert_snapshot!(format!("detect_in_a_video_that_is_{name}"), said.transcript());
    }
    assert!(!lab.path("detections").exists());
}

#[test]
fn a_video_that_is_cut_off() {
    let lab = Lab::with_own_data();
    let video = first_training_video(&lab);
    let bytes = fs::read(&video).unwrap();
    fs::write(&video, &bytes[..bytes.len() / 2]).unwrap();
    assert_snapshot!(refused(&lab, ""));
}

#[test]
fn a_video_that_is_none() {
    let lab = Lab::with_own_data();
    fs::write(first_training_video(&lab), "not a video").unwrap();
    assert_snapshot!(refused(&lab, "--set data.decoder=embedded"));
}

#[test]
fn a_video_that_is_missing() {
    let lab = Lab::with_own_data();
    fs::remove_file(first_training_video(&lab)).unwrap();
    assert_snapshot!(refused(&lab, ""));
}

#[test]
fn a_port_that_is_taken_leaves_no_run_behind() {
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = lab.run(&format!("train tiny.toml --set cluster.listen={address}"));
    assert_snapshot!(said.transcript().replace(&address, "[ADDRESS]"));
    assert!(!lab.path("runs/tiny/config.json").exists());
    lab.train("--set pretrain.steps=0 --set train.epochs=1");
}

#[test]
fn a_folder_that_holds_a_run() {
    let lab = Lab::new();
    lab.train("--set pretrain.steps=0 --set train.epochs=1");
    assert_snapshot!(lab.run("train tiny.toml").transcript());
}
