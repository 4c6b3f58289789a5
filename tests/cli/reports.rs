//! What reading commands show: settings, data sets, results, weights of other programs.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use longtake_tests::{Call, repository};

use crate::{longtake, longtake_in};

const ANNOTATIONS: &str = r#"{"database": {
    "pool": {"subset": "training", "duration": 4.0, "annotations": [
        {"label": "dive", "segment": [0.5, 2.0]}, {"label": "swim", "segment": [2.0, 3.5]}]},
    "lake": {"subset": "validation", "duration": 4.0, "annotations": [
        {"label": "dive", "segment": [1.0, 3.0]}, {"label": "swim", "segment": [2.5, 3.5]}]}
}}"#;

const CONFIG: &str = r#"[data]
annotations = "annotations.json"
videos = "videos"
fps = 12.5
"#;

/// A data set of two videos that last four seconds.
fn two_videos(folder: &Path, annotations: &str) {
    fs::write(folder.join("annotations.json"), annotations).unwrap();
    fs::write(folder.join("water.toml"), CONFIG).unwrap();
    fs::create_dir(folder.join("videos")).unwrap();
    let video = fs::read(repository().join("tests/fixtures/decode/h264_faststart.mp4")).unwrap();
    // A box of free space makes the second another file: the same one in both subsets is a leak.
    let other = [video.as_slice(), b"\0\0\0\x08free"].concat();
    for (name, bytes) in [("pool.mp4", &video), ("lake.mp4", &other)] {
        fs::write(folder.join("videos").join(name), bytes).unwrap();
    }
}

#[test]
fn settings_that_are_no_defaults_name_their_source() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("water.toml"), CONFIG).unwrap();
    let said = longtake_in(folder.path(), "config water.toml --set train.epochs=7 --set run.name=\"water\"");
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<String> = said
        .stdout
        .lines()
        .filter(|line| !line.ends_with("# default"))
        // How far the sources stand to the right hangs on the longest of all settings.
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_data_set_without_problems() {
    let folder = tempfile::tempdir().unwrap();
    two_videos(folder.path(), ANNOTATIONS);
    assert_snapshot!(longtake_in(folder.path(), "data check water.toml").transcript());
}

#[test]
fn a_data_set_with_problems() {
    let folder = tempfile::tempdir().unwrap();
    let annotations = ANNOTATIONS
        .replacen("\"duration\": 4.0", "\"duration\": 9.0", 1)
        .replace("[2.0, 3.5]", "[2.0, 8.5]")
        .replace("\"swim\", \"segment\": [2.5, 3.5]", "\"float\", \"segment\": [2.5, 30]");
    two_videos(folder.path(), &annotations);
    fs::remove_file(folder.path().join("videos/lake.mp4")).unwrap();
    assert_snapshot!(longtake_in(folder.path(), "data check water.toml").transcript());
    fs::write(folder.path().join("videos/lake.mp4"), "").unwrap();
    let said = longtake_in(folder.path(), "data check water.toml --json");
    assert_eq!(said.code, Some(78), "{said:?}");
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let kinds: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["beyond-end", "other-duration", "unreadable", "never-trained", "never-validated"],
        "{report}"
    );
}

#[test]
fn results_by_two_sets_of_rules() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("annotations.json"), ANNOTATIONS).unwrap();
    let results = r#"{"version": "1", "external_data": {}, "results": {
        "lake": [{"label": "dive", "score": 0.9, "segment": [1.0, 2.8]},
                 {"label": "swim", "score": 0.4, "segment": [2.5, 3.0]},
                 {"label": "swim", "score": 0.4, "segment": [0.0, 1.0]}],
        "river": [{"label": "dive", "score": 0.95, "segment": [0.0, 1.0]}]
    }}"#;
    fs::write(folder.path().join("results.json"), results).unwrap();
    let words = "evaluate --predictions results.json --annotations annotations.json --rules";
    for rules in ["activitynet", "vedatad"] {
        let said = longtake_in(folder.path(), &format!("{words} {rules}"));
        assert_snapshot!(format!("results_by_the_rules_of_{rules}"), said.transcript());
    }
}

