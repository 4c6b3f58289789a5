//! Check values of spec 50, and gradients against central differences.

#![allow(clippy::float_cmp, reason = "values that are copied or exactly representable are compared")]

use burn::tensor::{DType, Device, Tensor, TensorData};
use longtake_shared::config::LossConfig;

use super::HeadOutput;
use super::anchors::{AnchorGrid, level_lengths};
use super::assigner::{AnchorTarget, Assigner, Ignore, PartOf};
use super::criterion::{Criterion, SampleTargets, local_normaliser};
use crate::loss::focal::sigmoid_focal;
use crate::loss::interval_iou::{self, diou, giou};
use crate::model::truth::LabelledSegment;

fn device() -> Device {
    Device::flex().autodiff()
}

fn tensor(rows: &[[f32; 2]]) -> Tensor<2> {
    let flat: Vec<f32> = rows.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), 2]), &device())
}

fn values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.to_data().iter::<f32>().collect()
}

fn close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in actual.iter().zip(expected) {
        assert!((a - b).abs() < 2e-6, "{actual:?} instead of {expected:?}");
    }
}

fn thumos() -> AnchorGrid {
    AnchorGrid::new(&[8, 16, 32, 64, 128], 5, 2.0)
}

fn answering(targets: &[AnchorTarget], action: usize) -> Vec<usize> {
    (0..targets.len()).filter(|anchor| targets[*anchor] == AnchorTarget::Action(action)).collect()
}

#[test]
fn assigner_gives_the_check_values() {
    let anchors = thumos().all(&level_lengths(60, 5));
    let assigner = Assigner::from(&LossConfig::default());
    let actions = [[10.0, 30.0], [100.0, 260.0], [101.0, 109.0]];
    let assignment = assigner.assign(&anchors, &actions, &[]);
    let count = |wanted: AnchorTarget| assignment.targets.iter().filter(|target| **target == wanted).count();
    assert_eq!((count(AnchorTarget::Background), count(AnchorTarget::Ignored)), (529, 34));
    assert_eq!(answering(&assignment.targets, 0), [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 305]);
    assert_eq!(answering(&assignment.targets, 1), [478, 479, 483, 484, 540, 541, 542, 543, 544, 570]);
    assert_eq!(answering(&assignment.targets, 2), [65]);
    assert_eq!(assignment.unmatched, 0);
}

#[test]
fn assignment_does_not_depend_on_the_order_of_actions() {
    let anchors = thumos().all(&level_lengths(60, 5));
    let assigner = Assigner::from(&LossConfig::default());
    let actions = [[10.0, 30.0], [100.0, 260.0], [300.5, 309.0]];
    let forward = assigner.assign(&anchors, &actions, &[]);
    let reversed: Vec<_> = actions.iter().rev().copied().collect();
    let backward = assigner.assign(&anchors, &reversed, &[]);
    for action in 0..3 {
        assert_eq!(answering(&forward.targets, action), answering(&backward.targets, 2 - action));
    }
}

#[test]
fn an_action_that_meets_no_anchor_is_counted_and_claims_none() {
    let assigner = Assigner::from(&LossConfig::default());
    let anchors = [[0.0, 10.0], [10.0, 20.0]];
    let assignment = assigner.assign(&anchors, &[[0.0, 10.0], [50.0, 60.0]], &[]);
    assert_eq!(assignment.targets, [AnchorTarget::Action(0), AnchorTarget::Background]);
    assert_eq!(assignment.unmatched, 1);
}

#[test]
fn ignored_regions_hide_anchors_by_the_anchors_length_or_by_their_own() {
    // The first anchor lies whole in the region, which is longer; the second holds the region and is longer.
    let anchors = [[0.0, 10.0], [0.0, 100.0], [60.0, 70.0]];
    let targets = |of| {
        let ignore = Some(Ignore { part: 0.5, of });
        let assigner = Assigner { ignore, ..Assigner::from(&LossConfig::default()) };
        assigner.assign(&anchors, &[[60.0, 70.0]], &[[0.0, 40.0]]).targets
    };
    let (ignored, background) = (AnchorTarget::Ignored, AnchorTarget::Background);
    assert_eq!(targets(PartOf::Candidate), [ignored, background, AnchorTarget::Action(0)]);
    assert_eq!(targets(PartOf::Region), [background, ignored, AnchorTarget::Action(0)]);
}

