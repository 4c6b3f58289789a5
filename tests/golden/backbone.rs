//! The Video Swin Transformer and its pieces, under the official names and torchvision's.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use longtake_shared::config::{BackboneConfig, BackboneInit, Variant};
use longtake_shared::random::Key;
use longtake_worker::model::backbone::{
    Block, BlockSettings, Geometry, PatchEmbed, PatchMerging, VideoSwin, WindowAttention, bias_index, import,
};
use longtake_worker::model::layers::Init;
use longtake_worker::model::ops;
use longtake_worker::model::pass::Pass;

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

fn chunked(case: &Case) -> Result<(), String> {
    let module = case.load_weights(VideoSwin::new(&config(case, "/config")?, &init()), "weights.")?;
    let frames = case.integer("chunk_size")?;
    if case.shape("input.x")?.len() == 6 {
        let x = case.leaf::<6>("input.x")?;
        return single(case, &module, &x, &module.features_of_clips(x.clone(), Pass::Evaluate));
    }
    let x = case.leaf::<5>("input.x")?;
    let output = module.forward_window(x.clone(), frames, Pass::Evaluate);
    if case.shape("output")?.len() == 5 {
        return single(case, &module, &x, &output);
    }
    let [batch, channels, steps, height, width] = output.dims();
    let pooled = output.reshape([batch, channels, steps, height * width]).mean_dim(3);
    let pooled = pooled.reshape([batch, channels, steps]);
    let untaped = module.clone().features_of_frames(x.clone(), frames, 1);
    let mut check = Check::new(case);
    check.output("output", &values(&untaped));
    check.finish()?;
    single(case, &module, &x, &pooled)
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
    let mut loader = Loader { case, published: &published, path: Vec::new(), problems: Vec::new() };
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
    let mut visitor = GradientVisitor { gradients: &gradients, path: Vec::new(), found: BTreeMap::new() };
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
    path: Vec<String>,
    problems: Vec<String>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
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
    path: Vec<String>,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for GradientVisitor<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).map(|gradient| values(&gradient)).unwrap_or_default();
        self.found.insert(self.path.join("."), gradient);
    }
}
