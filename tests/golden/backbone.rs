//! The Video Swin Transformer and its pieces, under the official names and torchvision's.

use std::collections::BTreeMap;
use std::convert::Infallible;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use longtake_shared::config::{BackboneConfig, BackboneInit, Variant};
use longtake_shared::random::Key;
use longtake_worker::model::backbone::encoder::{ClipEncoder, Encoding};
use longtake_worker::model::backbone::swin::{
    Block, BlockSettings, Geometry, PatchEmbed, PatchMerging, VideoSwin, WindowAttention, bias_index,
};
use longtake_worker::model::backbone::{Backbone, import};
use longtake_worker::model::layers::Init;
use longtake_worker::model::ops;
use longtake_worker::model::pass::Pass;
use longtake_worker::tensors::path::ModulePath;

use crate::support::{Case, Check, Runner, device, values};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[
    ("PatchEmbed3D", patch_embed),
    ("PatchMerging", patch_merging),
    ("SwinTransformerBlock3D*", block),
    ("SwinTransformer3D", backbone),
    ("torchvision.models.video.swin_transformer.SwinTransformer3d", torchvision),
    ("WindowAttention3D", window_attention),
    ("ChunkVideoSwin", chunked),
];

/// Hidden width over width of the blocks of cases that do not name it.
const PUBLISHED_MLP_RATIO: f64 = 4.0;

fn init() -> Init {
    Init::new(&device(), Key::root(0))
}

fn triple(case: &Case, key: &str) -> Result<[usize; 3], String> {
    case.integer_list(key)?.try_into().map_err(|list| format!("`{key}` has three entries, not {list:?}"))
}

/// The one output of a module, and all gradients of `sum(output * cotangent)`.
fn single<M: Module, const I: usize, const O: usize>(
    case: &Case,
    module: &M,
    x: &Tensor<I>,
    output: &Tensor<O>,
) -> Result<(), String> {
    let mut check = Check::new(case);
    let (name, cotangent) =
        if case.has("output.y") { ("output.y", "cotangent.y") } else { ("output", "cotangent.") };
    check.output(name, &values(output));
    let gradients = check.loss(&[(output, cotangent.to_owned())])?.backward();
    check.leaf_gradient("grad.input.x", x, &gradients);
    let prefix = if case.names("weights.block.").is_empty() { "weights." } else { "weights.block." };
    check.weight_gradients(module, &gradients, prefix);
    check.finish()
}

fn patch_embed(case: &Case) -> Result<(), String> {
    let (channels, patch) = (case.integer("embed_dim")?, triple(case, "patch_size")?);
    let module = PatchEmbed::new(&init(), channels, patch, case.switch("norm", true)?);
    let module = case.load_weights(module, "weights.")?;
    let x = case.leaf::<5>("input.x")?;
    let output = module.forward(x.clone(), &Geometry::default()).permute([0, 4, 1, 2, 3]);
    single(case, &module, &x, &output)
}

fn patch_merging(case: &Case) -> Result<(), String> {
    let module = PatchMerging::new(&init(), case.integer("dim")?, BackboneInit::Published);
    let module = case.load_weights(module, "weights.")?;
    let x = case.leaf::<5>("input.x")?;
    single(case, &module, &x, &module.forward(x.clone(), &Geometry::default()))
}

fn block_settings(case: &Case) -> Result<BlockSettings, String> {
    Ok(BlockSettings {
        channels: case.integer("dim")?,
        heads: case.integer("num_heads")?,
        window: triple(case, "window_size")?,
        shifted: case.switch("shift", false)?,
        mlp_ratio: case.optional("/config/mlp_ratio")?.unwrap_or(PUBLISHED_MLP_RATIO),
        qkv_bias: case.switch("qkv_bias", true)?,
        how: BackboneInit::Published,
        drop_path: 0.0,
        number: 0,
    })
}

fn block(case: &Case) -> Result<(), String> {
    let settings = block_settings(case)?;
    let module = case.load_weights(Block::new(&init(), &settings), "weights.block.")?;
    let x = case.leaf::<5>("input.x")?;
    let output = module.forward(x.clone(), Pass::Evaluate, &Geometry::default());
    single(case, &module, &x, &output)
}

/// The published masks are per window and arbitrary here: each window's goes into the bias of a call of its own.
fn window_attention(case: &Case) -> Result<(), String> {
    let settings = block_settings(case)?;
    let BlockSettings { channels, heads, window, .. } = settings;
    let module = WindowAttention::new(&init(), &settings);
    let module = case.load_weights(module, "weights.")?;
    let x = case.leaf::<3>("input.x")?;
    let [windows, tokens, _] = x.dims();
    let index = bias_index(window, tokens);
    if !case.has("input.mask") {
        return single(case, &module, &x, &module.forward(x.clone(), &index, None));
    }
    let mask = case.tensor::<3>("input.mask")?;
    let [masks, _, _] = mask.dims();
    let qkv = module.qkv.forward(x.clone()).reshape([windows, tokens, 3, heads, channels / heads]);
    let bias = ops::relative_bias(module.relative_position_bias_table.val(), &index);
    let mixed = (0..windows)
        .map(|window| {
            let bias = bias.clone() + mask.clone().narrow(0, window % masks, 1);
            ops::window_attention(qkv.clone().narrow(0, window, 1), bias, None)
        })
        .collect();
    single(case, &module, &x, &module.proj.forward(Tensor::cat(mixed, 0)))
}