#[test]
fn iou_loss_is_the_negative_logarithm_and_flat_where_nothing_is_shared() {
    let predicted =
        Tensor::<2>::from_floats([[10.0, 30.0], [0.0, 5.0], [3.0, 3.0]], &device()).require_grad();
    let target = Tensor::from_floats([[12.0, 28.0], [8.0, 10.0], [3.0, 3.0]], &device());
    let loss = interval_iou::iou(predicted.clone(), target);
    let most = -(1e-6f32.ln());
    for (found, expected) in values(&loss).into_iter().zip([-(0.8f32.ln()), most, most]) {
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
    let gradients = loss.sum().backward();
    let gradient = values(&predicted.grad(&gradients).unwrap());
    assert!(gradient[0] < 0.0 && gradient[1] > 0.0, "shorter is better: {gradient:?}");
    assert_eq!(gradient[2..], [0.0; 4]);
}

#[test]
fn of_two_actions_with_the_same_best_anchor_the_later_wins() {
    let assigner = Assigner::from(&LossConfig::default());
    let assignment = assigner.assign(&[[0.0, 10.0]], &[[0.0, 3.0], [7.0, 10.0]], &[]);
    assert_eq!(assignment.targets, [AnchorTarget::Action(1)]);
}

#[test]
fn focal_loss_gives_the_check_values() {
    let logits = Tensor::<1>::from_floats([-4.595, 0.3, 2.0], &device());
    close(
        &values(&sigmoid_focal(logits.clone(), logits.zeros_like(), 0.25, 2.0)),
        &[8.0e-7, 0.211_442_8, 1.237_558_6],
    );
    close(
        &values(&sigmoid_focal(logits.clone(), logits.ones_like(), 0.25, 2.0)),
        &[1.128_35, 0.025_098_3, 0.000_450_9],
    );
}

#[test]
fn focal_loss_of_huge_logits_is_finite_with_finite_gradients() {
    let logits = Tensor::<1>::from_floats([-1e4, -100.0, 0.0, 100.0, 1e4], &device()).require_grad();
    for targets in [logits.zeros_like(), logits.ones_like()] {
        let loss = sigmoid_focal(logits.clone(), targets, 0.25, 2.0).sum();
        let gradients = loss.clone().backward();
        let gradient = values(&logits.grad(&gradients).unwrap());
        assert!(values(&loss)[0].is_finite() && gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        assert!(gradient[2].abs() > 0.05, "a logit of exactly 0 has a gradient");
    }
}

#[test]
fn diou_gives_the_check_values() {
    let loss = diou(
        tensor(&[[10.0, 30.0], [100.0, 150.0], [0.0, 5.0]]),
        tensor(&[[12.0, 28.0], [90.0, 200.0], [8.0, 10.0]]),
    );
    close(&values(&loss), &[0.2, 0.578_512_4, 1.4225]);
}

/// The gradient of a scalar function of f64 numbers, by the tape and by central differences.
fn compare_gradients(x: &[f64], shape: [usize; 2], loss: impl Fn(Tensor<2>) -> Tensor<2>) {
    let at = |x: &[f64]| {
        Tensor::<2>::from_data(TensorData::new(x.to_vec(), shape), (&device(), DType::F64)).require_grad()
    };
    let leaf = at(x);
    let gradients = loss(leaf.clone()).sum().backward();
    let gradient: Vec<f64> = leaf.grad(&gradients).unwrap().to_data().iter::<f64>().collect();
    let value = |x: &[f64]| loss(at(x)).sum().to_data().iter::<f64>().next().unwrap();
    for index in 0..x.len() {
        let step = 1e-5;
        let (mut up, mut down) = (x.to_vec(), x.to_vec());
        up[index] += step;
        down[index] -= step;
        let numeric = (value(&up) - value(&down)) / (2.0 * step);
        let allowed = 1e-6 * (1.0 + numeric.abs());
        assert!((numeric - gradient[index]).abs() < allowed, "{index}: {numeric} and {}", gradient[index]);
    }
}

#[test]
fn gradients_agree_with_central_differences() {
    let double = |rows: Vec<f64>, shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(rows, shape), (&device(), DType::F64))
    };
    let targets = double(vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0], [2, 3]);
    compare_gradients(&[-2.0, 0.5, 1.0, -4.0, 0.0, 3.0], [2, 3], |x| {
        sigmoid_focal(x, targets.clone(), 0.25, 2.0)
    });
    let truth = double(vec![12.0, 28.0, 90.0, 200.0, 8.0, 10.0], [3, 2]);
    let predicted = [10.0, 30.0, 100.0, 150.0, 0.0, 5.0];
    compare_gradients(&predicted, [3, 2], |x| diou(x, truth.clone()));
    compare_gradients(&predicted, [3, 2], |x| giou(x, truth.clone()));
    compare_gradients(&predicted, [3, 2], |x| interval_iou::iou(x, truth.clone()));
}

