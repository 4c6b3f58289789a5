//! Check values of specs 30 and 40, sizes, and refusals.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::hint::Hint as _;
use longtake_shared::random::Key;

use super::consistency::{Tcm, TcmShape};
use super::fpn::Fpn;
use super::tdm::{Tdm, TdmShape};
use super::temporal_reduction::TemporalReduction;
use super::*;
use crate::model::layers::Init;

fn init() -> Init {
    Init::new(&Device::flex(), Key::root(0))
}

/// `amplitude sin(0.37 i + start)` (spec 00, section 4).
fn fill<const D: usize>(shape: [usize; D], start: f64, amplitude: f64) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|index: usize| (amplitude * (0.37 * index as f64 + start).sin()) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Gives parameter n of `order` the values that the specs' check values are made with.
struct Filler<'a> {
    order: &'a [String],
    path: Vec<String>,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let number = self.order.iter().position(|name| *name == path).unwrap_or_else(|| panic!("{path}"));
        let scale = path.ends_with("weight") && D == 1;
        param.map(|old| fill(old.dims(), number as f64, 0.5) + f64::from(u8::from(scale)))
    }
}

fn filled<M: Module>(module: M, order: &[String]) -> M {
    module.map(&mut Filler { order, path: Vec::new() })
}

fn close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in actual.iter().zip(expected) {
        assert!((a - b).abs() < 2e-5, "{actual:?} instead of {expected:?}");
    }
}

fn values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.to_data().iter::<f32>().collect()
}

fn tcm(channels: usize, heads: usize, max_length: usize, layers: usize) -> Tcm {
    Tcm::new(&init(), TcmShape { channels, heads, max_length, layers, qkv_bias: true, drop_path: 0.1 })
}

#[test]
fn tcm_layer_gives_the_check_values() {
    let order: Vec<String> = [
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
    ]
    .iter()
    .map(|name| format!("encoder.layers.0.{name}"))
    .collect();
    let module = filled(tcm(8, 2, 6, 1), &order);
    let y = module.forward(fill([1, 5, 8], 0.1, 1.0).swap_dims(1, 2), Pass::Evaluate).unwrap();
    let y = values(&y.swap_dims(1, 2));
    assert!((y.iter().sum::<f32>() - 19.45002).abs() < 1e-3);
    assert!((y.iter().map(|v| v.abs()).sum::<f32>() - 99.46768).abs() < 1e-3);
    close(&y[..4], &[0.306_058_5, 3.289_732, 4.528_964, 3.114_515_3]);
    close(&y[36..], &[3.037_256, -1.850_097_5, 1.853_911_5, -2.154_556_3]);
}

#[test]
fn tdm_gives_the_check_values() {
    let mut order: Vec<String> =
        ["0.0.weight", "0.1.weight", "0.1.bias", "1.0.weight", "1.1.weight", "1.1.bias"]
            .iter()
            .map(|name| format!("reductions.{name}"))
            .collect();
    for layer in 0..2 {
        for name in [
            "self_attn.in_proj_weight",
            "self_attn.in_proj_bias",
            "self_attn.out_proj.weight",
            "self_attn.out_proj.bias",
            "linear1.weight",
            "linear1.bias",
            "linear2.weight",
            "linear2.bias",
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
        ] {
            order.push(format!("trans_layers.{layer}.{name}"));
        }
    }
    let shape = TdmShape { channels: 8, heads: 2, hidden: 32, dropout: 0.1, kernels: vec![7, 5] };
    let module = filled(Tdm::new(&init(), &shape), &order);
    let levels = module.forward(fill([1, 8, 11], 0.2, 1.0), Pass::Evaluate);
    let expected = [
        (14.98399, 55.6158, [0.198_669_3, -0.550_178_2, 0.884_199_7, 0.197_819_2]),
        (-11.05903, 19.85729, [-0.777_437_4, -0.141_717_3, 0.346_026_6, 0.204_204_6]),
        (-3.89375, 13.11637, [0.345_513_2, 0.028_504_6, 0.809_222_8, -0.628_107_7]),
    ];
    assert_eq!(levels.iter().map(|level| level.dims()[2]).collect::<Vec<_>>(), [11, 6, 3]);
    for (level, (sum, absolute, first)) in levels.iter().zip(expected) {
        let all = values(level);
        assert!((all.iter().sum::<f32>() - sum).abs() < 1e-3, "sum {}", all.iter().sum::<f32>());
        assert!((all.iter().map(|v| v.abs()).sum::<f32>() - absolute).abs() < 1e-3);
        close(&values(&level.clone().narrow(2, 0, 1))[..4], &first);
    }
}

