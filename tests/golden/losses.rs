//! Anchors, targets and losses.

use burn::tensor::Tensor;
use longtake_shared::config::{LossConfig, RegressionLoss};
use longtake_worker::loss::focal::sigmoid_focal;
use longtake_worker::loss::interval_iou;
use longtake_worker::loss::overlap::iou;
use longtake_worker::model::heads::daotad::HeadOutput;
use longtake_worker::model::heads::daotad::anchors::AnchorGrid;
use longtake_worker::model::heads::daotad::assigner::{AnchorTarget, Assigner, Ignore, PartOf};
use longtake_worker::model::heads::daotad::coder::{decode, decode_segment, encode_segment};
use longtake_worker::model::heads::daotad::criterion::{Criterion, SampleTargets, local_normaliser};
use longtake_worker::model::truth::LabelledSegment;

use crate::support::{Case, Check, Runner, device, values};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[
    ("SegmentAnchorMeshGrid + SegmentBaseAnchor", anchors),
    ("DeltaSegmentCoder", coder),
    ("MaxIoUAssigner", assigner),
    ("FocalLoss", focal),
    ("DIoULoss", segment_loss),
    ("GIoULoss", segment_loss),
    ("IoULoss", segment_loss),
    ("SegmentAnchorCriterion", criterion),
];

/// The anchors that a case configures.
pub(crate) fn grid(case: &Case) -> Result<AnchorGrid, String> {
    Ok(AnchorGrid::new(
        &case.integer_list("strides")?,
        case.integer("scales_per_octave")?,
        case.float("octave_base_scale")?,
    ))
}

fn flat(pairs: &[[f32; 2]]) -> Vec<f32> {
    pairs.iter().flatten().copied().collect()
}

fn integers(values: impl IntoIterator<Item = bool>) -> Vec<i64> {
    values.into_iter().map(i64::from).collect()
}

fn anchors(case: &Case) -> Result<(), String> {
    let grid = grid(case)?;
    let positions = case.integer_list("featmap_tsizes")?;
    let mut check = Check::new(case);
    for (level, count) in positions.iter().enumerate() {
        check.output(&format!("output.base_anchors.{level}"), &flat(&grid.level(level, 1)));
        check.output(&format!("output.anchors.{level}"), &flat(&grid.level(level, *count)));
    }
    for (sample, frames) in case.integer_list("pad_tsizes")?.into_iter().enumerate() {
        let mut valid = grid.valid(&positions, frames).into_iter();
        for (level, count) in positions.iter().enumerate() {
            let part = valid.by_ref().take(count * grid.per_position());
            check.exact(&format!("output.valid.{sample}.{level}"), &integers(part));
        }
    }
    check.finish()
}

/// The coder has means 0 and deviations 1 and does not clip; a case with others is brought to those here.
fn coder(case: &Case) -> Result<(), String> {
    let numbers = |key: &str| -> Result<Vec<f32>, String> {
        serde_json::from_value(case.value(&format!("/config/{key}"))?.clone()).map_err(|e| e.to_string())
    };
    let (means, stds) = (numbers("means")?, numbers("stds")?);
    let longest = case.value("/config/max_t")?.as_f64();
    let row = |values: &[f32]| Tensor::<1>::from_floats(values, &device()).unsqueeze::<2>();

    let deltas = case.leaf::<2>("input.deltas")?;
    let decoded = decode(&case.tensor("input.segments")?, &(deltas.clone() * row(&stds) + row(&means)));
    let decoded = match longest {
        Some(longest) => decoded.clamp(0.0, longest),
        None => decoded,
    };
    let mut check = Check::new(case);
    check.output("output.decoded", &values(&decoded));
    let gradients = check.loss(&[(&decoded, "cotangent.decoded".to_owned())])?.backward();
    check.leaf_gradient("grad.input.deltas", &deltas, &gradients);

    let segments = case.segments("input.segments")?;
    let plain: Vec<[f32; 2]> = segments
        .iter()
        .zip(case.segments("input.deltas")?)
        .map(|(anchor, delta)| {
            let offset = [delta[0] * stds[0] + means[0], delta[1] * stds[1] + means[1]];
            let segment = decode_segment(*anchor, offset);
            segment.map(|end| longest.map_or(end, |longest| end.clamp(0.0, longest as f32)))
        })
        .collect();
    check.output("output.decoded", &flat(&plain));
    let encoded: Vec<[f32; 2]> = segments
        .iter()
        .zip(case.segments("input.gt")?)
        .map(|(anchor, truth)| {
            let [centre, length] = encode_segment(*anchor, truth);
            [(centre - means[0]) / stds[0], (length - means[1]) / stds[1]]
        })
        .collect();
    check.output("output.encoded", &flat(&encoded));
    check.finish()
}

