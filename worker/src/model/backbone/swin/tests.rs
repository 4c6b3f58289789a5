//! The published check values (spec 10, section 9; fill of spec 00, section 4), freezing, drop path, chunks.
#![allow(
    clippy::excessive_precision,
    clippy::inconsistent_digit_grouping,
    reason = "published values as they were printed"
)]

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};
use longtake_shared::{
    config::{BackboneConfig, BackboneInit, Variant},
    random::Key,
};

use super::{block::BlockSettings, geometry::Geometry, *};
use crate::model::backbone::Backbone;
use crate::model::backbone::encoder::{ClipEncoder, Encoding};
use crate::model::{layers::Init, pass::Pass};
use crate::tensors::named::named_tensors;

fn wave<const D: usize>(shape: [usize; D], phase: f64, amplitude: f64) -> Tensor<D> {
    let values = (0..shape.iter().product::<usize>())
        .map(|i| (amplitude * (0.37 * i as f64 + phase).sin()) as f32)
        .collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn init() -> Init {
    Init::new(&Device::flex(), Key::root(7))
}

/// Fills each parameter with the wave of its place in `order`; norm scales get 1 added.
struct Waves {
    order: Vec<&'static str>,
    path: Vec<String>,
}

impl ModuleMapper for Waves {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let place = self.order.iter().position(|name| *name == path).unwrap();
        let offset = f64::from(u8::from(path.contains("norm") && path.ends_with("weight")));
        param.map(|old| wave(old.dims(), place as f64, 0.5) + offset)
    }
}

