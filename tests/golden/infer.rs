//! Golden cases of this part of the model.

use crate::support::Runner;

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] = &[];
