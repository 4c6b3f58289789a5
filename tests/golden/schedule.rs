//! The learning rate, iteration by iteration.

use longtake_shared::config::Warmup;
use longtake_shared::ids::Step;
use longtake_worker::optim::{Cycle, cosine_restart, warmup};
use serde::Deserialize;

use crate::support::{Case, Runner};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[("CosineRestartLrSchedulerHook", schedule)];

#[derive(Deserialize)]
struct Stage {
    config: Settings,
    lr_per_iteration: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Settings {
    periods: Vec<u64>,
    restart_weights: Vec<f64>,
    #[serde(default)]
    warmup: Option<Warmup>,
    #[serde(default)]
    warmup_iters: u64,
    #[serde(default)]
    warmup_ratio: f64,
    min_lr_ratio: f64,
    base: Vec<f64>,
    epochs: u64,
    iters: u64,
}

fn schedule(case: &Case) -> Result<(), String> {
    let stages: Vec<Stage> =
        serde_json::from_value(case.value("/cases")?.clone()).map_err(|e| format!("`cases`: {e}"))?;
    let tolerance = case.value("/tolerance/rel")?.as_f64().ok_or("`rel` is no number")?;
    for Stage { config, lr_per_iteration } in stages {
        let cycles: Vec<Cycle> = (config.periods.iter().zip(&config.restart_weights))
            .map(|(&length, &weight)| Cycle { length, weight })
            .collect();
        if lr_per_iteration.len() as u64 != config.epochs * config.iters {
            return Err(format!("{} iterations are listed", lr_per_iteration.len()));
        }
        // The cases that came first do not name the kind: it is the published one.
        let kind = config.warmup.unwrap_or(Warmup::Linear);
        for (step, expected) in (0u64..).zip(lr_per_iteration) {
            let factor = cosine_restart(&cycles, config.min_lr_ratio, step / config.iters)
                * warmup(kind, config.warmup_iters, config.warmup_ratio, Step(step));
            for (base, expected) in config.base.iter().zip(expected) {
                let error = (base * factor - expected).abs();
                if error.is_nan() || error > tolerance * expected.abs() {
                    return Err(format!("step {step}: {} instead of {expected}", base * factor));
                }
            }
        }
    }
    Ok(())
}