/// The backbone as a case configures it below `at` in its JSON, without drop path and frozen stages.
pub(crate) fn config(case: &Case, at: &str) -> Result<BackboneConfig, String> {
    Ok(BackboneConfig {
        variant: Variant::Custom,
        embed_dim: case.parsed(&format!("{at}/embed_dim"))?,
        depths: case.parsed(&format!("{at}/depths"))?,
        num_heads: case.parsed(&format!("{at}/num_heads"))?,
        patch_size: case.parsed(&format!("{at}/patch_size"))?,
        window_size: case.parsed(&format!("{at}/window_size"))?,
        mlp_ratio: case.optional(&format!("{at}/mlp_ratio"))?.unwrap_or(PUBLISHED_MLP_RATIO),
        qkv_bias: case.optional(&format!("{at}/qkv_bias"))?.unwrap_or(true),
        patch_norm: case.optional(&format!("{at}/patch_norm"))?.unwrap_or(true),
        drop_path: 0.0,
        frozen_stages: -1,
        ..BackboneConfig::default()
    })
}

fn backbone(case: &Case) -> Result<(), String> {
    let module = case.load_weights(VideoSwin::new(&config(case, "/config")?, &init()), "weights.")?;
    let x = case.leaf::<5>("input.x")?;
    single(case, &module, &x, &module.forward(x.clone(), Pass::Evaluate))
}

/// Cuts windows into clips, the last one filled up with zero frames as the renderer fills up what lies outside a video.
///
/// # Shapes
/// `[B, 3, D, H, W]` -> `[B * clips, 3, clip_frames, H, W]`, the clips of one window neighbours
fn clips_of(frames: Tensor<5>, clip_frames: usize) -> Tensor<5> {
    let [batch, colours, length, height, width] = frames.dims();
    let clips = length.div_ceil(clip_frames);
    let frames = if clips * clip_frames == length {
        frames
    } else {
        let missing = [batch, colours, clips * clip_frames - length, height, width];
        Tensor::cat(vec![frames.clone(), Tensor::zeros(missing, &frames.device())], 2)
    };
    let split = frames.reshape([batch, colours, clips, clip_frames, height, width]);
    let clips_first = split.permute([0, 2, 1, 3, 4, 5]);
    clips_first.reshape([batch * clips, colours, clip_frames, height, width])
}

/// Clips through the encoder of production, one a chunk: `[N, 3, L, H, W]` -> `[1, C, N * ceil(L / stride)]`.
fn encode_clips(backbone: &Backbone, clips: &Tensor<5>, device: &Device) -> Tensor<3> {
    let [count, colours, frames, height, width] = clips.dims();
    let pixels = values(clips);
    let length = colours * frames * height * width;
    let clip_shape = [colours, frames, height, width];
    let encoder = ClipEncoder { chunk_clips: 1, clip_shape, device };
    let clip =
        |at: usize| Ok::<_, Infallible>((pixels[at * length..(at + 1) * length].to_vec(), Key::root(0)));
    let Ok(features) = encoder.sequence(backbone, count, Encoding::Evaluate, clip, || Ok(()));
    features
}

/// Features of one window of frames `[1, 3, D, H, W]`, by the encoder of production.
pub(crate) fn encoded(
    backbone: &Backbone,
    frames: &Tensor<5>,
    clip_frames: usize,
    device: &Device,
) -> Tensor<3> {
    encode_clips(backbone, &clips_of(frames.clone(), clip_frames), device)
}

