//! Neck and head: temporal reduction, TCM, TDM, FPN, retina head, and all of them together.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use longtake_shared::config::{HeadConfig, NeckConfig, RunConfig, TEMPORAL_REDUCTION, Variant};
use longtake_shared::random::Key;
use longtake_worker::model::heads::daotad::retina::{RetinaHead, RetinaShape};
use longtake_worker::model::heads::daotad::{DaoTad, HeadOutput};
use longtake_worker::model::layers::Init;
use longtake_worker::model::neck::consistency::{RelativeAttention, Tcm, TcmShape};
use longtake_worker::model::neck::fpn::Fpn;
use longtake_worker::model::neck::tdm::{Tdm, TdmShape, TransformerLayer};
use longtake_worker::model::neck::temporal_reduction::TemporalReduction;
use longtake_worker::model::norm::{LocalMoments, MomentsReducer, PendingStatistics, apply_statistics};
use longtake_worker::model::pass::Pass;
use longtake_worker::tensors::named::named_tensors;
use serde_json::Value;

use crate::support::{Case, Check, Runner, device, f32_values, values};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[
    ("SRMSwin", reduction),
    ("Transformer1DRelPos (TCM)", tcm),
    ("WindowAttention1D", relative_attention),
    ("TransformerEncoderLayer", transformer_layer),
    ("SelfAttnTDM", tdm),
    ("FPN", fpn),
    ("RetinaHead", retina_head),
    ("neck(SRM,TCM,TDM,FPN)+RetinaHead", neck_and_head),
];

fn init() -> Init {
    Init::new(&device(), Key::root(0))
}

fn local() -> Arc<dyn MomentsReducer> {
    Arc::new(LocalMoments)
}

/// The pass that the case was made with: dropout is off in all of them.
fn pass<'a>(case: &Case, keys: &'a [Key]) -> Pass<'a> {
    if case.json["mode"] == "train" { Pass::Train { keys } } else { Pass::Evaluate }
}

fn keys(samples: usize) -> Vec<Key> {
    (0..samples as u64).map(|sample| Key::root(0).child("sample", sample)).collect()
}

/// The one output of a module, and all gradients of `sum(output * cotangent)`.
fn single<M: Module, const I: usize, const O: usize>(
    case: &Case,
    module: &M,
    x: &Tensor<I>,
    output: &Tensor<O>,
) -> Result<(), String> {
    let mut check = Check::new(case);
    check.output("output", &values(output));
    let gradients = check.loss(&[(output, "cotangent.".to_owned())])?.backward();
    check.leaf_gradient("grad.input.x", x, &gradients);
    check.weight_gradients(module, &gradients, "weights.");
    check.finish()
}

/// Features of shape `[B, C, T]`; those with rows and columns are averaged over them, as the backbone does.
fn reduction(case: &Case) -> Result<(), String> {
    let module = TemporalReduction::new(&init(), case.integer("in_channels")?, case.integer("out_channels")?);
    let module = case.load_weights(module, "weights.")?;
    if case.shape("input.x")?.len() == 5 {
        let x = case.leaf::<5>("input.x")?;
        let [batch, channels, time, height, width] = x.dims();
        let pooled = x.clone().reshape([batch, channels, time, height * width]).mean_dim(3);
        single(case, &module, &x, &module.forward(pooled.reshape([batch, channels, time])))
    } else {
        let x = case.leaf::<3>("input.x")?;
        single(case, &module, &x, &module.forward(x.clone()))
    }
}

fn tcm_shape(case: &Case, at: &str, layers: &str) -> Result<TcmShape, String> {
    Ok(TcmShape {
        channels: case.integer(&format!("{at}dim"))?,
        heads: case.integer(&format!("{at}num_heads"))?,
        max_length: case.integer(&format!("{at}max_seq_len"))?,
        layers: case.integer(layers)?,
        qkv_bias: case.switch(&format!("{at}qkv_bias"), true)?,
        drop_path: 0.0,
    })
}

fn tcm(case: &Case) -> Result<(), String> {
    let module = case.load_weights(Tcm::new(&init(), tcm_shape(case, "", "num_layers")?), "weights.")?;
    let x = case.leaf::<3>("input.x")?;
    let output = module.forward(x.clone(), Pass::Evaluate).map_err(|e| e.to_string())?;
    single(case, &module, &x, &output)
}

fn relative_attention(case: &Case) -> Result<(), String> {
    let shape = TcmShape {
        channels: case.integer("dim")?,
        heads: case.integer("num_heads")?,
        max_length: case.integer("max_seq_len")?,
        layers: 1,
        // The module alone has none by default, but the cases that came first have one without naming it.
        qkv_bias: case.switch("qkv_bias", case.has("weights.qkv.bias"))?,
        drop_path: 0.0,
    };
    let module = case.load_weights(RelativeAttention::new(&init(), shape), "weights.")?;
    let x = case.leaf::<3>("input.x")?;
    let mask = if case.has("input.mask") { Some(case.tensor("input.mask")?) } else { None };
    let output = module.forward(x.clone(), mask);
    single(case, &module, &x, &output)
}