fn filled<M: Module>(module: M, order: &[&'static str]) -> M {
    module.map(&mut Waves { order: order.to_vec(), path: Vec::new() })
}

fn block(shifted: bool) -> Block {
    let settings = BlockSettings {
        channels: 8,
        heads: 2,
        window: [2, 4, 4],
        shifted,
        mlp_ratio: 2.0,
        qkv_bias: true,
        how: BackboneInit::Published,
        drop_path: 0.0,
        number: 0,
    };
    let order = [
        "norm1.weight",
        "norm1.bias",
        "attn.relative_position_bias_table",
        "attn.qkv.weight",
        "attn.qkv.bias",
        "attn.proj.weight",
        "attn.proj.bias",
        "norm2.weight",
        "norm2.bias",
        "mlp.fc1.weight",
        "mlp.fc1.bias",
        "mlp.fc2.weight",
        "mlp.fc2.bias",
    ];
    filled(Block::new(&init(), &settings), &order)
}

fn assert_sums(values: &[f32], sum: f64, abs_sum: f64) {
    let total: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let abs_total: f64 = values.iter().map(|&v| f64::from(v.abs())).sum();
    assert!((total - sum).abs() < 1e-3, "sum {total}, not {sum}");
    assert!((abs_total - abs_sum).abs() < 1e-3, "sum of absolute values {abs_total}, not {abs_sum}");
}

fn assert_close(ours: &[f32], published: &[f32]) {
    for (ours, published) in ours.iter().zip(published) {
        assert!((ours - published).abs() < 2e-5, "{ours}, not {published}");
    }
}

#[test]
fn a_shifted_block_gives_the_published_values() {
    let y = block(true).forward(wave([1, 3, 6, 5, 8], 0.5, 1.0), Pass::Evaluate, &Geometry::default());
    let y = values(y);
    assert_sums(&y, 391.997_77, 1051.789_72);
    let first = [
        2.287_537_8,
        1.848_708_3,
        4.011_243_8,
        1.915_544_3,
        4.050_976_3,
        0.547_706_3,
        2.511_024_7,
        -1.668_651_5,
    ];
    let last = [
        -0.003_786_7,
        1.420_209_4,
        2.721_045_5,
        2.537_355_7,
        4.163_460_3,
        2.135_841_8,
        3.772_763_3,
        0.235_284_6,
    ];
    assert_close(&y[..8], &first);
    assert_close(&y[y.len() - 8..], &last);
}

#[test]
fn an_unshifted_block_gives_the_published_values() {
    let y = block(false).forward(wave([1, 3, 6, 5, 8], 0.5, 1.0), Pass::Evaluate, &Geometry::default());
    let y = values(y);
    assert_sums(&y, 430.438_67, 1038.475_15);
    assert_close(&y, &[2.251_235_5, 1.941_668_0, 3.991_563_8, 2.026_944_2]);
}

#[test]
fn a_clipped_window_gives_the_published_values() {
    let y = block(true).forward(wave([1, 2, 3, 3, 8], 0.5, 1.0), Pass::Evaluate, &Geometry::default());
    let y = values(y);
    assert_sums(&y, 90.482_62, 210.093_19);
    assert_close(&y, &[2.315_385_6, 1.729_665_2, 4.047_659_4, 1.744_108_3]);
}

#[test]
fn patch_merging_gives_the_published_values() {
    let merging = filled(
        PatchMerging::new(&init(), 4, BackboneInit::Published),
        &["reduction.weight", "norm.weight", "norm.bias"],
    );
    let y = merging.forward(wave([1, 2, 3, 5, 4], 0.25, 1.0), &Geometry::default());
    assert_eq!(y.dims(), [1, 2, 2, 3, 8]);
    let y = values(y);
    assert_sums(&y, -122.180_19, 271.699_05);
    let first = [
        3.941_173_3,
        3.726_203_7,
        3.025_113_3,
        1.929_366_6,
        0.581_914_4,
        -0.841_454_3,
        -2.155_046_7,
        -3.187_491_7,
    ];
    assert_close(&y[..8], &first);
    assert_close(&y[y.len() - 8..], &[-0.257_659_4, 0.289_121_5, 0.798_183_7, 1.203_114_3]);
}

fn tiny() -> BackboneConfig {
    BackboneConfig {
        variant: Variant::Custom,
        embed_dim: 8,
        depths: vec![1, 2],
        num_heads: vec![1, 2],
        frozen_stages: -1,
        drop_path: 0.5,
        ..BackboneConfig::default()
    }
}

#[test]
fn published_sizes_have_the_published_number_of_parameters() {
    for (variant, parameters) in
        [(Variant::Tiny, 27_850_470), (Variant::Small, 49_509_078), (Variant::Base, 87_638_984)]
    {
        // Counted on shapes: Swin-B alone would take 350 MB of values.
        let config = BackboneConfig { variant, ..BackboneConfig::default() };
        assert_eq!(parameter_count(&config), parameters);
    }
    let model = VideoSwin::new(&tiny(), &init());
    assert_eq!(model.num_params(), parameter_count(&tiny()));
}

/// The number of parameters of a backbone, written out stage by stage.
fn parameter_count(config: &BackboneConfig) -> usize {
    let (width, depths, heads) = config.dimensions();
    let table: usize = config.window_size.iter().map(|w| 2 * w - 1).product();
    let patch = 3 * config.patch_size.iter().product::<usize>();
    let stages: usize = (0..depths.len())
        .map(|stage| {
            let c = width << stage;
            let block = 12 * c * c + 13 * c + table * heads[stage];
            let merging = if stage + 1 < depths.len() { 8 * c * c + 8 * c } else { 0 };
            depths[stage] * block + merging
        })
        .sum();
    patch * width + 3 * width + stages + 2 * config.channels()
}

#[test]
fn parameters_have_the_published_names() {
    let backbone = Backbone::VideoSwin(VideoSwin::new(&tiny(), &init()));
    let names: Vec<String> = named_tensors(&backbone).into_iter().map(|tensor| tensor.name).collect();
    for name in [
        "patch_embed.proj.weight",
        "patch_embed.norm.bias",
        "layers.0.blocks.0.attn.relative_position_bias_table",
        "layers.1.blocks.1.attn.qkv.bias",
        "layers.1.blocks.1.mlp.fc2.weight",
        "layers.0.downsample.reduction.weight",
        "layers.0.downsample.norm.weight",
        "norm.weight",
    ] {
        assert!(names.iter().any(|found| found == name), "no parameter `{name}` in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("reduction.bias")));
}

#[test]
fn frozen_stages_take_their_merging_and_the_patches_with_them() {
    assert!(frozen_prefixes(-1).is_empty());
    assert_eq!(frozen_prefixes(0), ["patch_embed."]);
    assert_eq!(frozen_prefixes(2), ["patch_embed.", "layers.0.", "layers.1."]);
    let tensors = named_tensors(&VideoSwin::new(&tiny(), &init()));
    for prefix in frozen_prefixes(2) {
        assert!(tensors.iter().any(|tensor| tensor.name.starts_with(&prefix)), "{prefix}");
    }
    assert!(tensors.iter().any(|tensor| tensor.name == "layers.0.downsample.reduction.weight"));
}

#[test]
fn what_is_dropped_follows_the_key_of_each_clip() {
    let model = VideoSwin::new(&tiny(), &init());
    let clip = wave([1, 3, 4, 16, 16], 0.0, 1.0);
    let pair = Tensor::cat(vec![clip.clone(), clip.clone()], 0);
    let keys: Vec<Key> = (0..32).map(|n| Key::root(3).child("clip", n)).collect();
    let alone: Vec<Vec<f32>> =
        keys.iter().map(|key| values(model.features(clip.clone(), Pass::Train { keys: &[*key] }))).collect();
    let evaluated = values(model.features(clip.clone(), Pass::Evaluate));
    assert!(alone.iter().any(|a| *a != evaluated));
    for pair_of_keys in keys.windows(2).zip(alone.windows(2)) {
        let both = values(model.features(pair.clone(), Pass::Train { keys: pair_of_keys.0 }));
        assert_close(&both[..both.len() / 2], &pair_of_keys.1[0]);
        assert_close(&both[both.len() / 2..], &pair_of_keys.1[1]);
    }
    let frozen = VideoSwin::new(&BackboneConfig { frozen_stages: 2, ..tiny() }, &init());
    assert_eq!(values(frozen.features(clip, Pass::Train { keys: &keys[..1] })), evaluated);
}

#[test]
fn clips_in_chunks_give_the_features_of_all_clips_at_once() {
    let backbone = Backbone::VideoSwin(VideoSwin::new(&tiny(), &init()));
    let clips: Vec<Vec<f32>> =
        (0..5).map(|clip| values(wave([3, 4, 20, 16], f64::from(clip), 1.0))).collect();
    let device = Device::flex();
    let key = |clip: usize| Key::root(3).child("clip", clip as u64);
    let features = |chunk_clips, encoding| {
        let encoder = ClipEncoder { chunk_clips, clip_shape: [3, 4, 20, 16], device: &device };
        let clip = |clip: usize| Ok::<_, ()>((clips[clip].clone(), key(clip)));
        let features = encoder.sequence(&backbone, 5, encoding, clip, || Ok(())).unwrap();
        assert_eq!(features.dims(), [1, 16, 10]);
        values(features)
    };
    for encoding in [Encoding::Evaluate, Encoding::Train] {
        let at_once = features(5, encoding);
        for chunk in [0, 1, 2, 100] {
            assert_close(&features(chunk, encoding), &at_once);
        }
    }
    let encoder = ClipEncoder { chunk_clips: 2, clip_shape: [3, 4, 20, 16], device: &device };
    let mut chunks = 0;
    let ended = encoder.sequence(
        &backbone,
        5,
        Encoding::Evaluate,
        |clip| Ok((clips[clip].clone(), key(clip))),
        || {
            chunks += 1;
            if chunks < 3 { Ok(()) } else { Err("aborted") }
        },
    );
    assert_eq!(ended.err(), Some("aborted"), "the third chunk does not begin");
}
