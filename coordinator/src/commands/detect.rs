//! `longtake detect`: weights and videos -> detections.json and timeline.svg.

use std::fmt::Write as _;
use std::path::Path;

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::role::{DetectRequest, DetectedVideo};
use serde_json::json;

use super::pictures::{Truth, picture};
use super::{Session, files, results, settings};
use crate::cli::DetectArgs;
use crate::timeline;

/// Detections of a video that the terminal lists.
const LISTED: usize = 5;

pub(super) fn run(args: &DetectArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("detect")?;
    files::require(&args.weights, "the weights file")?;
    for video in &args.videos {
        files::require(video, "the video")?;
    }
    unambiguous(&args.videos)?;
    let truth = args.annotations.as_deref().map(settings::annotated).transpose()?;
    let request = DetectRequest {
        weights: args.weights.clone(),
        config: settings::load_optional(args.config.as_deref(), &args.overrides)?,
        videos: args.videos.clone(),
    };
    let bar = session.console.bar("detecting");
    let detected = (worker.detect)(&request, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let detected = detected?;

    if let Some(truth) = &truth {
        for video in detected.iter().filter(|video| !truth.contains_key(&video.id)) {
            session.console.warn(&format!("the annotations do not name the video `{}`", video.id));
        }
    }
    let json_path = args.out.join("detections.json");
    let picture_path = args.out.join("timeline.svg");
    let found = results::activitynet(&detected);
    let text = serde_json::to_string_pretty(&found)
        .map_err(|error| Failure::new(format!("the detections have no JSON form: {error}")))?;
    files::write_whole(&json_path, text.as_bytes())?;
    let drawn = timeline::draw(&picture(&title(&args.weights), args.threshold, &detected, truth.as_ref()));
    files::write_whole(&picture_path, drawn.as_bytes())?;

    let said = listing(&detected, args.threshold, &[&json_path, &picture_path], truth.as_ref());
    let value = json!({ "detections": json_path, "timeline": picture_path, "results": found["results"] });
    session.console.result(&said, &value)?;
    Ok(ExitCode::Done)
}

fn title(weights: &Path) -> String {
    format!("Detections of {}", weights.display())
}

/// Results name a video by its file name, so two of one name cannot be told apart.
fn unambiguous(videos: &[std::path::PathBuf]) -> Result<(), Failure> {
    for (index, video) in videos.iter().enumerate() {
        if let Some(twin) = videos[..index].iter().find(|other| other.file_stem() == video.file_stem()) {
            let (twin, video) = (twin.display(), video.display());
            return Err(Failure::new(format!("`{twin}` and `{video}` would have one name in the results"))
                .hint("detect them in two calls, with different --out folders"));
        }
    }
    Ok(())
}

/// The surest detections of each video, and where the files lie.
fn listing(videos: &[DetectedVideo], threshold: f64, written: &[&Path], truth: Option<&Truth>) -> String {
    let mut text = String::new();
    for video in videos {
        let sure: Vec<_> = video.detections.iter().filter(|found| found.score >= threshold).collect();
        let annotated = truth.and_then(|truth| truth.get(&video.id)).map_or(String::new(), |actions| {
            format!(", {} annotated", actions.len())
        });
        let (id, count) = (&video.id, sure.len());
        put(&mut text, format_args!("{id} ({}): {count} from score {threshold:.2} on{annotated}\n", video.duration));
        for found in sure.iter().take(LISTED) {
            let [start, end] = found.segment;
            put(&mut text, format_args!("  {:.2}  {start:>8} - {end:<8}  {}\n", found.score, found.label));
        }
        if sure.len() > LISTED {
            put(&mut text, format_args!("  and {} more\n", sure.len() - LISTED));
        }
    }
    for path in written {
        put(&mut text, format_args!("wrote {}\n", path.display()));
    }
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use longtake_shared::role::DetectedAction;
    use longtake_shared::units::Seconds;

    use super::*;

    #[test]
    fn the_listing_names_the_surest_and_counts_the_rest() {
        let detections = (0..7u32)
            .map(|index| DetectedAction {
                label: "dive".into(),
                score: 0.9 - 0.1 * f64::from(index),
                segment: [Seconds(f64::from(index)), Seconds(f64::from(index) + 1.5)],
            })
            .collect();
        let videos = [DetectedVideo { id: "pool".into(), duration: Seconds(42.0), detections }];
        let text = listing(&videos, 0.35, &[Path::new("detections/timeline.svg")], None);
        insta::assert_snapshot!(text, @r"
        pool (42.0 s): 6 from score 0.35 on
          0.90     0.0 s - 1.5 s     dive
          0.80     1.0 s - 2.5 s     dive
          0.70     2.0 s - 3.5 s     dive
          0.60     3.0 s - 4.5 s     dive
          0.50     4.0 s - 5.5 s     dive
          and 1 more
        wrote detections/timeline.svg
        ");
    }

    #[test]
    fn two_videos_of_one_name_are_refused() {
        let failure = unambiguous(&["a/x.mp4".into(), "b/y.mp4".into(), "c/x.mkv".into()]).unwrap_err();
        assert!(failure.message.contains("`a/x.mp4` and `c/x.mkv`"), "{}", failure.message);
    }
}