fn tdm_shape(case: &Case, channels: usize, heads: usize, kernels: Vec<usize>) -> TdmShape {
    let hidden = case
        .names("weights.")
        .into_iter()
        .find(|name| name.ends_with("linear1.weight"))
        .and_then(|name| case.shape(name).ok())
        .map_or(4 * channels, |shape| shape[0]);
    TdmShape { channels, heads, hidden, dropout: 0.0, kernels }
}

/// Width of the attention band of each TDM stage below `at`: a list, one width for all stages, or none for no bands.
fn bands(case: &Case, at: &str) -> Result<Vec<usize>, String> {
    let widths: Option<Value> = case.optional(&format!("{at}/kernel_sizes"))?;
    if let Some(list @ Value::Array(_)) = widths {
        return serde_json::from_value(list).map_err(|e| format!("`kernel_sizes`: {e}"));
    }
    let stages: Vec<usize> = case.parsed(&format!("{at}/stage_layers"))?;
    let width = widths.as_ref().and_then(Value::as_u64).unwrap_or(0) as usize;
    Ok(vec![width; stages.len()])
}

fn transformer_layer(case: &Case) -> Result<(), String> {
    let shape = tdm_shape(case, case.integer("d_model")?, case.integer("nhead")?, Vec::new());
    let module = case.load_weights(TransformerLayer::new(&init(), &shape), "weights.")?;
    let x = case.leaf::<3>("input.x")?;
    let length = x.dims()[0];
    let mask = case.value("/config/band_kernel")?.as_u64().map(|kernel| {
        let band = (0..length * length).map(|index| {
            let apart = (index / length).abs_diff(index % length) as u64;
            if apart <= kernel / 2 { 0.0 } else { -1e9 }
        });
        let band: Vec<f32> = band.collect();
        Tensor::<1>::from_floats(band.as_slice(), &device()).reshape([1, 1, length, length])
    });
    let output = module.forward(x.clone().swap_dims(0, 1), mask, Pass::Evaluate, 0).swap_dims(0, 1);
    single(case, &module, &x, &output)
}

/// `output.<prefix>0`, `output.<prefix>1`, ... against a list of levels.
fn check_levels(check: &mut Check<'_>, prefix: &str, levels: &[Tensor<3>]) {
    for (index, level) in levels.iter().enumerate() {
        check.output(&format!("output.{prefix}{index}"), &values(level));
    }
}

fn cotangents<'a>(prefix: &str, levels: &'a [Tensor<3>]) -> Vec<(&'a Tensor<3>, String)> {
    levels.iter().enumerate().map(|(index, level)| (level, format!("cotangent.{prefix}{index}"))).collect()
}

fn tdm(case: &Case) -> Result<(), String> {
    let shape =
        tdm_shape(case, case.integer("in_channels")?, case.integer("num_heads")?, bands(case, "/config")?);
    let module = case.load_weights(Tdm::new(&init(), &shape), "weights.")?;
    let x = case.leaf::<3>("input.x")?;
    let levels = module.forward(x.clone(), Pass::Evaluate);
    let mut check = Check::new(case);
    check_levels(&mut check, "", &levels);
    let gradients = check.loss(&cotangents("", &levels))?.backward();
    check.leaf_gradient("grad.input.x", &x, &gradients);
    check.weight_gradients(&module, &gradients, "weights.");
    check.finish()
}

/// Inputs `input.x0`, `input.x1`, ...
fn pyramid(case: &Case) -> Result<Vec<Tensor<3>>, String> {
    (0..case.count("input.x")).map(|level| case.leaf(&format!("input.x{level}"))).collect()
}

fn fpn(case: &Case) -> Result<(), String> {
    let channels = case.integer_list("in_channels")?;
    let module = Fpn::new(&init(), channels.len(), channels[0], case.integer("out_channels")?);
    let module = case.load_weights(module, "weights.")?;
    let inputs = pyramid(case)?;
    let samples = inputs[0].dims()[0];
    let keys = keys(samples);
    let (levels, statistics) = module.forward(&inputs, "", &vec![1.0; samples], pass(case, &keys), &local());
    let mut check = Check::new(case);
    check_levels(&mut check, "", &levels);
    let gradients = check.loss(&cotangents("", &levels))?.backward();
    for (index, input) in inputs.iter().enumerate() {
        check.leaf_gradient(&format!("grad.input.x{index}"), input, &gradients);
    }
    check.weight_gradients(&module, &gradients, "weights.");
    check_statistics(&mut check, case, module, &statistics);
    check.finish()
}

