//! COUNT: the loss normaliser of a step, from ground truth alone, before anything passes through the model.
//!
//! Takes: this rank's part ([`crate::model::heads::Localizer::count`]). Gives: N, its sum over all ranks.
//! Next: [`crate::train::step`].

use crate::collective::{CollectiveError, SharedCollective};

/// N over all ranks; 1 where every lane of every rank is idle, so that nothing is divided by zero.
///
/// # Errors
/// The generation was aborted or a peer was lost.
pub fn agree(local: f32, collective: &SharedCollective) -> Result<f32, CollectiveError> {
    let mut values = [local];
    collective.with(|collective| collective.all_reduce(&mut values))?;
    Ok(values[0].max(1.0))
}
