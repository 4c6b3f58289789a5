//! Batch normalisation: one process against several, accuracy, and what is left after a batch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::config::{HeadConfig, NeckConfig, RunConfig, Variant};
use longtake_shared::random::Key;

use super::*;
use crate::model::heads::daotad::DaoTad;

/// Ranks that are threads: every rank leaves its values, all wait, each adds them up in rank order.
#[derive(Debug)]
struct Ranks {
    barrier: Barrier,
    slots: Mutex<Vec<Vec<f32>>>,
}

#[derive(Debug)]
struct RankMoments {
    rank: usize,
    ranks: Arc<Ranks>,
}

impl MomentsReducer for RankMoments {
    fn sum(&self, values: &mut [f32]) {
        self.ranks.slots.lock().unwrap()[self.rank] = values.to_vec();
        self.ranks.barrier.wait();
        for (index, value) in values.iter_mut().enumerate() {
            *value = self.ranks.slots.lock().unwrap().iter().map(|slot| slot[index]).sum();
        }
        self.ranks.barrier.wait();
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn detector() -> DaoTad {
    let mut config = RunConfig::default();
    config.model.neck = NeckConfig {
        channels: 8,
        tcm_layers: 1,
        tcm_heads: 2,
        tcm_qkv_bias: true,
        tcm_drop_path: 0.1,
        tdm_heads: 2,
        tdm_dropout: 0.1,
        tdm_kernels: vec![3, 3],
        fpn_channels: 6,
    };
    config.model.head = HeadConfig { convs: 2, scales_per_octave: 2, octave_base_scale: 2.0 };
    let backbone = &mut config.model.backbone;
    (backbone.variant, backbone.embed_dim, backbone.depths) = (Variant::Custom, 5, vec![1]);
    config.data.window_frames = 64;
    DaoTad::new(&config, 3, &Init::new(&device(), Key::root(3)))
}

/// Values that look random and are the same for the same sample wherever it is processed.
fn samples(range: std::ops::Range<usize>, channels: usize, length: usize, shift: f32) -> Tensor<3> {
    let count = range.len();
    let values: Vec<f32> = range
        .flat_map(|sample| {
            (0..channels * length)
                .map(move |index| ((sample * 977 + index * 131) as f32 * 0.37).sin() * 1.5 + shift)
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [count, channels, length]), &device())
}

#[derive(Default)]
struct Gradients {
    path: Vec<String>,
    all: Vec<(String, Vec<f32>)>,
}

impl Gradients {
    fn of<M: Module>(module: &M, gradients: &burn::tensor::Gradients) -> Vec<(String, Vec<f32>)> {
        struct Visitor<'a>(Gradients, &'a burn::tensor::Gradients);
        impl ModuleVisitor for Visitor<'_> {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.0.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.0.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = param.val().grad(self.1) {
                    let values = gradient.to_data().iter::<f32>().collect();
                    self.0.all.push((self.0.path.join("."), values));
                }
            }
        }
        let mut visitor = Visitor(Self::default(), gradients);
        module.visit(&mut visitor);
        visitor.0.all
    }
}

/// What one rank computed.
struct Outcome {
    outputs: Vec<Vec<f32>>,
    input: Vec<f32>,
    weights: Vec<(String, Vec<f32>)>,
    statistics: Vec<PendingStatistics>,
}

/// One rank's step over samples `range`; sample `IDLE` has weight 0 and no part in the loss.
fn step(range: std::ops::Range<usize>, reducer: &Arc<dyn MomentsReducer>) -> Outcome {
    let model = detector();
    let keys: Vec<Key> = range.clone().map(|sample| Key::root(1).child("sample", sample as u64)).collect();
    let weights: Vec<f32> = range.clone().map(|sample| if sample == IDLE { 0.0 } else { 1.0 }).collect();
    let x = samples(range.clone(), 5, 32, 0.0).require_grad();
    let output = model.forward(x.clone(), &weights, Pass::Train { keys: &keys }, reducer).unwrap();
    let mask = Tensor::<3>::from_data(TensorData::new(weights.clone(), [weights.len(), 1, 1]), &device());
    let mut loss = Tensor::<1>::zeros([1], &device());
    let mut outputs = Vec::new();
    for level in output.class_logits.iter().chain(&output.offsets) {
        let [_, channels, length] = level.dims();
        let cotangent = samples(range.clone(), channels, length, 0.1);
        loss = loss + (level.clone() * cotangent * mask.clone()).sum();
        outputs.push(level.to_data().iter::<f32>().collect());
    }
    let gradients = loss.backward();
    Outcome {
        outputs,
        input: x.grad(&gradients).unwrap().to_data().iter::<f32>().collect(),
        weights: Gradients::of(&model, &gradients),
        statistics: output.statistics,
    }
}

const IDLE: usize = 2;

fn close(name: &str, a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len(), "{name}");
    // Some gradients are zero analytically (a shift that only feeds batch normalisations): hence the floor.
    let largest = b.iter().fold(0.1f32, |largest, value| largest.max(value.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * largest, "{name}: {a} against {b}, largest {largest}");
    }
}

