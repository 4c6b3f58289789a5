//! SGD and AdamW as PyTorch does them, on flat vectors.

use burn::tensor::{Device, Tensor};
use longtake_shared::config::{OptimConfig, OptimizerKind};

use super::OptimError;
use super::flat::Flat;
use super::layout::{FlatLayout, ParamGroup};

/// An update rule and what it remembers. Cloning is cheap: a step that is not committed leaves the clone untouched.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimConfig,
    layout: FlatLayout,
    time: u64,
    memory: Memory,
}

/// What a rule remembers from step to step.
#[derive(Debug, Clone)]
enum Memory {
    /// Nothing: before SGD's first step, and without momentum.
    None,
    /// SGD's momentum.
    Momentum(Flat),
    /// AdamW's first and second moment.
    Moments(Flat, Flat),
}

/// One named vector of a saved state.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// What it is and of which parameter: `momentum.head.cls.weight`, `first_moment.<path>`, `second_moment.<path>`.
    pub name: String,
    /// Its values, in the parameter's order.
    pub values: Vec<f32>,
}

/// What a checkpoint holds of an optimizer: as many slots as the rule remembers at this time.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// The rule.
    pub kind: OptimizerKind,
    /// Steps taken.
    pub time: u64,
    /// What the rule remembers, parameter by parameter.
    pub slots: Vec<Slot>,
}

const MOMENTUM: &str = "momentum";
const FIRST_MOMENT: &str = "first_moment";
const SECOND_MOMENT: &str = "second_moment";

impl Optimizer {
    /// A rule that has taken no step.
    pub fn new(config: &OptimConfig, layout: &FlatLayout) -> Self {
        Self { config: config.clone(), layout: layout.clone(), time: 0, memory: Memory::None }
    }

    /// Steps taken.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The learning rate of a group where the schedule's factor is `factor`.
    pub fn learning_rate(&self, group: ParamGroup, factor: f64) -> f64 {
        match group {
            ParamGroup::Frozen => 0.0,
            ParamGroup::Backbone => self.config.learning_rate * self.config.backbone_multiplier * factor,
            ParamGroup::Other => self.config.learning_rate * factor,
        }
    }

    /// The parameters after one step, `factor` being the schedule's ([`super::learning_rate_factor`]).
    #[must_use]
    pub fn step(&mut self, params: Flat, gradients: Flat, factor: f64) -> Flat {
        self.time += 1;
        match self.config.kind {
            OptimizerKind::Sgd => self.sgd(params, gradients, factor),
            OptimizerKind::AdamW => self.adamw(params, &gradients, factor),
        }
    }

    /// `torch.optim.SGD` with dampening 0: g += wd p; v = g in the first step, else m v + g; p -= lr v.
    fn sgd(&mut self, params: Flat, gradients: Flat, factor: f64) -> Flat {
        let OptimConfig { weight_decay, momentum, .. } = self.config;
        let decayed = zip(gradients, &params, |_, gradient, param| gradient + param * weight_decay);
        let velocity = match std::mem::replace(&mut self.memory, Memory::None) {
            Memory::Momentum(velocity) => zip(velocity, &decayed, |_, old, new| old * momentum + new),
            Memory::None | Memory::Moments(..) => decayed,
        };
        if momentum != 0.0 {
            self.memory = Memory::Momentum(velocity.clone());
        }
        zip(params, &velocity, |group, param, velocity| param - velocity * self.learning_rate(group, factor))
    }

    /// `torch.optim.AdamW`: p *= 1 - lr wd; m and v are running means of g and g^2; p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps),
    /// where c = 1 - beta^t corrects for the start at zero.
    fn adamw(&mut self, params: Flat, gradients: &Flat, factor: f64) -> Flat {
        let OptimConfig { weight_decay, betas: [beta1, beta2], epsilon, .. } = self.config;
        let (first, second) = match std::mem::replace(&mut self.memory, Memory::None) {
            Memory::Moments(first, second) => (first, second),
            Memory::None | Memory::Momentum(_) => {
                let zeros = gradients.clone().map(|_, tensor| tensor.zeros_like());
                (zeros.clone(), zeros)
            }
        };
        let first =
            zip(first, gradients, |_, mean, gradient| mean.clone() + (gradient - mean) * (1.0 - beta1));
        let second =
            zip(second, gradients, |_, mean, gradient| mean * beta2 + gradient.square() * (1.0 - beta2));
        self.memory = Memory::Moments(first.clone(), second.clone());

        let time = self.time as f64;
        let (correction1, correction2) = (1.0 - beta1.powf(time), 1.0 - beta2.powf(time));
        let quotient =
            zip(first, &second, |_, first, second| first / (second.sqrt() / correction2.sqrt() + epsilon));
        zip(params, &quotient, |group, param, quotient| {
            let rate = self.learning_rate(group, factor);
            param * (1.0 - rate * weight_decay) - quotient * (rate / correction1)
        })
    }

