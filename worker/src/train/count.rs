//! COUNT: the loss normaliser of a step, from ground truth alone, before anything passes through the model.
//!
//! Takes: this rank's samples. Gives: N = sum over the samples of all ranks of max(positive anchors, 1).
//! Next: [`crate::train::step`].

use super::step::LaneInput;
use crate::collective::{Collective, CollectiveError};
use crate::loss::Criterion;

/// What this rank's samples contribute: positive anchors, and N (spec 50, section 2).
pub fn local(criterion: &Criterion, inputs: &[LaneInput]) -> (f32, f32) {
    inputs.iter().filter_map(|input| input.sample.as_ref()).fold((0.0, 0.0), |(positives, normaliser), sample| {
        let count = criterion.targets(&sample.plan.actions).positives() as f32;
        (positives + count, normaliser + count.max(1.0))
    })
}

/// N over all ranks; 1 where every lane of every rank is idle, so that nothing is divided by zero.
///
/// # Errors
/// The generation was aborted or a peer was lost.
pub fn agree(local: f32, collective: &mut dyn Collective) -> Result<f32, CollectiveError> {
    let mut values = [local];
    collective.all_reduce(&mut values)?;
    Ok(values[0].max(1.0))
}
