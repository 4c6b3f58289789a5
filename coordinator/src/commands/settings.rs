//! From files, weights, the environment and `--set` to settings.

use std::path::Path;

use longtake_shared::config::{self, Resolved, RunConfig, SynthConfig};
use longtake_shared::hint::Failure;

use crate::cli::Overrides;

/// The settings of a configuration file with what was typed on top.
pub(super) fn load(file: &Path, overrides: &Overrides) -> Result<Resolved, Failure> {
    Ok(config::load(file, environment(), &overrides.set)?)
}

/// Settings that a run or its weights carry, with what was typed on top.
pub(super) fn changed(carried: &Resolved, overrides: &Overrides) -> Result<Resolved, Failure> {
    Ok(carried.changed(environment(), &overrides.set)?)
}

/// What `longtake synth` makes, without a configuration file.
pub(super) fn synth(overrides: &Overrides) -> Result<SynthConfig, Failure> {
    only(overrides, &["synth."], "`longtake synth`")?;
    Ok(without_file(overrides)?.config.synth.unwrap_or_default())
}

/// Defaults with what was typed on top.
pub(super) fn without_file(overrides: &Overrides) -> Result<Resolved, Failure> {
    Ok(config::load_without_file(environment(), &overrides.set)?)
}

/// Refuses a `--set` of a setting that a command does not look at; `keys` are those it does, sections with a dot at their end.
/// The environment may hold settings for other commands.
pub(super) fn only(overrides: &Overrides, keys: &[&str], command: &str) -> Result<(), Failure> {
    let named = |key: &str| {
        keys.iter().any(|known| key == *known || (known.ends_with('.') && key.starts_with(known)))
    };
    let idle =
        overrides.set.iter().filter_map(|set| Some(set.split_once('=')?.0.trim())).find(|key| !named(key));
    let Some(key) = idle else { return Ok(()) };
    // A setting that does not exist is told as such.
    without_file(overrides)?;
    let known: Vec<String> = keys
        .iter()
        .map(|key| {
            key.strip_suffix('.').map_or_else(|| format!("`{key}`"), |section| format!("`{section}.*`"))
        })
        .collect();
    Err(Failure::new(format!("`--set {key}` changes nothing here: {command} does not look at that setting"))
        .hint(format!("leave it out; what can be set here: {}", known.join(", ")))
        .never_restart())
}

/// Refuses settings whose relative paths lead nowhere, and says from where they were looked for.
pub(super) fn require_paths(config: &RunConfig) -> Result<(), Failure> {
    let paths = [
        ("data.annotations", &config.data.annotations),
        ("data.videos", &config.data.videos),
        ("data.classes", &config.data.classes),
        ("data.blocked", &config.data.blocked),
    ];
    let here = std::env::current_dir().unwrap_or_default();
    for (key, text) in paths {
        let path = Path::new(text);
        if !text.is_empty()
            && path.is_relative()
            && path.metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            let here = here.display();
            return Err(Failure::new(format!("`{key}` is `{text}`, which is not there in `{here}`"))
                .hint(
                    "relative paths are taken from the folder that `longtake` is started in: start it in another one, or \
                     write the whole path",
                )
                .never_restart());
        }
    }
    Ok(())
}

/// Variables whose names or values are not Unicode cannot be settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