    /// What a checkpoint holds, bit for bit.
    ///
    /// # Errors
    /// The device cannot give the values.
    pub fn state(&self) -> Result<OptimizerState, OptimError> {
        let named: Vec<(&str, &Flat)> = match &self.memory {
            Memory::None => vec![],
            Memory::Momentum(velocity) => vec![(MOMENTUM, velocity)],
            Memory::Moments(first, second) => vec![(FIRST_MOMENT, first), (SECOND_MOMENT, second)],
        };
        let mut slots = Vec::new();
        for (name, flat) in named {
            let values = flat.to_host()?;
            let mut rest = values.as_slice();
            for entry in self.layout.trained() {
                let (values, after) = rest.split_at(entry.len());
                rest = after;
                slots.push(Slot { name: format!("{name}.{}", entry.path), values: values.to_vec() });
            }
        }
        Ok(OptimizerState { kind: self.config.kind, time: self.time, slots })
    }

    /// Takes over a saved state; on an error nothing has changed.
    ///
    /// # Errors
    /// The state of another rule, or of other parameters.
    pub fn restore(&mut self, state: &OptimizerState, device: &Device) -> Result<(), OptimError> {
        let configured = self.config.kind;
        if state.kind != configured {
            return Err(OptimError::Kind { saved: state.kind, configured });
        }
        let names: &[&str] = match configured {
            _ if state.slots.is_empty() && (state.time == 0 || configured == OptimizerKind::Sgd) => &[],
            OptimizerKind::Sgd => &[MOMENTUM],
            OptimizerKind::AdamW => &[FIRST_MOMENT, SECOND_MOMENT],
        };
        let mut flats = Vec::new();
        for name in names {
            flats.push(self.collect(name, state, device)?);
        }
        if let Some(slot) = state.slots.iter().find(|slot| !self.knows(&slot.name, names)) {
            return Err(OptimError::UnknownSlot { name: slot.name.clone() });
        }
        let mut flats = flats.into_iter();
        self.memory = match (flats.next(), flats.next()) {
            (Some(first), Some(second)) => Memory::Moments(first, second),
            (Some(velocity), None) => Memory::Momentum(velocity),
            (None, _) => Memory::None,
        };
        self.time = state.time;
        Ok(())
    }

    fn knows(&self, slot: &str, names: &[&str]) -> bool {
        let path = |name: &&str| slot.strip_prefix(*name).and_then(|rest| rest.strip_prefix('.'));
        names.iter().filter_map(path).any(|path| self.layout.trained().any(|entry| entry.path == path))
    }

    fn collect(&self, name: &str, state: &OptimizerState, device: &Device) -> Result<Flat, OptimError> {
        let mut values = Vec::with_capacity(self.layout.len());
        for entry in self.layout.trained() {
            let name = format!("{name}.{}", entry.path);
            let Some(slot) = state.slots.iter().find(|slot| slot.name == name) else {
                return Err(OptimError::MissingSlot { name });
            };
            if slot.values.len() != entry.len() {
                return Err(OptimError::SlotLength { name, expected: entry.len(), found: slot.values.len() });
            }
            values.extend_from_slice(&slot.values);
        }
        Flat::from_host(&self.layout, &values, device)
    }
}