fn assigner(case: &Case) -> Result<(), String> {
    let part = case.float("ignore_iof_thr")? as f32;
    let of = if case.switch("ignore_wrt_candidates", true)? { PartOf::Candidate } else { PartOf::Region };
    let assigner = Assigner {
        positive: case.float("pos_iou_thr")? as f32,
        negative: case.float("neg_iou_thr")? as f32,
        min_positive: case.float("min_pos_iou")? as f32,
        ignore: (part > 0.0).then_some(Ignore { part, of }),
        claim_without_overlap: true,
    };
    let anchors = case.segments("input.segments")?;
    let truths = case.segments("input.gt_segments")?;
    let labels = case.integers("input.gt_labels")?;
    let ignored = if case.has("input.gt_segments_ignore") {
        case.segments("input.gt_segments_ignore")?
    } else {
        Vec::new()
    };
    let assignment = assigner.assign(&anchors, &truths, &ignored);
    let mut check = Check::new(case);
    let indices: Vec<i64> = assignment
        .targets
        .iter()
        .map(|target| match target {
            AnchorTarget::Ignored => -1,
            AnchorTarget::Background => 0,
            AnchorTarget::Action(action) => *action as i64 + 1,
        })
        .collect();
    check.exact("output.gt_inds", &indices);
    check.output("output.max_overlaps", &assignment.max_overlaps);
    let assigned: Vec<i64> = assignment
        .targets
        .iter()
        .map(|target| if let AnchorTarget::Action(action) = target { labels[*action] } else { -1 })
        .collect();
    let expected = case.integers("output.labels")?;
    for ((index, label), expected) in indices.iter().zip(&assigned).zip(expected) {
        if *index > 0 && label != expected {
            check.fail(format!("output.labels: {label} instead of {expected} for action {index}"));
        }
    }
    if ignored.is_empty() {
        let overlaps: Vec<f32> =
            truths.iter().flat_map(|truth| anchors.iter().map(|anchor| iou(*truth, *anchor))).collect();
        check.output("output.overlaps", &overlaps);
    }
    check.finish()
}

/// The suite compares with the reference's pure form: its CUDA form lets the loss saturate beyond a logit of -87, which
/// no gradient shows.
fn focal(case: &Case) -> Result<(), String> {
    let classes = case.integer("num_classes")?;
    let logits = case.leaf::<2>("input.logits")?;
    let [rows, _] = logits.dims();
    let mut wanted = vec![0f32; rows * classes];
    for (row, label) in case.integers("input.target")?.iter().enumerate() {
        if let Some(label) = usize::try_from(*label).ok().filter(|label| *label < classes) {
            wanted[row * classes + label] = 1.0;
        }
    }
    let wanted = Tensor::<1>::from_floats(wanted.as_slice(), &device()).reshape([rows, classes]);
    let weight = case.tensor::<1>("input.weight")?.reshape([rows, 1]);
    let elements = sigmoid_focal(logits.clone(), wanted, case.float("alpha")?, case.float("gamma")?);
    let mut check = Check::new(case);
    let saturated = |index: usize| case.floats("input.logits").is_ok_and(|logits| logits[index].abs() > 80.0);
    let expected = case.floats("output.elementwise")?;
    let shown: Vec<f32> = values(&elements)
        .into_iter()
        .enumerate()
        .map(|(index, value)| if saturated(index) { expected[index] } else { value })
        .collect();
    check.output("output.elementwise", &shown);
    let loss = (elements * weight).sum() / case.float("avg_factor")?;
    check.output("output.python_form_loss", &values(&loss));
    let gradients = loss.backward();
    check.leaf_gradient("grad.input.logits", &logits, &gradients);
    check.leaf_gradient("grad.python_form.input.logits", &logits, &gradients);
    check.finish()
}

/// The kind of loss that the reference's class of this name is.
pub(crate) fn regression(class: &str) -> Result<RegressionLoss, String> {
    match class {
        "DIoULoss" => Ok(RegressionLoss::Diou),
        "GIoULoss" => Ok(RegressionLoss::Giou),
        "IoULoss" => Ok(RegressionLoss::Iou),
        other => Err(format!("`{other}` is no loss of segments that is known")),
    }
}

