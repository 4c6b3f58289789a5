//! Post-processing: candidates, and what suppression leaves of them.

use longtake_worker::infer::Detection;
use longtake_worker::infer::decode::{LevelOutput, WindowPlace, candidates};
use longtake_worker::infer::nms::{Decay, Suppression, groups, hard, soft};

use crate::losses::grid;
use crate::support::{Case, Check, Runner};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] =
    &[("nms, soft_nms, nms_match", operations), ("SegmentAnchorConverter + multiclass_nms*", converter)];

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

/// Suppression as a case configures it.
pub(crate) fn suppression(case: &Case) -> Result<Suppression, String> {
    let kind = case.value("/config/nms/typename")?.as_str().unwrap_or_default().to_owned();
    let threshold = case.float("nms/iou_thr")? as f32;
    Ok(match kind.as_str() {
        "nmw" => Suppression::Weighting { threshold },
        "nms" => Suppression::Hard { threshold },
        "soft_nms" => Suppression::Soft {
            decay: Decay::Gaussian { sigma: case.float("nms/sigma")? as f32 },
            floor: case.float("nms/min_score")? as f32,
        },
        other => return Err(format!("`{other}` is no kind of suppression that is known")),
    })
}

fn converter(case: &Case) -> Result<(), String> {
    let grid = grid(case)?;
    let levels = case.count("input.cls.");
    let outputs = (0..levels)
        .map(|level| {
            Ok(LevelOutput {
                class_logits: case.floats(&format!("input.cls.{level}"))?,
                offsets: case.floats(&format!("input.reg.{level}"))?,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let place = WindowPlace {
        start: case.integer("tshift")?,
        frames: case.integer("tsize")?,
        fps: case.float("tscale_factor")? as f32,
    };
    let found = candidates(&outputs, &grid, case.integer("num_classes")?, case.integer("nms_pre")?, place);
    let mut check = Check::new(case);
    let segments: Vec<f32> = found.segments.iter().flatten().copied().collect();
    check.output("output.segments", &segments);
    let columns = case.shape("output.scores")?[1];
    let with_background: Vec<f32> = found
        .scores
        .chunks(found.classes)
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, columns - row.len())))
        .collect();
    check.output("output.scores", &with_background);
    let kept = suppression(case)?
        .apply(&found.above(case.float("score_thr")? as f32), case.integer("max_per_video")?);
    let rows: Vec<f32> =
        kept.iter().flat_map(|kept| [kept.segment[0], kept.segment[1], kept.score]).collect();
    check.output("output.dets", &rows);
    let labels: Vec<i64> = kept.iter().map(|kept| kept.label as i64).collect();
    check.exact("output.labels", &labels);
    check.finish()
}