/// Combines two vectors of one layout group by group.
fn zip(a: Flat, b: &Flat, combine: impl Fn(ParamGroup, Tensor<1>, Tensor<1>) -> Tensor<1>) -> Flat {
    let mut others = b.groups();
    a.map(|group, tensor| {
        let (_, other) = others.next().expect("both vectors belong to one layout");
        combine(group, tensor, other.clone())
    })
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param};

    use super::*;

    #[derive(Module, Debug)]
    struct Part {
        weight: Param<Tensor<1>>,
    }

    #[derive(Module, Debug)]
    struct Model {
        backbone: Part,
        head: Part,
    }

    const START: [f32; 6] = [0.5, -1.25, 2.0, 0.0, 1.0, -0.75];

    fn layout() -> FlatLayout {
        let device = Device::flex();
        let model = Model {
            backbone: Part { weight: Param::from_data([0.0; 4], &device) },
            head: Part { weight: Param::from_data([0.0; 2], &device) },
        };
        FlatLayout::new(&model, &[]).unwrap()
    }

    fn gradients(step: usize) -> Vec<f32> {
        let step = step as f32;
        vec![0.3 * (step + 1.0), -0.2, 1.5 - 0.5 * step, 0.0, -4.0 + step, 0.25]
    }

    fn flat(values: &[f32]) -> Flat {
        Flat::from_host(&layout(), values, &Device::flex()).unwrap()
    }

    fn sgd() -> OptimConfig {
        let kind = OptimizerKind::Sgd;
        OptimConfig {
            kind,
            learning_rate: 0.1,
            weight_decay: 0.01,
            backbone_multiplier: 0.4,
            ..OptimConfig::default()
        }
    }

    fn adamw() -> OptimConfig {
        let kind = OptimizerKind::AdamW;
        OptimConfig {
            kind,
            learning_rate: 0.1,
            weight_decay: 0.05,
            backbone_multiplier: 0.2,
            ..OptimConfig::default()
        }
    }

    fn check(config: &OptimConfig, max_norm: f64, norms: &[f64], expected: [[f64; 6]; 4]) {
        let mut optimizer = Optimizer::new(config, &layout());
        let mut params = flat(&START);
        for (step, expected) in expected.into_iter().enumerate() {
            let (clipped, norm) = super::super::clip(flat(&gradients(step)), max_norm).unwrap();
            if let Some(expected) = norms.get(step) {
                assert!((norm / expected - 1.0).abs() < 1e-6, "step {step}: norm {norm}");
            }
            params = optimizer.step(params, clipped, 1.0);
            for (value, expected) in params.to_host().unwrap().into_iter().map(f64::from).zip(expected) {
                assert!(
                    (value - expected).abs() <= 2e-6 * expected.abs(),
                    "step {step}: {value} is not {expected}"
                );
            }
        }
    }

    // The expected values of the next three tests are what torch 2.15's SGD and AdamW (foreach and fused off, CPU) and
    // `clip_grad_norm_` give for START and `gradients`: the first four values in a group with the backbone's rate.

    #[test]
    #[rustfmt::skip]
    fn sgd_steps_as_in_pytorch() {
        check(&sgd(), 0.0, &[], [
            [0.487_800_002, -1.241_500_02, 1.939_200_04, 0.0, 1.399_000_05, -0.774_250_03],
            [0.452_624_887, -1.225_353_48, 1.843_704_34, 0.0, 2.056_701_18, -0.820_300_758],
            [0.384_786_218, -1.202_331_42, 1.737_020_73, 0.0, 2.846_575_5, -0.885_926_127],
            [0.275_577_515, -1.173_130_63, 1.640_310_65, 0.0, 3.654_615_64, -0.969_103_038],
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn adamw_steps_as_in_pytorch() {
        check(&adamw(), 0.0, &[], [
            [0.479_499_996, -1.228_749_99, 1.978_000_04, 0.0, 1.095_000_03, -0.846_249_998],
            [0.459_716_856, -1.207_521_32, 1.956_615_09, 0.0, 1.187_782_53, -0.942_018_747],
            [0.440_097_123, -1.186_313_87, 1.936_786_06, 0.0, 1.276_098_25, -1.037_308_69],
            [0.420_448_84, -1.165_127_64, 1.920_209_29, 0.0, 1.356_247_07, -1.132_122_16],
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn clipped_sgd_steps_as_in_pytorch() {
        let norms = [4.294_473_171, 3.234_578_848, 2.272_113_562, 1.594_521_88];
        check(&sgd(), 2.0, &norms, [
            [0.494_211_435, -1.245_774_27, 1.971_257_09, 0.0, 1.185_285_93, -0.760_892_868],
            [0.473_964_393, -1.236_526_25, 1.919_867_28, 0.0, 1.536_353_47, -0.785_393_536],
            [0.423_863_918, -1.220_666_53, 1.855_243_68, 0.0, 2.026_825_43, -0.828_664_66],
            [0.330_603_957, -1.197_904_47, 1.796_340_35, 0.0, 2.566_223_38, -0.891_780_019],
        ]);
    }

    #[test]
    fn a_restored_optimizer_steps_bit_for_bit_alike() {
        for config in [sgd(), adamw(), OptimConfig { momentum: 0.0, ..sgd() }] {
            for steps in [0, 3] {
                let mut first = Optimizer::new(&config, &layout());
                let mut params = flat(&START);
                for step in 0..steps {
                    params = first.step(params, flat(&gradients(step)), 0.5);
                }
                let state = first.state().unwrap();
                let mut second = Optimizer::new(&config, &layout());
                second.restore(&state, &Device::flex()).unwrap();
                assert_eq!(second.state().unwrap(), state);
                let next = |optimizer: &mut Optimizer| {
                    let params =
                        optimizer.step(params.clone(), flat(&gradients(steps)), 0.25).to_host().unwrap();
                    params.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                assert_eq!(next(&mut first), next(&mut second));
            }
        }
    }

    #[test]
    fn a_state_of_another_rule_or_model_is_refused() {
        let mut optimizer = Optimizer::new(&adamw(), &layout());
        let _ = optimizer.step(flat(&START), flat(&gradients(0)), 1.0);
        let state = optimizer.state().unwrap();
        let device = Device::flex();

        let error = Optimizer::new(&sgd(), &layout()).restore(&state, &device);
        assert!(matches!(error, Err(OptimError::Kind { .. })), "{error:?}");

        let mut shorter = state.clone();
        shorter.slots.pop();
        let error = optimizer.restore(&shorter, &device).unwrap_err();
        assert_eq!(error.to_string(), "the saved optimizer state has no `second_moment.head.weight`");

        let mut longer = state.clone();
        longer.slots.push(Slot { name: "first_moment.neck.weight".into(), values: vec![0.0] });
        assert!(matches!(optimizer.restore(&longer, &device), Err(OptimError::UnknownSlot { .. })));

        let mut cut = state.clone();
        cut.slots[0].values.pop();
        assert!(matches!(
            optimizer.restore(&cut, &device),
            Err(OptimError::SlotLength { expected: 4, found: 3, .. })
        ));
        assert_eq!(optimizer.state().unwrap(), state);
    }
}