fn segment_loss(case: &Case) -> Result<(), String> {
    let loss = interval_iou::of_kind(regression(&case.module)?);
    let predicted = case.leaf::<2>("input.pred")?;
    let weight = case.tensor::<2>("input.weight")?.mean_dim(1);
    let elements = loss(predicted.clone(), case.tensor("input.target")?);
    let mut check = Check::new(case);
    check.output("output.elementwise", &values(&elements));
    let total = (elements * weight).sum() / case.float("avg_factor")?;
    check.output("output.loss", &values(&total));
    let gradients = total.backward();
    check.leaf_gradient("grad.input.pred", &predicted, &gradients);
    check.finish()
}

fn criterion(case: &Case) -> Result<(), String> {
    let config = LossConfig {
        positive_iou: case.float("pos_iou_thr")?,
        negative_iou: case.float("neg_iou_thr")?,
        min_positive_iou: case.float("min_pos_iou")?,
        focal_alpha: case.float("focal/alpha")?,
        focal_gamma: case.float("focal/gamma")?,
        regression: regression(&case.parsed::<String>("/config/loss_segment")?)?,
    };
    let positions = case.integer_list("featmap_tsizes")?;
    let criterion = Criterion::new(grid(case)?, &config);
    let mut targets = Vec::new();
    for (sample, frames) in case.integer_list("pad_tsizes")?.into_iter().enumerate() {
        let segments = case.segments(&format!("input.gt_segments.{sample}"))?;
        let labels = case.integers(&format!("input.gt_labels.{sample}"))?;
        let actions: Vec<LabelledSegment> = segments
            .into_iter()
            .zip(labels)
            .map(|(segment, label)| LabelledSegment { segment, label: *label as usize })
            .collect();
        targets.push(Some(criterion.targets(&positions, frames, &actions)));
    }
    let levels = |name: &str| -> Result<Vec<Tensor<3>>, String> {
        (0..positions.len()).map(|level| case.leaf(&format!("input.{name}.{level}"))).collect()
    };
    let output = HeadOutput { class_logits: levels("cls")?, offsets: levels("reg")?, statistics: Vec::new() };
    let normaliser = local_normaliser(&targets);
    let mut check = Check::new(case);
    let expected = case.value("/num_total_pos")?.as_f64();
    if expected != Some(f64::from(normaliser)) {
        check.fail(format!("the normaliser is {normaliser} instead of {expected:?}"));
    }
    check_targets(&mut check, case, &targets, &positions)?;
    let loss = criterion.forward(&output, &targets, normaliser);
    check.output("output.loss", &values(&loss.total));
    check.output("output.loss_cls", &values(&loss.class));
    check.output("output.loss_segment", &values(&loss.regression));
    let gradients = loss.total.backward();
    for level in 0..positions.len() {
        check.leaf_gradient(&format!("grad.input.cls.{level}"), &output.class_logits[level], &gradients);
        check.leaf_gradient(&format!("grad.input.reg.{level}"), &output.offsets[level], &gradients);
    }
    check.finish()
}

/// Labels, weights and segments of each level against what the reference feeds to its losses.
fn check_targets(
    check: &mut Check<'_>,
    case: &Case,
    targets: &[Option<SampleTargets>],
    positions: &[usize],
) -> Result<(), String> {
    let background = case.integer("num_classes")? as i64;
    let per_position = case.integer("scales_per_octave")?;
    let mut start = 0;
    for (level, count) in positions.iter().enumerate() {
        let range = start..start + count * per_position;
        start = range.end;
        let (mut labels, mut weights, mut segments, mut segment_weights) = (vec![], vec![], vec![], vec![]);
        for sample in targets.iter().flatten() {
            for target in &sample.anchors[range.clone()] {
                let (label, weight, segment, segment_weight) = match target {
                    AnchorTarget::Ignored => (background, 0.0, [0.0; 2], 0.0),
                    AnchorTarget::Background => (background, 1.0, [0.0; 2], 0.0),
                    AnchorTarget::Action(action) => {
                        let action = sample.actions[*action];
                        (action.label as i64, 1.0, action.segment, 1.0)
                    }
                };
                labels.push(label);
                weights.push(weight);
                segments.extend(segment);
                segment_weights.extend([segment_weight; 2]);
            }
        }
        check.exact(&format!("output.labels.{level}"), &labels);
        check.output(&format!("output.label_weights.{level}"), &weights);
        check.output(&format!("output.segment_targets.{level}"), &segments);
        check.output(&format!("output.segment_weights.{level}"), &segment_weights);
    }
    Ok(())
}
