//! Named tensors as a safetensors file, the same bytes for the same content.
//!
//! The safetensors crate reads; the header is written here, because the crate writes its metadata in the order of a hash
//! map, and a part is named by the hash of its bytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};
use longtake_shared::hint::Hint;
use longtake_shared::objects::PutPayload;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A file of named tensors and notes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TensorFile {
    /// The tensors; names are distinct. Decoding gives them sorted by name.
    pub tensors: Vec<NamedTensor>,
    /// Notes by name.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its name, e.g. `backbone.patch_embed.proj.weight`.
    pub name: String,
    /// Its dimensions, outermost first; empty for a single number.
    pub shape: Vec<usize>,
    /// Its values, row by row.
    pub data: TensorData,
}

/// Values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats with 5 bits of exponent.
    F16(Vec<f16>),
    /// 16-bit floats with 8 bits of exponent.
    Bf16(Vec<bf16>),
    /// Signed integers.
    I64(Vec<i64>),
    /// Unsigned integers.
    U64(Vec<u64>),
}

/// Bytes that are no such file, or tensors that make none.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// Not safetensors.
    #[error("the tensor file cannot be read")]
    Unreadable(#[from] safetensors::SafeTensorError),
    /// A type that Longtake does not write.
    #[error("tensor `{name}` has type {dtype:?}, which is not one of F32, F16, BF16, I64 and U64")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
    /// Shape and values do not agree.
    #[error("tensor `{name}` has {values} values and the shape {shape:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its values.
        values: usize,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Two tensors of one name.
    #[error("there are two tensors `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
}

impl Hint for TensorFileError {}

impl TensorData {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The safetensors type of the values.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::BF16,
            Self::I64(_) => Dtype::I64,
            Self::U64(_) => Dtype::U64,
        }
    }

    fn of(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Self, TensorFileError> {
        Ok(match dtype {
            Dtype::F32 => Self::F32(values(bytes)),
            Dtype::F16 => Self::F16(values(bytes)),
            Dtype::BF16 => Self::Bf16(values(bytes)),
            Dtype::I64 => Self::I64(values(bytes)),
            Dtype::U64 => Self::U64(values(bytes)),
            dtype => return Err(TensorFileError::Type { name: name.to_owned(), dtype }),
        })
    }
}

/// The values' bytes, as a file holds them.
impl AsRef<[u8]> for TensorData {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F16(values) => bytemuck::cast_slice(values),
            Self::Bf16(values) => bytemuck::cast_slice(values),
            Self::I64(values) => bytemuck::cast_slice(values),
            Self::U64(values) => bytemuck::cast_slice(values),
        }
    }
}

/// Values out of bytes that lie at any address; a safetensors file has whole values.
fn values<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

/// What comes before the values: the length of the header, and the header, which says where each of them lies.
fn header(order: &[&NamedTensor], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, TensorFileError> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut offset = 0;
    for tensor in order {
        if tensor.shape.iter().product::<usize>() != tensor.data.len() {
            return Err(TensorFileError::Shape {
                name: tensor.name.clone(),
                values: tensor.data.len(),
                shape: tensor.shape.clone(),
            });
        }
        let end = offset + tensor.data.as_ref().len();
        let entry =
            json!({"dtype": tensor.data.dtype(), "shape": tensor.shape, "data_offsets": [offset, end]});
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(TensorFileError::Twice { name: tensor.name.clone() });
        }
        offset = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + text.len());
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&text);
    Ok(bytes)
}

impl NamedTensor {
    /// A tensor of 32-bit floats.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { name: name.into(), shape, data: TensorData::F32(values) }
    }

    /// The values of a tensor of 32-bit floats; nothing for another type.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        if let TensorData::F32(values) = self.data { Some(values) } else { None }
    }

    /// Wide types come first.
    fn place_in_file(&self) -> (Reverse<usize>, &str) {
        (Reverse(self.data.dtype().bitsize()), &self.name)
    }
}

impl TensorFile {
    /// As bytes: wide types first, so that each tensor is aligned, then by name.
    ///
    /// # Errors
    /// Two tensors of one name, or a shape that does not hold the values.
    pub fn encode(&self) -> Result<Vec<u8>, TensorFileError> {
        let mut order: Vec<&NamedTensor> = self.tensors.iter().collect();
        order.sort_by(|a, b| a.place_in_file().cmp(&b.place_in_file()));
        let mut bytes = header(&order, &self.metadata)?;
        bytes.reserve_exact(order.iter().map(|tensor| tensor.data.as_ref().len()).sum());
        for tensor in order {
            bytes.extend_from_slice(tensor.data.as_ref());
        }
        Ok(bytes)
    }

    /// The same bytes in pieces, without a second copy of the values.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn into_payload(mut self) -> Result<PutPayload, TensorFileError> {
        self.tensors.sort_by(|a, b| a.place_in_file().cmp(&b.place_in_file()));
        let first = header(&self.tensors.iter().collect::<Vec<_>>(), &self.metadata)?;
        let values = self.tensors.into_iter().map(|tensor| Bytes::from_owner(tensor.data));
        Ok(std::iter::once(Bytes::from(first)).chain(values).collect())
    }

    /// The notes alone, from the beginning of a file up to the end of its header; nothing where that is no such header.
    pub fn notes(header: &[u8]) -> Option<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Header {
            #[serde(rename = "__metadata__", default)]
            metadata: BTreeMap<String, String>,
        }
        let (length, text) = header.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        serde_json::from_slice::<Header>(text.get(..length)?).ok().map(|header| header.metadata)
    }

    /// From bytes.
    ///
    /// # Errors
    /// Not safetensors, or a type that is not one of [`TensorData`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TensorFileError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let mut views = SafeTensors::deserialize(bytes)?.tensors();
        views.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tensors = Vec::with_capacity(views.len());
        for (name, view) in views {
            let data = TensorData::of(&name, view.dtype(), view.data())?;
            tensors.push(NamedTensor { shape: view.shape().to_vec(), data, name });
        }
        Ok(Self { tensors, metadata })
    }
}