/// Outputs of the encoder; gradients of [`Backbone::features`], which the encoder calls with a tape in a training step. The features
/// of appended frames are trimmed at half their number, rounded down (TALLFormer, `chunk_model.py`).
fn chunked(case: &Case) -> Result<(), String> {
    let device = device();
    let swin = case.load_weights(VideoSwin::new(&config(case, "/config")?, &init()), "weights.")?;
    let backbone = Backbone::VideoSwin(swin.clone());
    if case.shape("input.x")?.len() == 6 {
        let x = case.leaf::<6>("input.x")?;
        let [clips, batch, colours, frames, height, width] = x.dims();
        let flat = x.clone().reshape([clips * batch, colours, frames, height, width]);
        let features = backbone.features(flat.clone(), Pass::Evaluate);
        let [_, channels, steps] = features.dims();
        let encoded = encode_clips(&backbone, &flat, &device);
        let encoded = encoded.reshape([channels, clips * batch, steps]).swap_dims(0, 1);
        check_encoded(case, &encoded.reshape([clips * batch * channels * steps]))?;
        return single(case, &backbone, &x, &features.reshape([clips, batch, channels, steps]));
    }
    let x = case.leaf::<5>("input.x")?;
    let frames = case.integer("chunk_size")?;
    let [batch, _, length, _, _] = x.dims();
    let clips = clips_of(x.clone(), frames);
    let per_window = clips.dims()[0] / batch;
    let kept = |steps: usize| per_window * steps - (per_window * frames - length) / 2;
    if case.shape("output")?.len() == 5 {
        let [_, channels, steps, height, width] = swin.forward(clips.clone(), Pass::Evaluate).dims();
        let output = swin
            .forward(clips, Pass::Evaluate)
            .reshape([batch, per_window, channels, steps, height, width])
            .swap_dims(1, 2)
            .reshape([batch, channels, per_window * steps, height, width])
            .narrow(2, 0, kept(steps));
        return single(case, &swin, &x, &output);
    }
    let windows = |features: Tensor<3>| {
        let [_, channels, steps] = features.dims();
        features
            .reshape([batch, per_window, channels, steps])
            .swap_dims(1, 2)
            .reshape([batch, channels, per_window * steps])
            .narrow(2, 0, kept(steps))
    };
    let features = backbone.features(clips.clone(), Pass::Evaluate);
    let [count, channels, steps] = features.dims();
    let encoded = encode_clips(&backbone, &clips, &device).reshape([channels, count, steps]).swap_dims(0, 1);
    let encoded = windows(encoded);
    let size: usize = encoded.dims().iter().product();
    check_encoded(case, &encoded.reshape([size]))?;
    single(case, &backbone, &x, &windows(features))
}

fn check_encoded(case: &Case, encoded: &Tensor<1>) -> Result<(), String> {
    let mut check = Check::new(case);
    check.output("output", &values(encoded));
    check.finish()
}

/// torchvision's network with its classifier: the mean over time and space, then one linear layer.
fn torchvision(case: &Case) -> Result<(), String> {
    let published: BTreeMap<String, &str> = case
        .names("weights.")
        .into_iter()
        .filter_map(|name| {
            let key = name.trim_start_matches("weights.");
            Some((import::parameter_of(key, import::Family::TorchVision)?, key))
        })
        .collect();
    let mut loader =
        Loader { case, published: &published, path: ModulePath::default(), problems: Vec::new() };
    let module = VideoSwin::new(&config(case, "/config")?, &init()).map(&mut loader);
    if !loader.problems.is_empty() {
        return Err(loader.problems.join("\n"));
    }
    let (weight, bias) = (case.leaf::<2>("weights.head.weight")?, case.leaf::<1>("weights.head.bias")?);
    let x = case.leaf::<5>("input.x")?;
    let features = module.forward(x.clone(), Pass::Evaluate);
    let [batch, channels, steps, height, width] = features.dims();
    let pooled = features.clone().reshape([batch, channels, steps * height * width]).mean_dim(2);
    let logits =
        pooled.reshape([batch, channels]).matmul(weight.clone().transpose()) + bias.clone().unsqueeze();
    let mut check = Check::new(case);
    check.output("output.features", &values(&features));
    check.output("output.logits", &values(&logits));
    let outputs = [(&features, "cotangent.features".to_owned())];
    let loss = check.loss(&outputs)? + check.loss(&[(&logits, "cotangent.logits".to_owned())])?;
    let gradients = loss.backward();
    check.leaf_gradient("grad.input.x", &x, &gradients);
    check.leaf_gradient("grad.weights.head.weight", &weight, &gradients);
    check.leaf_gradient("grad.weights.head.bias", &bias, &gradients);
    let mut visitor =
        GradientVisitor { gradients: &gradients, path: ModulePath::default(), found: BTreeMap::new() };
    module.visit(&mut visitor);
    for (path, key) in published {
        check.gradient(&format!("grad.weights.{key}"), &visitor.found[&path]);
    }
    check.finish()
}

/// Loads torchvision's weights under our names.
struct Loader<'a> {
    case: &'a Case,
    published: &'a BTreeMap<String, &'a str>,
    path: ModulePath,
    problems: Vec<String>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.name();
        let key = self.published.get(&path).copied().unwrap_or("(none)");
        match self.case.tensor::<D>(&format!("weights.{key}")) {
            Ok(tensor) => param.map(|old| tensor.set_require_grad(old.is_require_grad())),
            Err(problem) => {
                self.problems.push(format!("{path}: {problem}"));
                param
            }
        }
    }
}

/// Gradients of all parameters by path.
struct GradientVisitor<'a> {
    gradients: &'a Gradients,
    path: ModulePath,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for GradientVisitor<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).map(|gradient| values(&gradient)).unwrap_or_default();
        self.found.insert(self.path.name(), gradient);
    }
}
