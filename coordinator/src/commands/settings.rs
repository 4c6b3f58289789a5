//! From files, the environment and `--set` to settings.

use std::path::Path;

use longtake_shared::config::{self, Resolved, RunConfig, SynthConfig};
use longtake_shared::hint::{ExitCode, Failure};

use crate::cli::Overrides;

/// The settings of a configuration file with what was typed on top.
pub(super) fn load(file: &Path, overrides: &Overrides) -> Result<Resolved, Failure> {
    config::load(file, environment(), &overrides.set).map_err(never_restart)
}

/// The same, where a file is named.
pub(super) fn load_optional(
    file: Option<&Path>,
    overrides: &Overrides,
) -> Result<Option<Box<RunConfig>>, Failure> {
    file.map(|file| load(file, overrides).map(|resolved| Box::new(resolved.config))).transpose()
}

/// What `longtake synth` makes, without a configuration file.
pub(super) fn synth(overrides: &Overrides) -> Result<SynthConfig, Failure> {
    let resolved = config::load_without_file(environment(), &overrides.set).map_err(never_restart)?;
    Ok(resolved.config.synth.unwrap_or_default())
}

/// Variables whose names or values are not Unicode cannot be settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Wrong settings are wrong at every restart too.
pub(super) fn never_restart(error: config::ConfigError) -> Failure {
    Failure { exit: ExitCode::NeverRestart, ..Failure::from(error) }
}