/// One level of six positions, two anchors a position, three classes.
fn small() -> (Criterion, Vec<usize>) {
    (Criterion::new(AnchorGrid::new(&[8], 2, 2.0), &LossConfig::default()), vec![6])
}

fn output(samples: usize) -> HeadOutput {
    let level = |channels: usize, scale: f32| {
        let values: Vec<f32> = (0..samples * channels * 6).map(|i| (i as f32 * 0.7).sin() * scale).collect();
        Tensor::<3>::from_data(TensorData::new(values, [samples, channels, 6]), &device()).require_grad()
    };
    HeadOutput { class_logits: vec![level(6, 1.0)], offsets: vec![level(4, 0.3)], statistics: vec![] }
}

fn targets(criterion: &Criterion, positions: &[usize], segments: &[[f32; 2]]) -> SampleTargets {
    let actions: Vec<LabelledSegment> =
        segments.iter().map(|segment| LabelledSegment { segment: *segment, label: 1 }).collect();
    criterion.targets(positions, 48, &actions)
}

#[test]
fn a_window_without_actions_has_no_regression_loss_but_a_gradient() {
    let (criterion, positions) = small();
    let empty = vec![Some(targets(&criterion, &positions, &[]))];
    assert_eq!(local_normaliser(&empty), 1.0);
    let output = output(1);
    let loss = criterion.forward(&output, &empty, 1.0);
    assert_eq!(values(&loss.regression), [0.0]);
    let gradients = loss.total.backward();
    assert!(values(&output.offsets[0].grad(&gradients).unwrap()).iter().all(|g| *g == 0.0));
    assert!(values(&output.class_logits[0].grad(&gradients).unwrap()).iter().any(|g| *g != 0.0));
}

#[test]
fn an_idle_sample_adds_exactly_nothing() {
    let (criterion, positions) = small();
    let busy = targets(&criterion, &positions, &[[9.0, 27.0]]);
    let with_idle = vec![Some(busy.clone()), None];
    assert_eq!(local_normaliser(&with_idle), busy.positives() as f32);
    let two = output(2);
    let loss = criterion.forward(&two, &with_idle, 4.0);
    let first = |level: &Tensor<3>| level.clone().narrow(0, 0, 1);
    let alone = HeadOutput {
        class_logits: vec![first(&two.class_logits[0])],
        offsets: vec![first(&two.offsets[0])],
        statistics: vec![],
    };
    let expected = criterion.forward(&alone, &with_idle[..1], 4.0);
    assert_eq!(values(&loss.total), values(&expected.total));
    let gradients = loss.total.backward();
    for level in [&two.class_logits[0], &two.offsets[0]] {
        let gradient = values(&level.grad(&gradients).unwrap());
        let (busy, idle) = gradient.split_at(gradient.len() / 2);
        assert!(busy.iter().any(|g| *g != 0.0) && idle.iter().all(|g| *g == 0.0));
    }
    let all_idle = criterion.forward(&output(2), &[None, None], 0.0);
    assert_eq!(values(&all_idle.total), [0.0]);
}

#[test]
fn padded_positions_never_contribute() {
    let (criterion, positions) = small();
    let short = criterion.targets(&positions, 16, &[]);
    assert!(short.anchors[4..].iter().all(|target| *target == AnchorTarget::Ignored));
    let output = output(1);
    let gradients = criterion.forward(&output, &[Some(short)], 1.0).total.backward();
    let gradient = values(&output.class_logits[0].grad(&gradients).unwrap());
    for (index, gradient) in gradient.iter().enumerate() {
        assert_eq!(*gradient == 0.0, index % 6 >= 2, "position {}", index % 6);
    }
}

#[test]
fn the_normaliser_divides_both_parts() {
    let (criterion, positions) = small();
    let targets = vec![Some(targets(&criterion, &positions, &[[9.0, 27.0]]))];
    let output = output(1);
    let one = criterion.forward(&output, &targets, 1.0);
    let four = criterion.forward(&output, &targets, 4.0);
    close(&values(&(four.total * 4.0)), &values(&one.total));
    close(&values(&(four.class * 4.0)), &values(&one.class));
    assert!(values(&one.regression)[0] > 0.0);
}
