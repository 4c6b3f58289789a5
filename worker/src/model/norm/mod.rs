//! Batch normalisation whose statistics are those of the whole batch, over all ranks.
//!
//! Takes: the inputs of all layers that can be normalised at once, and a `MomentsReducer`. Gives: the normalised inputs,
//! and the statistics that whoever commits the step installs. Next: convolutions of the FPN and the head.

mod moments;

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::layers::{Fill, Init, NORM_EPSILON};
use super::pass::Pass;
use crate::tensors::path::ModulePath;
pub use moments::{LocalMoments, MomentsReducer};

/// PyTorch's default momentum of running statistics: how much of the batch enters them.
pub const MOMENTUM: f32 = 0.1;

/// Parameters and running statistics of one batch normalisation over `[B, C, T]`. Where they are used:
/// [`batch_norm`].
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<1>>,
    /// Running mean, `[C]`; never trained, changed only by [`apply_statistics`].
    pub running_mean: Param<Tensor<1>>,
    /// Running unbiased variance, `[C]`; never trained, changed only by [`apply_statistics`].
    pub running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    /// Scale 1, shift 0, running mean 0 and variance 1.
    pub fn new(init: &Init, channels: usize) -> Self {
        let constant = |name, value| init.param(name, [channels], Fill::Constant(value));
        Self {
            weight: constant("weight", 1.0),
            bias: constant("bias", 0.0),
            running_mean: constant("running_mean", 0.0).set_require_grad(false),
            running_var: constant("running_var", 1.0).set_require_grad(false),
        }
    }

    /// `(x - mean) / sqrt(variance + epsilon)`, scaled and shifted; `centred` is `x - mean`.
    fn scale(&self, centred: Tensor<3>, variance: Tensor<1>) -> Tensor<3> {
        let scale = self.weight.val() / (variance + NORM_EPSILON).sqrt();
        centred * per_channel(scale) + per_channel(self.bias.val())
    }
}

/// Statistics of one use of one layer in one batch, to be installed after the step has been committed.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingStatistics {
    /// Path of the layer, e.g. `neck.3.lateral_convs.0.bn`.
    pub path: String,
    /// Mean of each channel over the batch of all ranks.
    pub mean: Vec<f32>,
    /// Unbiased variance of each channel over the batch of all ranks.
    pub variance: Vec<f32>,
}

/// One use of a layer: its path, the layer, and its input `[B, C, T]`.
#[derive(Debug)]
pub struct NormInput<'a> {
    /// Path of the layer in the model.
    pub path: String,
    /// The layer.
    pub layer: &'a BatchNorm,
    /// `[B, C, T]`.
    pub x: Tensor<3>,
}

/// Normalises several inputs at once; in a training pass with the batch's own statistics, summed over ranks.
///
/// Two sums over ranks, whatever the number of inputs: first counts and sums, then squares about the mean. Squares about
/// zero would need only one, but `E[x^2] - E[x]^2` loses all digits where a channel's mean is large against its spread.
/// Backward runs the adjoint of each, in the opposite order. Since the second sum depends on the first, and the next
/// layer's on this one's, the order is the same on all ranks.
///
/// # Shapes
/// each `[B, C, T]` -> `[B, C, T]`; `weights` has one entry a sample: 0 keeps a sample out of the statistics.
pub fn batch_norm(
    inputs: Vec<NormInput<'_>>,
    weights: &[f32],
    pass: Pass<'_>,
    reducer: &Arc<dyn MomentsReducer>,
) -> (Vec<Tensor<3>>, Vec<PendingStatistics>) {
    if !pass.is_train() {
        let outputs = inputs
            .into_iter()
            .map(|input| {
                let centred = input.x - per_channel(input.layer.running_mean.val());
                input.layer.scale(centred, input.layer.running_var.val())
            })
            .collect();
        return (outputs, Vec::new());
    }
    normalise_with_batch(inputs, weights, reducer)
}