#[test]
fn a_stage_without_a_band_attends_to_everything() {
    let levels = |kernel| {
        let shape = TdmShape { channels: 8, heads: 2, hidden: 32, dropout: 0.0, kernels: vec![kernel] };
        let levels = Tdm::new(&init(), &shape).forward(fill([1, 8, 24], 0.2, 1.0), Pass::Evaluate);
        values(&levels[1])
    };
    // 12 positions: a band of 23 reaches from the first to the last.
    assert_eq!(levels(0), levels(23));
    assert_ne!(levels(0), levels(3));
}

#[test]
fn attention_without_a_bias_has_fewer_parameters() {
    let shape = TcmShape { channels: 8, heads: 2, max_length: 6, layers: 2, qkv_bias: false, drop_path: 0.0 };
    let module = Tcm::new(&init(), shape);
    assert_eq!(module.num_params() + 2 * 3 * 8, tcm(8, 2, 6, 2).num_params());
    assert!(module.encoder.layers.iter().all(|layer| layer.attn.qkv.bias.is_none()));
    assert!(module.forward(fill([1, 8, 5], 0.1, 1.0), Pass::Evaluate).is_ok());
}

#[test]
fn position_code_gives_the_check_values() {
    let code = tdm::position_code(60, 512);
    close(&code[512..516], &[0.037_188_1, 0.023_878_2, 0.036_321_3, 0.025_177_2]);
    close(&code[60 * 512 - 2..], &[0.000_270_3, 0.044_193_3]);
}

#[test]
fn parameters_are_as_many_as_published() {
    assert_eq!(TemporalReduction::new(&init(), 1024, 512).num_params(), 2_360_320);
    assert_eq!(tcm(512, 16, 60, 3).num_params(), 9_462_864);
    assert_eq!(tcm(512, 16, 96, 3).num_params(), 9_466_320);
    let shape = TdmShape { channels: 512, heads: 8, hidden: 2048, dropout: 0.1, kernels: vec![7, 7, 5, 5] };
    assert_eq!(Tdm::new(&init(), &shape).num_params(), 14_710_784);
    let running = 10 * 2 * 256;
    assert_eq!(Fpn::new(&init(), 5, 512, 256).num_params(), 1_643_520 + running);
}

#[test]
fn lengths_are_quartered_rounding_up() {
    for (length, reduced) in [(240, 60), (384, 96), (1, 1), (5, 2), (17, 5)] {
        assert_eq!(TemporalReduction::reduced_length(length), reduced);
        let module = TemporalReduction::new(&init(), 2, 3);
        assert_eq!(module.forward(Tensor::zeros([1, 2, length], &Device::flex())).dims(), [1, 3, reduced]);
    }
}

#[test]
fn layers_of_the_tcm_begin_alike() {
    let module = tcm(8, 2, 6, 3);
    let [first, second, third] = &module.encoder.layers[..] else { panic!("three layers") };
    for other in [second, third] {
        assert_eq!(values(&first.attn.qkv.weight.val()), values(&other.attn.qkv.weight.val()));
        assert_eq!(values(&first.mlp.fc2.weight.val()), values(&other.mlp.fc2.weight.val()));
        assert_ne!(first.attn.qkv.weight.id, other.attn.qkv.weight.id);
    }
}

#[test]
fn a_longer_window_than_the_table_is_refused() {
    let error =
        tcm(8, 2, 6, 1).forward(Tensor::zeros([1, 8, 7], &Device::flex()), Pass::Evaluate).unwrap_err();
    assert!(error.to_string().contains("7 temporal positions") && error.to_string().contains("at most 6"));
    assert!(error.hint().is_some());
    assert!(tcm(8, 2, 6, 0).forward(Tensor::zeros([1, 8, 7], &Device::flex()), Pass::Evaluate).is_ok());
}

#[test]
fn what_is_dropped_depends_on_the_sample_alone() {
    let shape = TdmShape { channels: 8, heads: 2, hidden: 32, dropout: 0.5, kernels: vec![3] };
    let module = Tdm::new(&init(), &shape);
    let keys: Vec<Key> = (0..2).map(|sample| Key::root(5).child("sample", sample)).collect();
    let x = fill([2, 8, 6], 0.3, 1.0);
    let both = module.forward(x.clone(), Pass::Train { keys: &keys });
    let alone = module.forward(x.narrow(0, 1, 1), Pass::Train { keys: &keys[1..] });
    for (both, alone) in both.iter().zip(&alone) {
        close(&values(&both.clone().narrow(0, 1, 1)), &values(alone));
    }
    let first = values(&both[0]);
    assert!(first.iter().filter(|value| **value == 0.0).count() > 20, "half of the values are dropped");
}
