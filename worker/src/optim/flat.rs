//! Flat vectors, one a group: parameters or gradients, on a device or on their way through a collective.

use std::ops::Add;

use burn::tensor::{Device, Tensor, TensorData};

use super::OptimError;
use super::layout::{FlatLayout, ParamGroup};

/// One value for each parameter that trains: a 1-D f32 tensor a group, without a tape.
#[derive(Debug, Clone)]
pub struct Flat {
    groups: Vec<(ParamGroup, Tensor<1>)>,
    lengths: [usize; 2],
}

impl Flat {
    pub(super) fn new(groups: Vec<(ParamGroup, Tensor<1>)>, lengths: [usize; 2]) -> Self {
        Self { groups, lengths }
    }

    /// From values in the order of [`FlatLayout::trained`].
    ///
    /// # Errors
    /// Another number of values than the layout has.
    pub fn from_host(layout: &FlatLayout, values: &[f32], device: &Device) -> Result<Self, OptimError> {
        if values.len() != layout.len() {
            return Err(OptimError::Length { expected: layout.len(), found: values.len() });
        }
        let device = device.clone().inner();
        let mut rest = values;
        let mut groups = Vec::new();
        for group in ParamGroup::TRAINED {
            let (values, after) = rest.split_at(layout.group_len(group));
            rest = after;
            if !values.is_empty() {
                let data = TensorData::new(values.to_vec(), [values.len()]);
                groups.push((group, Tensor::from_data(data, &device)));
            }
        }
        let lengths = ParamGroup::TRAINED.map(|group| layout.group_len(group));
        Ok(Self { groups, lengths })
    }

    /// The values in the order of [`FlatLayout::trained`].
    ///
    /// # Errors
    /// The device cannot give them (it ran out of memory earlier, say).
    pub fn to_host(&self) -> Result<Vec<f32>, OptimError> {
        let mut values = Vec::with_capacity(self.len());
        for (_, tensor) in &self.groups {
            values.extend(read(tensor, "flat vector")?);
        }
        Ok(values)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vector of a group; nothing where it has no parameters.
    pub fn group(&self, group: ParamGroup) -> Option<&Tensor<1>> {
        self.groups.iter().find(|(this, _)| *this == group).map(|(_, tensor)| tensor)
    }

    /// The groups that have parameters, in their order.
    pub fn groups(&self) -> impl Iterator<Item = (ParamGroup, &Tensor<1>)> {
        self.groups.iter().map(|(group, tensor)| (*group, tensor))
    }

    /// Each value times `factor`.
    #[must_use]
    pub fn scale(self, factor: f64) -> Self {
        self.map(|_, tensor| tensor * factor)
    }

    /// Euclidean norm of all values together. Rows are summed on the device, then in f64 in a fixed order, so that the
    /// same values have the same norm in every run.
    ///
    /// # Errors
    /// The device cannot give the sums.
    pub fn norm(&self) -> Result<f64, OptimError> {
        let mut sum = 0.0;
        for (_, tensor) in &self.groups {
            let length = tensor.dims()[0];
            let whole = length - length % NORM_ROW;
            let mut sums = Vec::new();
            if whole > 0 {
                let rows = tensor.clone().narrow(0, 0, whole).reshape([whole / NORM_ROW, NORM_ROW]);
                sums.extend(read(&rows.square().sum_dim(1).flatten::<1>(0, 1), "sums of squares")?);
            }
            if whole < length {
                sums.extend(read(
                    &tensor.clone().narrow(0, whole, length - whole).square().sum(),
                    "sum of squares",
                )?);
            }
            sum += sums.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(sum.sqrt())
    }

    pub(super) fn map(self, mut change: impl FnMut(ParamGroup, Tensor<1>) -> Tensor<1>) -> Self {
        let groups = self.groups.into_iter().map(|(group, tensor)| (group, change(group, tensor))).collect();
        Self { groups, lengths: self.lengths }
    }
}

impl Add for Flat {
    type Output = Self;

    /// The sum of two vectors of one layout.
    fn add(self, other: Self) -> Self {
        debug_assert_eq!(self.lengths, other.lengths, "both vectors belong to one layout");
        let groups =
            self.groups.into_iter().zip(other.groups).map(|((group, a), (_, b))| (group, a + b)).collect();
        Self { groups, lengths: self.lengths }
    }
}

/// Values that are summed as one row in f32.
const NORM_ROW: usize = 4096;

/// Added to the norm before dividing by it (`torch.nn.utils.clip_grad_norm_`).
const CLIP_EPSILON: f64 = 1e-6;

/// The gradients, scaled down so that their norm is at most `max_norm`, and the norm they had
/// (`torch.nn.utils.clip_grad_norm_`). 0 leaves them as they are.
///
/// # Errors
/// The device cannot give the norm.
pub fn clip(gradients: Flat, max_norm: f64) -> Result<(Flat, f64), OptimError> {
    let norm = gradients.norm()?;
    let factor = max_norm / (norm + CLIP_EPSILON);
    let clipped = if max_norm > 0.0 && factor < 1.0 { gradients.scale(factor) } else { gradients };
    Ok((clipped, norm))
}

fn read(tensor: &Tensor<1>, what: &'static str) -> Result<Vec<f32>, OptimError> {
    tensor.try_to_vec_as::<f32>().map_err(|error| OptimError::Read { what, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these numbers have no rounding")]

    use super::*;

    fn flat(backbone: &[f32], other: &[f32]) -> Flat {
        let device = Device::flex();
        let tensor =
            |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &device);
        Flat::new(
            vec![(ParamGroup::Backbone, tensor(backbone)), (ParamGroup::Other, tensor(other))],
            [backbone.len(), other.len()],
        )
    }

    #[test]
    fn vectors_are_added_group_by_group() {
        assert_eq!((flat(&[1.0], &[2.0]) + flat(&[10.0], &[20.0])).to_host().unwrap(), [11.0, 22.0]);
    }

    #[test]
    fn the_norm_is_that_of_all_groups_together() {
        let norm = flat(&vec![3.0; 5000], &[4.0]).norm().unwrap();
        assert!((norm - (5000.0f64 * 9.0 + 16.0).sqrt()).abs() < 1e-9, "{norm}");
    }

    #[test]
    fn clipping_scales_what_is_too_long_and_nothing_else() {
        let (same, norm) = clip(flat(&[3.0], &[4.0]), 6.0).unwrap();
        assert_eq!((same.to_host().unwrap(), norm), (vec![3.0, 4.0], 5.0));
        let (unlimited, _) = clip(flat(&[3.0], &[4.0]), 0.0).unwrap();
        assert_eq!(unlimited.to_host().unwrap(), [3.0, 4.0]);
        let (clipped, norm) = clip(flat(&[3.0], &[4.0]), 1.0).unwrap();
        let clipped = clipped.to_host().unwrap();
        assert!(
            (clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6 && norm == 5.0,
            "{clipped:?}"
        );
    }

    #[test]
    fn a_norm_that_is_not_finite_is_reported() {
        assert!(!flat(&[f32::NAN], &[1.0]).norm().unwrap().is_finite());
        assert!(!flat(&[f32::INFINITY], &[1.0]).norm().unwrap().is_finite());
    }
}
