//! Check values of spec 40, sections 4 to 6, and the paths of parameters.

#![allow(clippy::float_cmp, reason = "values that are copied or exactly representable are compared")]

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use longtake_shared::config::{HeadConfig, NeckConfig, Variant};
use longtake_shared::random::Key;

use super::anchors::{AnchorGrid, level_lengths};
use super::candidates::LevelOutput;
use super::coder::{decode, decode_segment, encode_segment};
use super::*;
use crate::model::heads::Localizer;
use crate::model::norm::LocalMoments;
use crate::tensors::named::named_tensors;

fn close(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in actual.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{actual:?} instead of {expected:?}");
    }
}

fn thumos_grid() -> AnchorGrid {
    AnchorGrid::from_config(&NeckConfig::default().strides(8), &HeadConfig::default())
}

#[test]
fn anchors_give_the_check_values() {
    let positions = level_lengths(60, 5);
    assert_eq!(positions, [60, 30, 15, 8, 4]);
    let anchors = thumos_grid().all(&positions);
    assert_eq!(anchors.len(), 585);
    for (anchor, half) in anchors.iter().zip([8.0, 9.189_587, 10.556_064, 12.125_732, 13.928_809]) {
        close(anchor, &[-half, half], 1e-4);
    }
    close(&anchors[584], &[161.139_05, 606.860_96], 1e-3);
}

#[test]
fn anchors_beyond_the_frames_that_count_are_not_valid() {
    let grid = AnchorGrid::new(&[8, 16], 2, 2.0);
    let valid = grid.valid(&[4, 2], 17);
    assert_eq!(valid.iter().filter(|valid| **valid).count(), 3 * 2 + 2 * 2);
    assert!(valid[..6].iter().all(|valid| *valid) && !valid[6]);
}

#[test]
fn coder_gives_the_check_values() {
    close(&decode_segment([10.0, 30.0], [0.1, -0.2]), &[13.812_693, 30.187_307], 1e-4);
    close(&decode_segment([100.0, 260.0], [-0.3, 1.7]), &[-85.462_54, 349.462_52], 1e-3);
    let anchor = [100.0, 260.0];
    let segment = [90.0, 200.0];
    close(&decode_segment(anchor, encode_segment(anchor, segment)), &segment, 1e-3);
}

#[test]
fn tensors_decode_as_numbers_do() {
    let anchors = [[10.0f32, 30.0], [100.0, 260.0], [-8.0, 8.0]];
    let offsets = [[0.1f32, -0.2], [-0.3, 1.7], [0.0, 1.0]];
    let tensor = |pairs: &[[f32; 2]]| {
        let flat: Vec<f32> = pairs.iter().flatten().copied().collect();
        Tensor::<2>::from_data(TensorData::new(flat, [pairs.len(), 2]), &Device::flex().autodiff())
    };
    let offset_tensor = tensor(&offsets).require_grad();
    let decoded = decode(&tensor(&anchors), &offset_tensor);
    let expected: Vec<f32> =
        anchors.iter().zip(offsets).flat_map(|(anchor, offset)| decode_segment(*anchor, offset)).collect();
    close(&decoded.to_data().iter::<f32>().collect::<Vec<_>>(), &expected, 1e-4);
    let gradients = decoded.narrow(1, 1, 1).sum().backward();
    let gradient: Vec<f32> = offset_tensor.grad(&gradients).unwrap().to_data().iter::<f32>().collect();
    assert_eq!(gradient[3], 0.0, "a length beyond the bound has no gradient");
    assert!(gradient[1] > 0.0 && gradient[5] > 0.0, "{gradient:?}");
}

fn thumos_detector() -> DaoTad {
    DaoTad::new(&RunConfig::default(), 20, &Init::new(&Device::flex(), Key::root(0)))
}

#[test]
fn parameters_have_the_published_names_and_count() {
    let detector = thumos_detector();
    let running = |layers: usize| layers * 2 * 256;
    assert_eq!(detector.head.num_params(), 1_661_550 + running(8));
    let trained = 2_360_320 + 9_462_864 + 14_710_784 + 1_643_520 + 1_661_550;
    assert_eq!(detector.num_params(), trained + running(10) + running(8));
    let tensors = named_tensors(&Localizer::DaoTad(detector));
    for name in [
        "neck.0.conv1.weight",
        "neck.1.encoder.layers.2.attn.relative_position_bias_table",
        "neck.2.reductions.3.0.weight",
        "neck.2.trans_layers.0.self_attn.in_proj_weight",
        "neck.3.lateral_convs.4.bn.running_mean",
        "head.cls_convs.3.conv.weight",
        "head.retina_reg.bias",
    ] {
        assert!(tensors.iter().any(|tensor| tensor.name == name), "{name}");
    }
}

#[test]
fn every_score_begins_near_one_in_a_hundred() {
    let detector = thumos_detector();
    let bias = detector.head.retina_cls.bias.as_ref().unwrap().val().to_data();
    assert!(bias.iter::<f32>().all(|value| (value + 4.595_12).abs() < 1e-4));
}

#[test]
fn shapes_are_those_of_the_pyramid() {
    let neck = NeckConfig {
        channels: 8,
        tcm_layers: 1,
        tcm_heads: 2,
        tdm_heads: 2,
        tdm_kernels: vec![3, 3],
        fpn_channels: 4,
        ..NeckConfig::default()
    };
    let mut config = RunConfig::default();
    config.model.neck = neck;
    config.model.head.convs = 1;
    let backbone = &mut config.model.backbone;
    (backbone.variant, backbone.embed_dim, backbone.depths) = (Variant::Custom, 6, vec![1]);
    config.data.window_frames = 80;
    let detector = DaoTad::new(&config, 3, &Init::new(&Device::flex(), Key::root(0)));
    let local: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
    let features = Tensor::zeros([2, 6, 40], &Device::flex());
    let output = detector.forward(features, &[1.0, 1.0], Pass::Evaluate, &local).unwrap();
    let shapes = |levels: &[Tensor<3>]| levels.iter().map(Tensor::dims).collect::<Vec<_>>();
    assert_eq!(shapes(&output.class_logits), [[2, 15, 10], [2, 15, 5], [2, 15, 3]]);
    assert_eq!(shapes(&output.offsets), [[2, 10, 10], [2, 10, 5], [2, 10, 3]]);
    assert!(output.statistics.is_empty(), "an evaluation changes no statistics");
    let long = Tensor::zeros([1, 6, 44], &Device::flex());
    assert!(detector.forward(long, &[1.0], Pass::Evaluate, &local).is_err());
}

#[test]
fn candidates_are_the_best_anchors_of_a_level_in_frames_of_the_window() {
    let grid = AnchorGrid::new(&[8], 1, 2.0);
    let output = LevelOutput { class_logits: &[0.0, 10.0, -10.0], offsets: &[0.0; 6] };
    let found = candidates::candidates(&[output], &grid, 1, 1000);
    assert_eq!(found.segments, [[-8.0, 8.0], [0.0, 16.0], [8.0, 24.0]]);
    assert_eq!(found.scores[0], 0.5);
    let best = candidates::candidates(&[output], &grid, 1, 1);
    assert_eq!(best.segments, [[0.0, 16.0]]);
}
