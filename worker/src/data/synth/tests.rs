//! A made-up data set is whole, the same each time, readable by our decoder and by others, and never half-written.

use std::collections::BTreeSet;
use std::process::Command;

use longtake_shared::config::DecoderChoice;
use longtake_shared::units::FrameIndex;

use super::*;
use crate::data::video::VideoReader;

fn small() -> SynthConfig {
    SynthConfig {
        training_videos: 3,
        validation_videos: 2,
        min_duration: Seconds(9.0),
        max_duration: Seconds(12.0),
        width: 64,
        height: 48,
        ..SynthConfig::default()
    }
}

fn silent() -> impl FnMut(usize, usize) {
    |_, _| {}
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = ["", "videos"]
        .iter()
        .flat_map(|part| fs::read_dir(folder.join(part)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn the_same_settings_give_the_same_bytes_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let report =
        write(&small(), &folder.path().join("a"), &Stop::default(), &mut |done, all| seen.push((done, all)))
            .unwrap();
    assert_eq!((report.videos, report.reused), (5, false));
    assert_eq!(seen, (0..=5).map(|done| (done, 5)).collect::<Vec<_>>());
    write(&small(), &folder.path().join("b"), &Stop::default(), &mut silent()).unwrap();
    write(&SynthConfig { seed: 8, ..small() }, &folder.path().join("c"), &Stop::default(), &mut silent())
        .unwrap();
    let (a, b, c) =
        (files(&folder.path().join("a")), files(&folder.path().join("b")), files(&folder.path().join("c")));
    assert_eq!(a.len(), 7);
    assert!(a == b);
    assert!(a != c);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "something partial is left");
}

#[test]
fn annotations_match_the_videos() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("set");
    write(&small(), &folder, &Stop::default(), &mut silent()).unwrap();
    let annotations: Value =
        serde_json::from_slice(&fs::read(folder.join("annotations.json")).unwrap()).unwrap();
    let mut classes = BTreeSet::new();
    for (id, video) in annotations["database"].as_object().unwrap() {
        let path = folder.join(video["file"].as_str().unwrap());
        let mut reader = VideoReader::open(&path, DecoderChoice::Embedded, false).unwrap();
        let info = reader.info();
        assert_eq!((info.width, info.height), (64, 48));
        assert!((info.duration.0 - video["duration"].as_f64().unwrap()).abs() < 1e-3, "{id}");
        assert_eq!(reader.sampled_length(15.0) as u64, info.frames);
        let all = reader.read(15.0, FrameIndex(0), usize::MAX, 48, 64).unwrap();
        assert_eq!(all.count as u64, info.frames);
        let actions = video["annotations"].as_array().unwrap();
        assert!(!actions.is_empty());
        let mut before = 0.0;
        for action in actions {
            let (start, end) =
                (action["segment"][0].as_f64().unwrap(), action["segment"][1].as_f64().unwrap());
            assert!(start >= before && end > start && end <= info.duration.0 + 1e-3, "{id}: {action}");
            before = end;
            classes.insert(action["label"].as_str().unwrap().to_owned());
        }
    }
    assert!(classes.len() >= 3, "{classes:?}");
}

#[test]
fn other_programs_read_the_videos_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("set");
    let config = SynthConfig { training_videos: 1, validation_videos: 0, fps: 24000.0 / 1001.0, ..small() };
    let report = write(&config, &folder, &Stop::default(), &mut silent()).unwrap();
    let path = folder.join("videos/train_000.mp4");
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(&path)
        .args(["-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .output();
    let Ok(output) = run else {
        println!("SKIPPED other_programs_read_the_videos_too: `ffmpeg` is not on PATH");
        return;
    };
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len() as u64, report.frames * 64 * 48);
}

#[test]
fn a_whole_folder_is_reused_and_any_other_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("set");
    fs::create_dir(&folder).unwrap();
    let made = write(&small(), &folder, &Stop::default(), &mut silent()).unwrap();
    let again = write(&small(), &folder, &Stop::default(), &mut silent()).unwrap();
    assert_eq!(again, SynthReport { reused: true, ..made });
    let other = SynthConfig { seed: 8, ..small() };
    assert!(matches!(write(&other, &folder, &Stop::default(), &mut silent()), Err(SynthError::NotEmpty(_))));
    fs::remove_file(folder.join("videos/val_001.mp4")).unwrap();
    assert!(matches!(
        write(&small(), &folder, &Stop::default(), &mut silent()),
        Err(SynthError::NotEmpty(_))
    ));
}

#[test]
fn settings_that_no_video_can_follow_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("set");
    let refused = [
        SynthConfig { width: 63, ..small() },
        SynthConfig { height: 5000, ..small() },
        SynthConfig { classes: 7, ..small() },
        SynthConfig { classes: 0, ..small() },
        SynthConfig { fps: f64::NAN, ..small() },
        SynthConfig { max_duration: Seconds(1.0), ..small() },
    ];
    for config in refused {
        let error = write(&config, &folder, &Stop::default(), &mut silent()).unwrap_err();
        assert!(error.to_string().starts_with("`synth."), "{error}");
        assert!(!folder.exists());
    }
}

#[test]
fn very_short_videos_still_hold_an_action() {
    let config = SynthConfig { min_duration: Seconds(1.0), max_duration: Seconds(3.0), ..small() };
    for number in 0..200 {
        let script = Script::new(&config, "train", number);
        assert!(!script.actions.is_empty());
        for action in &script.actions {
            assert!(action.frames.start < action.frames.end && action.frames.end <= script.frames);
        }
    }
}
