//! The learning rate over time: a cosine with restarts, times a warm-up (spec 40, section 9).

use longtake_shared::config::{ScheduleConfig, ScheduleUnit, Warmup};
use longtake_shared::ids::Step;

/// One fall of the cosine from its top to its floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cycle {
    /// Its length, in what the schedule counts.
    pub length: u64,
    /// How high it begins: 1 is the full rate. The floor does not move.
    pub weight: f64,
}

/// What the learning rate is multiplied by in a step, in a stage of `total_steps` steps.
pub fn learning_rate_factor(
    config: &ScheduleConfig,
    step: Step,
    steps_per_epoch: u64,
    total_steps: u64,
) -> f64 {
    let steps_per_epoch = steps_per_epoch.max(1);
    let (position, whole) = match config.unit {
        ScheduleUnit::Step => (step.0, total_steps),
        ScheduleUnit::Epoch => (step.0 / steps_per_epoch, total_steps.div_ceil(steps_per_epoch)),
    };
    let length = if config.period == 0 { whole } else { config.period };
    let cycle = Cycle { length, weight: 1.0 };
    cosine_restart(&[cycle], config.floor, position)
        * warmup(config.warmup, config.warmup_steps, config.warmup_start, step)
}

/// `floor + weight (1 - floor) (1 + cos(pi x)) / 2`, where x is how far `position` is in its cycle. The last cycle
/// repeats; without a cycle the rate is constant. (klauscc/TALLFormer `vedacore/hooks/lr_scheduler.py`.)
pub fn cosine_restart(cycles: &[Cycle], floor: f64, position: u64) -> f64 {
    let Some((last, before)) = cycles.split_last() else { return 1.0 };
    let mut start = 0;
    let mut current = last;
    for cycle in before {
        if position < start + cycle.length {
            current = cycle;
            break;
        }
        start += cycle.length;
    }
    let length = current.length.max(1);
    let x = ((position - start) % length) as f64 / length as f64;
    floor + 0.5 * current.weight * (1.0 - floor) * ((std::f64::consts::PI * x).cos() + 1.0)
}

/// From `start` in the first step to 1 in step `steps`.
pub fn warmup(kind: Warmup, steps: u64, start: f64, step: Step) -> f64 {
    if step.0 >= steps {
        return 1.0;
    }
    let left = 1.0 - step.0 as f64 / steps as f64;
    match kind {
        Warmup::Linear => 1.0 - left * (1.0 - start),
        Warmup::Exp => start.powf(left),
        Warmup::Constant => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_schedule_is_the_published_one() {
        let config = ScheduleConfig::default();
        let rate = |step| 0.01 * learning_rate_factor(&config, Step(step), 13, 13_000);
        for (step, expected) in
            [(0, 0.001), (250, 0.005_029_2), (499, 0.006_859_8), (13 * 99, 0.000_102_44), (1300, 0.01)]
        {
            assert!((rate(step) / expected - 1.0).abs() < 1e-4, "step {step}: {}", rate(step));
        }
    }

    #[test]
    fn without_a_period_the_cosine_spans_the_stage() {
        let config = ScheduleConfig {
            unit: ScheduleUnit::Step,
            period: 0,
            floor: 0.05,
            warmup: Warmup::Linear,
            warmup_steps: 10,
            warmup_start: 0.0,
        };
        assert!(learning_rate_factor(&config, Step(0), 7, 100).abs() < 1e-12);
        assert!((learning_rate_factor(&config, Step(50), 7, 100) - 0.525).abs() < 1e-12);
        assert!(learning_rate_factor(&config, Step(99), 7, 100) < 0.0503);
    }

    #[test]
    fn the_kinds_of_warm_up_rise_from_one_start_to_the_full_rate() {
        let factor = |kind, step| warmup(kind, 8, 0.1, Step(step));
        for kind in [Warmup::Linear, Warmup::Exp, Warmup::Constant] {
            assert!((factor(kind, 0) - 0.1).abs() < 1e-12, "{kind:?}");
            assert!((factor(kind, 8) - 1.0).abs() < 1e-12, "{kind:?}");
        }
        assert!((factor(Warmup::Linear, 4) - 0.55).abs() < 1e-12);
        assert!((factor(Warmup::Exp, 4) - 0.1f64.sqrt()).abs() < 1e-12);
        assert!((factor(Warmup::Constant, 7) - 0.1).abs() < 1e-12);
    }
}
