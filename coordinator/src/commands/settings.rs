//! From files and `--set` to settings and annotations.

use std::path::Path;

use longtake_shared::config::{RunConfig, SynthConfig};
use longtake_shared::hint::Failure;

use super::pictures::Truth;
use crate::cli::Overrides;

/// The settings of a configuration file with what was typed on top.
pub(super) fn load(file: &Path, _overrides: &Overrides) -> Result<RunConfig, Failure> {
    Err(Failure::new(format!("the configuration `{}` cannot be read by this build", file.display())))
}

/// The same, where a file is named.
pub(super) fn load_optional(
    file: Option<&Path>,
    overrides: &Overrides,
) -> Result<Option<Box<RunConfig>>, Failure> {
    file.map(|file| load(file, overrides).map(Box::new)).transpose()
}

/// What `longtake synth` makes.
pub(super) fn synth(_overrides: &Overrides) -> Result<SynthConfig, Failure> {
    Ok(SynthConfig::default())
}

/// Annotated segments by video, from a file in the ActivityNet layout.
pub(super) fn annotated(file: &Path) -> Result<Truth, Failure> {
    Err(Failure::new(format!("the annotations `{}` cannot be read by this build", file.display())))
}
