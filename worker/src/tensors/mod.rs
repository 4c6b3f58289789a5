//! Tensors between a device, the host and files; used by every room and using none.
//!
//! A parameter is found by its path in the module, which is its published `state_dict` key; `path` builds that path for every
//! visitor.

/// Modules with and without a tape.
pub mod autodiff;

/// Named tensors as a safetensors file.
pub mod file;

/// Parameters and buffers of a module by name.
pub mod named;

/// Where a parameter lies in a module.
pub mod path;

use burn::tensor::{Device, Tensor};

pub use file::{NamedTensor, TensorData, TensorFile, TensorFileError};

/// A tensor's values on the host, row-major.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("every float tensor of a model is f32")
}

/// Clips as one batch.
///
/// # Shapes
/// N clips, each `shape` = `[3, L, H, W]` -> `[N, 3, L, H, W]`
pub fn stack<'a>(clips: impl Iterator<Item = &'a [f32]>, shape: [usize; 4], device: &Device) -> Tensor<5> {
    let mut values = Vec::new();
    let mut count = 0;
    for clip in clips {
        values.extend_from_slice(clip);
        count += 1;
    }
    let [channels, frames, height, width] = shape;
    let data = burn::tensor::TensorData::new(values, [count, channels, frames, height, width]);
    Tensor::from_data(data, device)
}
