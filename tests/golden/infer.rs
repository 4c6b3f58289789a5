//! Post-processing: candidates, and what suppression leaves of them.

use burn::tensor::Tensor;
use longtake_shared::config::PastEnd;
use longtake_worker::infer::Detection;
use longtake_worker::infer::nms::{Kept, Suppression, groups, hard};
use longtake_worker::infer::soft::{Decay, soft};
use longtake_worker::infer::windows::WindowPlace;
use longtake_worker::model::heads::Candidates;
use longtake_worker::model::heads::daotad::HeadOutput;
use longtake_worker::model::heads::daotad::candidates::of_batch;

use crate::losses::grid;
use crate::support::{Case, Check, Runner};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] =
    &[("nms, soft_nms, nms_match", operations), ("SegmentAnchorConverter + multiclass_nms*", converter)];

/// Floor of soft-NMS in cases that do not name it.
const PUBLISHED_FLOOR: f32 = 0.001;

fn operations(case: &Case) -> Result<(), String> {
    let detections: Vec<Detection> = case
        .floats("input.dets")?
        .chunks_exact(3)
        .map(|row| Detection { segment: [row[0], row[1]], score: row[2], label: 0 })
        .collect();
    let mut check = Check::new(case);
    for threshold in ["0.3", "0.5", "0.7"] {
        let threshold_value: f32 = threshold.parse().map_err(|e| format!("{threshold}: {e}"))?;
        let mut kept: Vec<i64> =
            hard(&detections, threshold_value).into_iter().map(|index| index as i64).collect();
        let name = format!("output.nms_keep_{threshold}");
        let expected = case.integers(&name)?;
        if expected.is_sorted() {
            kept.sort_unstable();
        }
        check.exact(&name, &kept);
    }
    let floor = case.float("soft/min_score")? as f32;
    let linear = Decay::Linear { threshold: case.float("soft/linear")? as f32 };
    let gaussian = |sigma| Decay::Gaussian { sigma };
    for (name, decay) in [
        ("soft_linear", linear),
        ("soft_gaussian", gaussian(case.float("soft/gaussian/sigma")? as f32)),
        ("soft_gaussian_s09", gaussian(0.9)),
    ] {
        // The case states no parameters for this one: sigma is in its name, the floor follows from what was dropped.
        let floor = if name == "soft_gaussian_s09" { 0.05 } else { floor };
        let kept = soft(&detections, decay, floor);
        let indices: Vec<i64> = kept.iter().map(|(index, _)| *index as i64).collect();
        check.exact(&format!("output.{name}.inds"), &indices);
        let rows: Vec<f32> =
            kept.iter().flat_map(|(_, kept)| [kept.segment[0], kept.segment[1], kept.score]).collect();
        check.output(&format!("output.{name}.dets"), &rows);
    }
    let matched = groups(&detections, 0.5);
    let lengths: Vec<i64> = matched.iter().map(|group| group.len() as i64).collect();
    let concatenated: Vec<i64> = matched.iter().flatten().map(|index| *index as i64).collect();
    check.exact("output.match_lengths", &lengths);
    check.exact("output.match_concat", &concatenated);
    check.finish()
}

/// What suppression as a case configures it leaves of the detections of a video.
pub(crate) fn suppressed(case: &Case, detections: &[Detection]) -> Result<Kept, String> {
    // -1: all.
    let most: i64 = case.parsed("/config/max_per_video")?;
    Ok(suppression(case)?.apply(detections, usize::try_from(most).ok()))
}

fn suppression(case: &Case) -> Result<Suppression, String> {
    let kind = case.value("/config/nms/typename")?.as_str().unwrap_or_default().to_owned();
    let threshold = case.float("nms/iou_thr")? as f32;
    Ok(match kind.as_str() {
        "nmw" => Suppression::Weighting { threshold },
        "nms" => Suppression::Hard { threshold },
        "soft_nms" => {
            let method: Option<String> = case.optional("/config/nms/method")?;
            let decay = match method.as_deref() {
                Some("linear") | None => Decay::Linear { threshold },
                Some("gaussian") => Decay::Gaussian { sigma: case.float("nms/sigma")? as f32 },
                Some(other) => return Err(format!("`{other}` is no method of soft-NMS that is known")),
            };
            let floor: Option<f32> = case.optional("/config/nms/min_score")?;
            Suppression::Soft { decay, floor: floor.unwrap_or(PUBLISHED_FLOOR) }
        }
        other => return Err(format!("`{other}` is no kind of suppression that is known")),
    })
}

fn converter(case: &Case) -> Result<(), String> {
    let grid = grid(case)?;
    let levels = |name: &str| -> Result<Vec<Tensor<3>>, String> {
        let prefix = format!("input.{name}.");
        (0..case.count(&prefix)).map(|level| case.tensor(&format!("{prefix}{level}"))).collect()
    };
    let output = HeadOutput { class_logits: levels("cls")?, offsets: levels("reg")?, statistics: Vec::new() };
    let place = WindowPlace {
        start: case.integer("tshift")?,
        frames: case.integer("tsize")?,
        fps: case.float("tscale_factor")? as f32,
        past_end: PastEnd::Clip,
    };
    let found = of_batch(&output, &grid, case.integer("nms_pre")?);
    let mut check = Check::new(case);
    let columns = case.shape("output.scores")?[1];
    check_candidates(&mut check, "output.", columns, &found[0], place);
    let detections = place.detections(&found[0], case.float("score_thr")? as f32);
    let kept = suppressed(case, &detections)?.detections;
    let rows: Vec<f32> =
        kept.iter().flat_map(|kept| [kept.segment[0], kept.segment[1], kept.score]).collect();
    check.output("output.dets", &rows);
    let labels: Vec<i64> = kept.iter().map(|kept| kept.label as i64).collect();
    check.exact("output.labels", &labels);
    check.finish()
}

/// All candidates of a window, placed in its video, against `<prefix>segments` and `<prefix>scores`, whose last `columns` less the
/// classes are the reference's background.
pub(crate) fn check_candidates(
    check: &mut Check<'_>,
    prefix: &str,
    columns: usize,
    candidates: &Candidates,
    place: WindowPlace,
) {
    let placed = place.detections(candidates, f32::NEG_INFINITY);
    let rows: Vec<&[Detection]> = placed.chunks(candidates.classes).collect();
    let segments: Vec<f32> = rows.iter().flat_map(|row| row[0].segment).collect();
    check.output(&format!("{prefix}segments"), &segments);
    let scores: Vec<f32> = rows
        .iter()
        .flat_map(|row| {
            let scores = row.iter().map(|detection| detection.score);
            scores.chain(std::iter::repeat_n(0.0, columns - row.len()))
        })
        .collect();
    check.output(&format!("{prefix}scores"), &scores);
}