fn normalise_with_batch(
    inputs: Vec<NormInput<'_>>,
    weights: &[f32],
    reducer: &Arc<dyn MomentsReducer>,
) -> (Vec<Tensor<3>>, Vec<PendingStatistics>) {
    let Some(first) = inputs.first() else { return (Vec::new(), Vec::new()) };
    let device = first.x.device();
    let samples: f32 = weights.iter().sum();
    let local: Vec<f32> = inputs.iter().map(|input| samples * input.x.dims()[2] as f32).collect();
    let mut packed: Vec<Tensor<1>> = inputs.iter().map(|input| sum(input.x.clone(), weights)).collect();
    packed.push(Tensor::from_data(TensorData::new(local, [inputs.len()]), &device));
    let sums = moments::all_reduce(Tensor::cat(packed, 0), reducer);
    let host = values(&sums);
    let counts: Vec<f32> = host[host.len() - inputs.len()..].iter().map(|count| count.max(1.0)).collect();

    let mut centred = Vec::with_capacity(inputs.len());
    let mut offset = 0;
    for (input, count) in inputs.iter().zip(&counts) {
        let channels = input.x.dims()[1];
        let mean = sums.clone().narrow(0, offset, channels) / *count;
        centred.push(input.x.clone() - per_channel(mean));
        offset += channels;
    }
    let squares = centred.iter().map(|x| sum(x.clone().square(), weights)).collect();
    let squares = moments::all_reduce(Tensor::cat(squares, 0), reducer);
    let host_squares = values(&squares);

    let mut outputs = Vec::with_capacity(inputs.len());
    let mut statistics = Vec::with_capacity(inputs.len());
    let mut offset = 0;
    for ((input, x), count) in inputs.into_iter().zip(centred).zip(counts) {
        let channels = x.dims()[1];
        let range = offset..offset + channels;
        outputs.push(input.layer.scale(x, squares.clone().narrow(0, offset, channels) / count));
        statistics.push(PendingStatistics {
            path: input.path,
            mean: host[range.clone()].iter().map(|sum| sum / count).collect(),
            variance: host_squares[range].iter().map(|sum| sum / (count - 1.0).max(1.0)).collect(),
        });
        offset += channels;
    }
    if host.iter().rev().take(statistics.len()).all(|count| *count == 0.0) {
        statistics.clear();
    }
    (outputs, statistics)
}

/// Sum over samples and time, each sample times its weight.
///
/// # Shapes
/// `[B, C, T]` -> `[C]`
fn sum(x: Tensor<3>, weights: &[f32]) -> Tensor<1> {
    let [_, channels, _] = x.dims();
    let weights =
        Tensor::<3>::from_data(TensorData::new(weights.to_vec(), [weights.len(), 1, 1]), &x.device());
    (x.sum_dim(2) * weights).sum_dim(0).reshape([channels])
}

/// # Shapes
/// `[C]` -> `[1, C, 1]`
fn per_channel(x: Tensor<1>) -> Tensor<3> {
    let channels = x.dims()[0];
    x.reshape([1, channels, 1])
}

fn values(x: &Tensor<1>) -> Vec<f32> {
    x.to_data().iter::<f32>().collect()
}

/// Statistics of a layer that the module does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model has no batch normalisation `{path}`, so its running statistics cannot be installed")]
pub struct UnknownLayer {
    /// Path of the layer.
    pub path: String,
}

/// `module` with the statistics installed: each entry moves the running values of its layer by one momentum step, in
/// the order of the list (a head that is shared over levels takes one a level, as the reference's).
///
/// # Errors
/// An entry of a layer that the module does not have.
pub fn apply_statistics<M: Module>(module: M, statistics: &[PendingStatistics]) -> Result<M, UnknownLayer> {
    let mut installer = Installer { statistics, installed: BTreeSet::new(), path: ModulePath::default() };
    let module = module.map(&mut installer);
    match statistics.iter().find(|entry| !installer.installed.contains(entry.path.as_str())) {
        Some(entry) => Err(UnknownLayer { path: entry.path.clone() }),
        None => Ok(module),
    }
}

struct Installer<'a> {
    statistics: &'a [PendingStatistics],
    /// Paths of the layers that were found.
    installed: BTreeSet<&'a str>,
    path: ModulePath,
}

impl ModuleMapper for Installer<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let batch: fn(&PendingStatistics) -> &[f32] = match self.path.last() {
            "running_mean" => |entry| &entry.mean,
            "running_var" => |entry| &entry.variance,
            _ => return param,
        };
        let layer = self.path.layer();
        let mut entries = self.statistics.iter().filter(|entry| entry.path == layer).peekable();
        let Some(first) = entries.peek() else { return param };
        self.installed.insert(&first.path);
        let mut running: Vec<f32> = param.val().to_data().iter::<f32>().collect();
        for entry in entries {
            for (running, batch) in running.iter_mut().zip(batch(entry)) {
                *running = (1.0 - MOMENTUM) * *running + MOMENTUM * batch;
            }
        }
        param.map(|old| Tensor::from_data(TensorData::new(running, old.shape()), &old.device()))
    }
}

#[cfg(test)]
mod tests;