#[test]
fn a_batch_gives_the_same_on_any_number_of_ranks() {
    let local: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
    let whole = step(0..4, &local);
    for (sample, gradient) in whole.input.chunks(5 * 32).enumerate() {
        assert_eq!(gradient.iter().all(|value| *value == 0.0), sample == IDLE, "sample {sample}");
    }
    for split in [vec![0..2, 2..4], vec![0..2, 2..3, 3..4]] {
        let ranks = Arc::new(Ranks {
            barrier: Barrier::new(split.len()),
            slots: Mutex::new(vec![Vec::new(); split.len()]),
        });
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = split
                .iter()
                .cloned()
                .enumerate()
                .map(|(rank, range)| {
                    let reducer: Arc<dyn MomentsReducer> =
                        Arc::new(RankMoments { rank, ranks: Arc::clone(&ranks) });
                    scope.spawn(move || step(range, &reducer))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (level, expected) in whole.outputs.iter().enumerate() {
            let joined: Vec<f32> =
                outcomes.iter().flat_map(|outcome| outcome.outputs[level].clone()).collect();
            close("output", &joined, expected, 1e-5);
        }
        let input: Vec<f32> = outcomes.iter().flat_map(|outcome| outcome.input.clone()).collect();
        close("gradient of the input", &input, &whole.input, 1e-4);
        for (index, (name, expected)) in whole.weights.iter().enumerate() {
            let mut sum = vec![0.0; expected.len()];
            for outcome in &outcomes {
                assert_eq!(&outcome.weights[index].0, name);
                for (sum, value) in sum.iter_mut().zip(&outcome.weights[index].1) {
                    *sum += value;
                }
            }
            close(name, &sum, expected, 1e-4);
        }
        for outcome in &outcomes {
            for (entry, expected) in outcome.statistics.iter().zip(&whole.statistics) {
                assert_eq!(entry.path, expected.path);
                close(&entry.path, &entry.mean, &expected.mean, 1e-5);
                close(&entry.path, &entry.variance, &expected.variance, 1e-5);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl MomentsReducer for Counting {
    fn sum(&self, _values: &mut [f32]) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn all_levels_and_both_towers_share_a_sum() {
    let counting = Arc::new(Counting::default());
    let reducer: Arc<dyn MomentsReducer> = Arc::clone(&counting) as _;
    step(0..2, &reducer);
    let layers = 2 + 2; // laterals and outputs of the FPN, two convolutions of the towers
    let forward = 2 * layers;
    assert_eq!(counting.0.load(Ordering::Relaxed), 2 * forward);
}

fn one_layer(x: Tensor<3>, weights: &[f32]) -> (Tensor<3>, Vec<PendingStatistics>, BatchNorm) {
    let layer = BatchNorm::new(&Init::new(&device(), Key::root(0)), x.dims()[1]);
    let keys = vec![Key::root(0); x.dims()[0]];
    let local: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
    let input = NormInput { path: "bn".into(), layer: &layer, x };
    let (mut y, statistics) = batch_norm(vec![input], weights, Pass::Train { keys: &keys }, &local);
    (y.remove(0), statistics, layer)
}

#[test]
fn an_idle_sample_changes_no_statistic_and_gets_no_gradient() {
    let pair = samples(0..2, 3, 5, 0.0);
    let (_, expected, _) = one_layer(pair.clone(), &[1.0, 1.0]);
    let x = Tensor::cat(vec![pair, samples(7..8, 3, 5, 100.0)], 0).require_grad();
    let (y, statistics, _) = one_layer(x.clone(), &[1.0, 1.0, 0.0]);
    assert_eq!(statistics, expected);
    let gradients = y.narrow(0, 0, 2).powi_scalar(3).sum().backward();
    let gradient: Vec<f32> = x.grad(&gradients).unwrap().to_data().iter::<f32>().collect();
    assert!(gradient[..30].iter().any(|value| *value != 0.0));
    assert!(gradient[30..].iter().all(|value| *value == 0.0), "{gradient:?}");
}

#[test]
fn a_mean_far_from_zero_costs_no_digits() {
    let (_, statistics, _) = one_layer(samples(0..4, 2, 50, 0.0), &[1.0; 4]);
    let (_, far, _) = one_layer(samples(0..4, 2, 50, 4096.0), &[1.0; 4]);
    close("variance", &far[0].variance, &statistics[0].variance, 1e-3);
}

#[test]
fn a_batch_of_idle_samples_installs_nothing() {
    let (y, statistics, _) = one_layer(samples(0..2, 3, 5, 0.0), &[0.0, 0.0]);
    assert!(statistics.is_empty());
    assert!(y.to_data().iter::<f32>().all(f32::is_finite));
}

#[test]
fn statistics_are_unbiased_and_installed_in_order() {
    let x = Tensor::from_data(TensorData::new(vec![1f32, 2.0, 4.0, 9.0], [2, 1, 2]), &device());
    let (_, statistics, layer) = one_layer(x, &[1.0, 1.0]);
    assert_eq!(statistics[0].mean, [4.0]);
    close("variance", &statistics[0].variance, &[38.0 / 3.0], 1e-6);
    let at =
        |path: &str, mean| PendingStatistics { path: path.into(), mean: vec![mean], variance: vec![2.0] };
    let both = [at("0", 10.0), at("1", 5.0), at("0", 20.0)];
    let layers = apply_statistics(vec![layer.clone(), layer.clone()], &both).unwrap();
    let mean = |index: usize| layers[index].running_mean.val().to_data().iter::<f32>().next().unwrap();
    close("two steps", &[mean(0)], &[0.9 * 1.0 + 0.1 * 20.0], 1e-6);
    close("one step", &[mean(1)], &[0.5], 1e-6);
    assert!(!layers[0].running_var.is_require_grad(), "running values stay untrained");
    let error = apply_statistics(vec![layer], &[at("1", 5.0)]).unwrap_err();
    assert_eq!(error, UnknownLayer { path: "1".to_owned() });
}
