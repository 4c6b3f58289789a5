//! Damaged videos are left out alike, whoever reads them.

use longtake_shared::config::{MemoryInit, RunConfig};

use super::crew::{Crew, Numbers, Videos};
use super::{GO_ON, config};

/// What a run tells of its steps and warns of.
fn told(videos: &Videos, world: u32, change: impl FnOnce(&mut RunConfig)) -> (Numbers, Vec<String>) {
    let mut crew = Crew::new(videos, config(), |config| {
        config.data.max_damaged = 0.25;
        change(config);
    });
    crew.form(&(0..world).collect::<Vec<_>>(), 0, false);
    crew.train(GO_ON);
    crew.until_finished();
    crew.end();
    (crew.numbers, crew.warnings)
}

/// A number of the last step.
fn last(numbers: &Numbers, name: &str) -> f64 {
    numbers.values().last().unwrap()[name]
}

#[test]
fn damaged_videos_are_skipped_and_counted_alike_by_any_number_of_workers() {
    let videos = Videos::make();
    // One that does not open, and one whose pictures cannot be decoded.
    videos.tear("train_003", 0.0, 1.0);
    videos.tear("train_007", 0.1, 0.8);
    let absent = |config: &mut RunConfig| config.memory.init = MemoryInit::Absent;
    let (expected, _) = told(&videos, 1, absent);
    let (found, warnings) = told(&videos, 3, absent);
    for name in ["samples", "sample_ids", "skipped_samples"] {
        for (step, numbers) in &expected {
            assert_eq!(found[step][name], numbers[name], "{name} of step {step}");
        }
    }
    assert!(last(&found, "skipped_samples") >= 2.0, "{found:?}");
    for numbers in [&found, &expected] {
        assert_eq!(last(numbers, "damaged_videos"), 2.0, "{numbers:?}");
    }
    for id in ["train_003", "train_007"] {
        let of_video =
            warnings.iter().filter(|text| text.starts_with(&format!("video `{id}` is left out: "))).count();
        assert_eq!(of_video, 1, "{warnings:?}");
    }
}

#[test]
fn extraction_and_pretraining_go_on_without_damaged_videos() {
    let videos = Videos::make();
    videos.tear("train_003", 0.0, 1.0);
    videos.tear("train_007", 0.1, 0.8);
    let (numbers, warnings) = told(&videos, 2, |config| {
        config.memory.init = MemoryInit::Extract;
        config.pretrain.steps = 3;
        config.pretrain.batch = 24;
        config.pretrain.clip_frames = config.data.clip_frames;
    });
    assert!(last(&numbers, "samples") > 0.0, "{numbers:?}");
    assert_eq!(last(&numbers, "damaged_videos"), 2.0, "{numbers:?}");
    assert!(warnings.iter().any(|text| text.contains("`train_003`")), "{warnings:?}");
}

#[test]
fn a_validation_has_no_detections_of_a_damaged_video_and_says_so() {
    let videos = Videos::make();
    videos.tear("val_000", 0.1, 0.8);
    let (_, warnings) = told(&videos, 2, |config| {
        config.memory.init = MemoryInit::Absent;
        config.data.max_damaged = 1.0;
    });
    let missing = "1 of 1 validation videos have no detections, since they cannot be read: `val_000`";
    assert!(warnings.iter().any(|text| text == missing), "{warnings:?}");
}