/// The figures are those of an independent evaluator.
#[test]
fn results_as_people_have_them_are_judged_by_the_published_protocol() {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(repository().join("tests/fixtures/results")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    for (results, truth, tiou, average) in [
        ("res_ties", "gt", "0.3:0.1:0.7", 0.233_630_988),
        ("res_ties", "gt", "0.5:0.05:0.95", 0.171_812_002),
        ("res_ties", "gt_test_odd", "0.3:0.1:0.7", 0.233_630_988),
        ("res_reversed", "gt", "0.3:0.1:0.7", 0.206_485_018),
        ("res_doubled", "gt", "0.3:0.1:0.7", 0.127_437_881),
    ] {
        let words =
            format!("evaluate --predictions {results}.json --annotations {truth}.json --tiou {tiou} --json");
        let said = longtake_in(folder.path(), &words);
        let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let found = report["average"].as_f64().unwrap();
        assert!((found - average).abs() < 5e-10, "{words}: {found}");
        assert_eq!(said.stderr.contains("cannot be understood"), truth == "gt_test_odd", "{said:?}");
    }
    let said = longtake_in(folder.path(), "evaluate --predictions res_dupkeys.json --annotations gt.json");
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.stderr.contains("holds the video `vid_00` twice"), "{said:?}");
}

#[test]
fn thresholds_in_numpys_order_are_refused_with_the_right_order() {
    let said = longtake("evaluate --predictions a --annotations b --tiou 0.3:0.7:0.1");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("write `0.3:0.1:0.7`"), "{said:?}");
}

#[test]
fn a_video_in_both_subsets_ends_every_command_that_would_use_it() {
    let folder = tempfile::tempdir().unwrap();
    two_videos(folder.path(), ANNOTATIONS);
    let videos = folder.path().join("videos");
    fs::copy(videos.join("pool.mp4"), videos.join("lake.mp4")).unwrap();
    let leak = "the files of `pool` in training and `lake` in validation have the same content";
    let said = longtake_in(folder.path(), "train water.toml");
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.stderr.contains(leak), "{said:?}");
    assert!(longtake_in(folder.path(), "data check water.toml").stdout.contains(leak));
}

#[test]
fn a_folder_that_holds_no_run_has_no_status() {
    let said = longtake("status runs/none");
    assert_ne!(said.code, Some(0));
    assert_snapshot!(said.transcript());
}

#[test]
fn published_weights_are_imported_with_what_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let published = repository().join("worker/src/model/backbone/fixtures/official.pth");
    fs::copy(published, folder.path().join("official.pth")).unwrap();
    assert_snapshot!(longtake_in(folder.path(), "import official.pth backbone.safetensors").transcript());
    let bytes = fs::read(folder.path().join("backbone.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(stored.names().contains(&"backbone.patch_embed.proj.weight"), "{:?}", stored.names());

    let said = longtake_in(folder.path(), "import official.pth --json");
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["tensors"], stored.len(), "{said:?}");
    assert_eq!(fs::read(folder.path().join("official.safetensors")).unwrap(), bytes);
}

#[test]
fn the_data_of_mini_tal_are_without_problems() {
    if !repository().join("../shared/mini-tal/annotations.json").exists() {
        println!("SKIPPED the_data_of_mini_tal_are_without_problems: `../shared/mini-tal` is not there");
        return;
    }
    let program = env!("CARGO_BIN_EXE_longtake-under-test");
    let said = Call::new(program, &repository()).typed("data check configs/mini_tal.toml --json").run();
    assert_eq!(said.code, Some(0), "{said:?}");
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let videos: u64 =
        report["subsets"].as_array().unwrap().iter().map(|subset| subset["videos"].as_u64().unwrap()).sum();
    assert_eq!((videos, report["classes"].as_array().unwrap().len()), (56, 6), "{report}");
    assert_eq!(report["problems"].as_array().unwrap().len(), 0, "{report}");
}
