//! How long the backbone takes, forward alone and with its backward pass: Swin-T and the quick start's model. Beside it
//! `worker/benches/torchvision_swin3d.py`, the same in PyTorch.

use std::time::Duration;

use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::bench::{Row, Times};
use longtake_shared::config::{BackboneConfig, Variant};
use longtake_shared::random::Key;
use rand::Rng as _;

use crate::model::backbone::Backbone;
use crate::model::layers::Init;
use crate::model::pass::Pass;

/// Runs of each.
pub const RUNS: usize = 5;

/// Measures on the CPU.
pub fn measure(runs: usize) -> Vec<Row> {
    let tiny =
        BackboneConfig { variant: Variant::Tiny, drop_path: 0.0, frozen_stages: -1, ..Default::default() };
    let quick_start = BackboneConfig { variant: Variant::Custom, ..tiny.clone() };
    let mut rows = of_model("Swin-T 1x3x16x112x112", &tiny, [1, 3, 16, 112, 112], runs);
    rows.extend(of_model("quick start 3x3x32x56x56", &quick_start, [3, 3, 32, 56, 56], runs));
    rows
}

fn of_model(name: &str, config: &BackboneConfig, shape: [usize; 5], runs: usize) -> Vec<Row> {
    let (plain, taped) = (Device::flex(), Device::flex().autodiff());
    let key = Key::root(1).child("model", 0);
    let model = Backbone::new(config, &Init::new(&plain, key));
    let clips = random("clips", shape, &plain);
    let dims = model.features(clips.clone(), Pass::Evaluate).dims();
    let forward = timed(&format!("{name}, forward"), runs, || {
        model.features(clips.clone(), Pass::Evaluate);
    });
    let model = Backbone::new(config, &Init::new(&taped, key));
    let clips = random("clips", shape, &taped);
    let projection = random("projection", dims, &taped);
    let both = timed(&format!("{name}, forward and backward"), runs, || {
        (model.features(clips.clone(), Pass::Evaluate) * projection.clone()).sum().backward();
    });
    forward.into_iter().chain(both).collect()
}

/// One run to warm up, then wall time and processor time of each.
fn timed(name: &str, runs: usize, run: impl Fn()) -> [Row; 2] {
    run();
    let (mut wall, mut processor) = (Times::default(), Times::default());
    for _ in 0..runs {
        let before = processor_time();
        wall.measure(&run);
        processor.push(processor_time().saturating_sub(before));
    }
    [wall.row(name), processor.row(format!("{name}, CPU time"))]
}

fn random<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let mut rng = Key::root(1).child(name, 0).rng();
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Processor time of all threads of this process, in steps of 10 ms; zero where there is no `/proc`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}