/// Outputs of a head against `output.cls.*` and `output.reg.*`; gives the loss of both.
fn check_head(check: &mut Check<'_>, output: &HeadOutput) -> Result<Tensor<1>, String> {
    check_levels(check, "cls.", &output.class_logits);
    check_levels(check, "reg.", &output.offsets);
    let mut pairs = cotangents("cls.", &output.class_logits);
    pairs.extend(cotangents("reg.", &output.offsets));
    check.loss(&pairs)
}

fn retina_head(case: &Case) -> Result<(), String> {
    let shape = RetinaShape {
        inputs: case.integer("in_channels")?,
        channels: case.integer("feat_channels")?,
        convs: case.integer("stacked_convs")?,
        anchors: case.integer("num_anchors")?,
        classes: case.integer("num_classes")?,
    };
    let module = case.load_weights(RetinaHead::new(&init(), shape), "weights.")?;
    let inputs = pyramid(case)?;
    let samples = inputs[0].dims()[0];
    let keys = keys(samples);
    let output = module.forward(&inputs, "", &vec![1.0; samples], pass(case, &keys), &local());
    let mut check = Check::new(case);
    let gradients = check_head(&mut check, &output)?.backward();
    for (index, input) in inputs.iter().enumerate() {
        check.leaf_gradient(&format!("grad.input.x{index}"), input, &gradients);
    }
    check.weight_gradients(&module, &gradients, "weights.");
    check_statistics(&mut check, case, module, &output.statistics);
    check.finish()
}

/// Neck and head as a case configures them below `at` in its JSON, without dropout.
pub(crate) fn neck_and_head_config(case: &Case, at: &str) -> Result<(NeckConfig, HeadConfig), String> {
    let count = |key: &str| case.parsed::<usize>(&format!("{at}/{key}"));
    let neck = NeckConfig {
        channels: count("neck/0/srm_cfg/out_channels")?,
        tcm_layers: count("neck/1/num_layers")?,
        tcm_heads: count("neck/1/encoder_layer_cfg/num_heads")?,
        tcm_drop_path: 0.0,
        tdm_heads: count("neck/2/num_heads")?,
        tdm_dropout: 0.0,
        tcm_qkv_bias: case.optional(&format!("{at}/neck/1/encoder_layer_cfg/qkv_bias"))?.unwrap_or(true),
        tdm_kernels: bands(case, &format!("{at}/neck/2"))?,
        fpn_channels: count("neck/3/out_channels")?,
    };
    let head = HeadConfig {
        convs: count("head/stacked_convs")?,
        scales_per_octave: count("head/num_anchors")?,
        octave_base_scale: 2.0,
    };
    Ok((neck, head))
}

fn daotad(case: &Case) -> Result<DaoTad, String> {
    let mut config = RunConfig::default();
    (config.model.neck, config.model.head) = neck_and_head_config(case, "/config")?;
    // The case begins with features: a backbone of one stage is as wide as they are.
    let backbone = &mut config.model.backbone;
    backbone.variant = Variant::Custom;
    backbone.embed_dim = case.integer("neck/0/srm_cfg/in_channels")?;
    backbone.depths = vec![1];
    let positions = TEMPORAL_REDUCTION * case.integer("neck/1/encoder_layer_cfg/max_seq_len")?;
    config.data.window_frames = positions * config.geometry().stride;
    Ok(DaoTad::new(&config, case.integer("head/num_classes")?, &init()))
}

fn neck_and_head(case: &Case) -> Result<(), String> {
    let module = case.load_weights(daotad(case)?, "weights.")?;
    let x = case.leaf::<3>("input.x")?;
    let samples = x.dims()[0];
    let keys = keys(samples);
    let output = module
        .forward(x.clone(), &vec![1.0; samples], pass(case, &keys), &local())
        .map_err(|e| e.to_string())?;
    let mut check = Check::new(case);
    let gradients = check_head(&mut check, &output)?.backward();
    check.leaf_gradient("grad.input.x", &x, &gradients);
    check.weight_gradients(&module, &gradients, "weights.");
    check_statistics(&mut check, case, module, &output.statistics);
    check.finish()
}

/// Running statistics after they have been installed, against `output.state_after.*`.
fn check_statistics<M: Module>(
    check: &mut Check<'_>,
    case: &Case,
    module: M,
    statistics: &[PendingStatistics],
) {
    let expected = case.names("output.state_after.");
    if expected.is_empty() != statistics.is_empty() {
        check.fail(format!("{} pending statistics for {} expected", statistics.len(), expected.len()));
    }
    let tensors = match apply_statistics(module, statistics) {
        Ok(module) => named_tensors(&module),
        Err(error) => return check.fail(error.to_string()),
    };
    for name in expected {
        match tensors.iter().find(|tensor| name == format!("output.state_after.{}", tensor.name)) {
            Some(tensor) => check.output(name, f32_values(tensor)),
            None => check.fail(format!("{name}: no such statistic")),
        }
    }
}
