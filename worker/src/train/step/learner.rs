//! What learns: a module, its optimizer, and how many steps it has taken. Moving it is the last thing a step does.

use burn::module::Module;
use burn::tensor::Device;
use longtake_shared::config::OptimConfig;
use longtake_shared::ids::Step;

use crate::optim::{
    Flat, FlatLayout, OptimError, Optimizer, OptimizerState, ParamGroup, UnknownPrefix, clip,
    learning_rate_factor,
};
use crate::tensors::{NamedTensor, autodiff, named};

/// How long a stage is, which its learning rate depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageLength {
    /// Steps of the stage.
    pub steps: u64,
    /// Steps of one of its epochs.
    pub steps_per_epoch: u64,
}

/// A module and its optimizer at one step. Never holds a tape.
#[derive(Debug, Clone)]
pub struct Learner<M: Module> {
    /// The module, without a tape.
    pub module: M,
    /// Steps taken.
    pub step: Step,
    layout: FlatLayout,
    optimizer: Optimizer,
    optim: OptimConfig,
    length: StageLength,
}

/// What moving the weights did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// Norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the parameters outside the backbone.
    pub learning_rate: f64,
    /// Whether the weights moved; they stay where the gradient is not finite.
    pub applied: bool,
}

impl<M: Module> Learner<M> {
    /// A learner at its first step. Parameters whose path begins with one of `frozen` never move.
    ///
    /// # Errors
    /// A prefix in `frozen` that no parameter has.
    pub fn new(
        module: M,
        optim: &OptimConfig,
        length: StageLength,
        frozen: &[String],
    ) -> Result<Self, UnknownPrefix> {
        let layout = FlatLayout::new(&module, frozen)?;
        let optimizer = Optimizer::new(optim, &layout);
        Ok(Self { module, step: Step(0), layout, optimizer, optim: optim.clone(), length })
    }

    /// The module with a tape; its parameters that may move require gradients.
    pub fn taped(&self) -> M {
        self.layout.require_gradients(autodiff::with_tape(&self.module))
    }

    /// Where each parameter lies in the flat gradient.
    pub fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    /// Moves the weights by a gradient that is already summed over ranks; a gradient that is not finite moves nothing,
    /// but the step counts all the same, on every rank.
    ///
    /// # Errors
    /// The device failed while the norm was read.
    pub fn advance(&mut self, gradients: Flat, loss_is_finite: bool) -> Result<Moved, OptimError> {
        let StageLength { steps, steps_per_epoch } = self.length;
        let factor = learning_rate_factor(&self.optim.schedule, self.step, steps_per_epoch, steps);
        let (gradients, gradient_norm) = clip(gradients, self.optim.clip_norm)?;
        let applied = loss_is_finite && gradient_norm.is_finite();
        if applied {
            let moved = self.optimizer.step(self.layout.gather_params(&self.module), gradients, factor);
            self.module = self.layout.scatter_params(self.module.clone(), &moved);
        }
        self.step = self.step.next();
        let learning_rate = self.optimizer.learning_rate(ParamGroup::Other, factor);
        Ok(Moved { gradient_norm, learning_rate, applied })
    }

    /// Parameters and buffers by name.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        named::named_tensors(&self.module)
    }

    /// The optimizer's memory.
    ///
    /// # Errors
    /// The device failed while it was read.
    pub fn optimizer_state(&self) -> Result<OptimizerState, OptimError> {
        self.optimizer.state()
    }

    /// Goes on from saved parameters, buffers, optimizer and step.
    ///
    /// # Errors
    /// Names of parameters that are missing, or an optimizer state of another kind or size.
    pub fn restore(
        &mut self,
        tensors: &[NamedTensor],
        state: &OptimizerState,
        step: Step,
        device: &Device,
    ) -> Result<(), RestoreError> {
        let (module, loaded) = named::load_named(self.module.clone(), tensors);
        if let Some(first) = loaded.missing.first() {
            return Err(RestoreError::Missing { count: loaded.missing.len(), first: first.clone() });
        }
        self.optimizer.restore(state, device)?;
        self.module = module;
        self.step = step;
        Ok(())
    }
}

/// Saved state that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Parameters or buffers are missing.
    #[error("the checkpoint lacks {count} tensors of the model, the first is `{first}`")]
    Missing {
        /// How many.
        count: usize,
        /// The first, with both shapes where it is there in another.
        first: String,
    },
    /// The optimizer's state does not fit.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
}
