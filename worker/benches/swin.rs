//! How long the backbone takes on the CPU, forward alone and with its backward pass: Swin-T and the quick start's model.
//! Beside it `torchvision_swin3d.py`, the same in PyTorch.
//!
//! `cargo bench -p longtake-worker --bench swin -- [RUNS]`
#![allow(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use longtake_shared::{
    config::{BackboneConfig, Variant},
    random::Key,
};
use longtake_worker::model::{backbone::VideoSwin, layers::Init, pass::Pass};
use rand::Rng as _;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn measure(name: &str, runs: usize, run: impl Fn()) {
    run();
    let (mut wall, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (start, before) = (Instant::now(), processor_time());
        run();
        wall.push(start.elapsed());
        processor.push(processor_time().saturating_sub(before));
    }
    println!("{name}: {:.3} s wall, {:.3} s CPU (median of {runs})", median(wall), median(processor));
}

fn both(name: &str, config: &BackboneConfig, shape: [usize; 5], runs: usize) {
    let (plain, taped) = (Device::flex(), Device::flex().autodiff());
    let key = Key::root(1).child("model", 0);
    let model = VideoSwin::new(config, &Init::new(&plain, key));
    let clips = random("clips", shape, &plain);
    let dims = model.forward(clips.clone(), Pass::Evaluate).dims();
    measure(&format!("{name}, forward"), runs, || {
        model.forward(clips.clone(), Pass::Evaluate);
    });
    let model = VideoSwin::new(config, &Init::new(&taped, key));
    let clips = random("clips", shape, &taped);
    let projection = random("projection", dims, &taped);
    measure(&format!("{name}, forward and backward"), runs, || {
        (model.forward(clips.clone(), Pass::Evaluate) * projection.clone()).sum().backward();
    });
}

fn main() {
    let runs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(5).max(1);
    let tiny =
        BackboneConfig { variant: Variant::Tiny, drop_path: 0.0, frozen_stages: -1, ..Default::default() };
    both("Swin-T 1x3x16x112x112", &tiny, [1, 3, 16, 112, 112], runs);
    let quick_start = BackboneConfig { variant: Variant::Custom, ..tiny };
    both("quick start 3x3x32x56x56", &quick_start, [3, 3, 32, 56, 56], runs);
}
