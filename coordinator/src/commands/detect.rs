//! `longtake detect`: weights and videos -> detections.json and timeline.svg.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::metrics::GroundTruth;
use longtake_shared::role::{DetectRequest, Detected};
use serde_json::json;

use super::pictures::{annotated, found, picture};
use super::run_folder::weights_of;
use super::{Session, files, settings};
use crate::cli::DetectArgs;
use crate::timeline;

/// Detections of a video that the terminal lists.
const LISTED: usize = 5;

pub(super) fn run(args: &DetectArgs, session: &Session) -> Result<ExitCode, Failure> {
    let worker = session.worker("detect")?;
    let weights = weights_of(&args.weights);
    files::require(&weights, "the weights file")?;
    for video in &args.videos {
        files::require(video, "the video")?;
    }
    unambiguous(&args.videos)?;
    let truth = args.annotations.as_deref().map(GroundTruth::read_all).transpose()?;
    let config = settings::load_optional(args.config.as_deref(), &args.overrides)?;
    let request = DetectRequest { weights, config, videos: args.videos.clone() };
    let bar = session.console.bar("detecting");
    let detected = (worker.detect)(&request, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let detected = detected?;

    let videos = &detected.detections.videos;
    if let Some(warning) = cut_short(&detected) {
        session.console.warn(&warning);
    }
    if let Some(truth) = &truth {
        for video in videos.iter().filter(|video| annotated(truth, video).is_none()) {
            session.console.warn(&format!("the annotations do not name the video `{video}`"));
        }
    }
    let json_path = args.out.join("detections.json");
    let picture_path = args.out.join("timeline.svg");
    files::write_whole(&json_path, detected.detections.to_json().as_bytes())?;
    let title = format!("Detections of {}", request.weights.display());
    let shown = picture(&title, args.threshold, &detected, truth.as_ref(), 0..videos.len());
    files::write_whole(&picture_path, timeline::draw(&shown).as_bytes())?;

    let text = listing(&detected, args.threshold, &[&json_path, &picture_path]);
    let cut = &detected.cut;
    let value = json!({ "detections": json_path, "timeline": picture_path, "videos": videos, "cut": cut });
    session.console.result(&text, &value)?;
    Ok(ExitCode::Done)
}

/// Results name a video by its file name, so two of one name cannot be told apart.
fn unambiguous(videos: &[PathBuf]) -> Result<(), Failure> {
    for (index, video) in videos.iter().enumerate() {
        if let Some(twin) = videos[..index].iter().find(|other| other.file_stem() == video.file_stem()) {
            let (twin, video) = (twin.display(), video.display());
            return Err(Failure::new(format!("`{twin}` and `{video}` would have one name in the results"))
                .hint("detect them in two calls, with different --out folders"));
        }
    }
    Ok(())
}

/// What the limit of detections a video has left out, as a sentence; nothing where it left out nothing.
pub(super) fn cut_short(detected: &Detected) -> Option<String> {
    let cut: Vec<(&String, usize)> = detected
        .detections
        .videos
        .iter()
        .zip(detected.cut.iter().copied())
        .filter(|(_, cut)| *cut > 0)
        .collect();
    let (first, _) = cut.first()?;
    let count: usize = cut.iter().map(|(_, cut)| cut).sum();
    let others = match cut.len() - 1 {
        0 => String::new(),
        1 => " and of one more video".to_owned(),
        more => format!(" and of {more} more videos"),
    };
    Some(format!(
        "the limit `evaluation.max_detections` left out {count} detections with the lowest scores, of `{first}`{others}; -1 keeps all"
    ))
}

/// The surest detections of each video, and where the files lie.
fn listing(detected: &Detected, threshold: f64, written: &[&Path]) -> String {
    let mut text = String::new();
    for (video, id) in detected.detections.videos.iter().enumerate() {
        let mut sure = found(&detected.detections, video);
        sure.retain(|found| found.score >= threshold);
        let duration = detected.durations.get(video).copied().unwrap_or_default();
        put(&mut text, format_args!("{id} ({duration}): {} from score {threshold:.2} on\n", sure.len()));
        for found in sure.iter().take(LISTED) {
            let (segment, score) = (&found.segment, found.score);
            let (start, end) = (segment.start.0, segment.end.0);
            put(&mut text, format_args!("  {score:.2}  {start:>8.1} s to {end:>8.1} s  {}\n", segment.label));
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
    use longtake_shared::metrics::{Detection, Detections};
    use longtake_shared::units::Seconds;

    use super::*;

    #[test]
    fn the_listing_names_the_surest_and_counts_the_rest() {
        let items = (0..7u32)
            .map(|index| {
                let start = f64::from(index);
                Detection { video: 0, label: 0, start, end: start + 1.5, score: 0.9 - 0.1 * start }
            })
            .collect();
        let detections = Detections { videos: vec!["pool".into()], labels: vec!["dive".into()], items };
        let detected = Detected { detections, durations: vec![Seconds(42.0)], cut: vec![0] };
        let text = listing(&detected, 0.35, &[Path::new("detections/timeline.svg")]);
        insta::assert_snapshot!(text, @r"
        pool (42.0 s): 6 from score 0.35 on
          0.90       0.0 s to      1.5 s  dive
          0.80       1.0 s to      2.5 s  dive
          0.70       2.0 s to      3.5 s  dive
          0.60       3.0 s to      4.5 s  dive
          0.50       4.0 s to      5.5 s  dive
          and 1 more
        wrote detections/timeline.svg
        ");
    }

    #[test]
    fn what_the_limit_left_out_is_told() {
        let detections = Detections {
            videos: vec!["pool".into(), "sea".into(), "lake".into()],
            labels: Vec::new(),
            items: Vec::new(),
        };
        let of = |cut| Detected { detections: detections.clone(), durations: Vec::new(), cut };
        assert_eq!(cut_short(&of(vec![0; 3])), None);
        assert_eq!(cut_short(&of(Vec::new())), None);
        insta::assert_snapshot!(cut_short(&of(vec![0, 1160, 0])).unwrap(), @"the limit `evaluation.max_detections` left out 1160 detections with the lowest scores, of `sea`; -1 keeps all");
        insta::assert_snapshot!(cut_short(&of(vec![3, 0, 4])).unwrap(), @"the limit `evaluation.max_detections` left out 7 detections with the lowest scores, of `pool` and of one more video; -1 keeps all");
    }

    #[test]
    fn two_videos_of_one_name_are_refused() {
        let failure = unambiguous(&["a/x.mp4".into(), "b/y.mp4".into(), "c/x.mkv".into()]).unwrap_err();
        assert!(failure.message.contains("`a/x.mp4` and `c/x.mkv`"), "{}", failure.message);
    }
}
