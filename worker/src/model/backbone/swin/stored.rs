//! The tensors of a file of weights, PyTorch's or safetensors, whose values are read when they are asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use burn::store::pytorch_reader::{DType, PytorchReader};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// A tensor of a file.
pub(super) struct Stored {
    /// Outermost axis first.
    pub(super) shape: Vec<usize>,
    /// The type of its elements, as the file's reader calls it.
    pub(super) dtype: String,
    /// Its values; nothing where they are no floats.
    pub(super) values: Box<dyn Fn() -> Result<Option<Vec<f32>>, String>>,
}

/// The tensors of a file by name; its content says of which kind it is, not its name.
pub(super) fn tensors(path: &Path) -> Result<BTreeMap<String, Stored>, String> {
    if is_safetensors(path).map_err(|error| error.to_string())? {
        of_safetensors(path)
    } else {
        of_pytorch(path)
    }
}

/// A safetensors file begins with the length of its header in eight bytes, then the header, a JSON object.
fn is_safetensors(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(9).read_to_end(&mut start)?;
    Ok(start.get(8) == Some(&b'{'))
}

fn of_safetensors(path: &Path) -> Result<BTreeMap<String, Stored>, String> {
    let bytes = Arc::new(fs::read(path).map_err(|error| error.to_string())?);
    // Checks that all tensors lie within the file.
    SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|error| error.to_string())?;
    let stored = header.tensors().into_iter().map(|(name, info)| {
        let (from, to) = info.data_offsets;
        let (range, dtype, bytes) = (8 + length + from..8 + length + to, info.dtype, Arc::clone(&bytes));
        let values = move || Ok(floats_of_safetensors(&bytes[range.clone()], dtype));
        let (shape, dtype) = (info.shape.clone(), format!("{:?}", info.dtype));
        (name, Stored { shape, dtype, values: Box::new(values) })
    });
    Ok(stored.collect())
}

fn of_pytorch(path: &Path) -> Result<BTreeMap<String, Stored>, String> {
    let reader = PytorchReader::new(path).map_err(|error| error.to_string())?;
    let stored = reader.into_tensors().into_iter().map(|(name, tensor)| {
        let (shape, dtype) = (tensor.shape().to_vec(), format!("{:?}", tensor.dtype()));
        let values = move || {
            let bytes = tensor.read().map_err(|error| error.to_string())?;
            Ok(floats(&bytes, tensor.dtype()))
        };
        (name, Stored { shape, dtype, values: Box::new(values) })
    });
    Ok(stored.collect())
}

/// Values of a safetensors file; nothing where they are no floats.
pub(super) fn floats_of_safetensors(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let dtype = match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        _ => return None,
    };
    floats(bytes, dtype)
}

fn floats(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
    Some(match dtype {
        DType::F32 => decode(bytes, f32::from_ne_bytes),
        DType::F64 => decode(bytes, |bytes| f64::from_ne_bytes(bytes) as f32),
        DType::F16 => decode(bytes, |bytes| f16::from_ne_bytes(bytes).to_f32()),
        DType::BF16 => decode(bytes, |bytes| bf16::from_ne_bytes(bytes).to_f32()),
        _ => return None,
    })
}

fn decode<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}
