//! What must be true before a run starts: settings that fit together, a data set that is there.

use std::path::Path;

use longtake_shared::config::{self, Resolved, RunConfig};
use longtake_shared::dataset::{self, Dataset, Subset};
use longtake_shared::hint::Failure;
use longtake_shared::lanes::Lanes;
use longtake_shared::random::Key;
use longtake_shared::role::SynthRequest;
use longtake_shared::stop::Stop;

use crate::cli::{Overrides, TrainArgs};
use crate::commands::Session;
use crate::commands::run_folder::RunFolder;
use crate::commands::{settings, synth, tell};
use crate::terminal::console::Console;
use crate::terminal::phrases::shell;

/// A run that may start.
pub(super) struct Prepared {
    /// Its settings and where they come from.
    pub(super) resolved: Resolved,
    /// Its folder.
    pub(super) folder: RunFolder,
    /// What it goes on from.
    pub(super) origin: Origin,
    /// Whether that may be a checkpoint of other settings, data or decoders.
    pub(super) allow_changes: bool,
}

/// What a run goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing: it is a new one.
    Nothing,
    /// Its folder, and its newest checkpoint where it has come to one.
    Folder,
    /// Its checkpoints behind `checkpoint.url` alone: this machine has no folder of it.
    Store,
}

/// The settings that `longtake train` was given, or those of the run it goes on with.
pub(super) fn settings(args: &TrainArgs) -> Result<Prepared, Failure> {
    let Some(run) = &args.resume else {
        let config = args.config.as_deref().unwrap_or(Path::new(""));
        return new_run(config, &with_weights(&args.overrides, args.init.as_deref()));
    };
    let folder = RunFolder(run.clone());
    if let Some(config) = args.config.as_deref().filter(|_| !folder.stored_settings_file().exists()) {
        let resolved = settings::load(config, &args.overrides)?;
        if !resolved.config.checkpoint.url.is_empty() {
            let allow_changes = args.allow_different_config || resolved.config.checkpoint.allow_changes;
            return Ok(Prepared { resolved, folder, origin: Origin::Store, allow_changes });
        }
    }
    let stored = folder.stored_settings()?;
    let resolved = match &args.config {
        Some(config) => settings::load(config, &args.overrides)?,
        None => settings::changed(&stored, &args.overrides)?,
    };
    let allow_changes = args.allow_different_config || resolved.config.checkpoint.allow_changes;
    let differences = config::differences(&stored.config, &resolved.config);
    if !differences.is_empty() && !allow_changes {
        let message = format!(
            "the run `{}` was started with other settings: {}",
            run.display(),
            differences.join("; ")
        );
        return Err(Failure::new(message)
            .hint("give the same settings, or add --allow-different-config")
            .never_restart());
    }
    Ok(Prepared { resolved, folder, origin: Origin::Folder, allow_changes })
}

/// A run that starts from the beginning, in a folder that holds none yet.
pub(super) fn new_run(config: &Path, overrides: &Overrides) -> Result<Prepared, Failure> {
    let resolved = settings::load(config, overrides)?;
    let run = &resolved.config.run;
    let folder = RunFolder(Path::new(&run.folder).join(&run.name));
    if folder.stored_settings_file().exists() {
        let (path, typed) = (folder.0.display(), shell(&folder.0));
        return Err(Failure::new(format!("the folder `{path}` already holds a run"))
            .hint(format!(
                "go on with `longtake train --resume {typed}`, or name another with `--set run.name=...`"
            ))
            .never_restart());
    }
    Ok(Prepared { resolved, folder, origin: Origin::Nothing, allow_changes: false })
}

/// `--init` is a setting with a shorter name.
fn with_weights(overrides: &Overrides, weights: Option<&Path>) -> Overrides {
    let mut overrides = overrides.clone();
    let quoted = weights.map(|path| serde_json::Value::from(path.display().to_string()));
    overrides.set.extend(quoted.map(|path| format!("model.backbone.weights={path}")));
    overrides
}

/// Leaves only the pretraining of a run: a run without epochs ends after it.
pub(super) fn leave_out_training(config: &mut RunConfig) -> Result<(), Failure> {
    if config.pretrain.steps == 0 {
        return Err(Failure::new("`pretrain.steps` is 0, so there is nothing to pretrain")
            .hint("add `--set pretrain.steps=300`")
            .never_restart());
    }
    config.train.epochs = 0;
    Ok(())
}

/// Makes the data set that the configuration describes, where its annotations do not exist yet.
pub(super) fn make_data(config: &RunConfig, stop: &Stop, session: &Session) -> Result<(), Failure> {
    let annotations = Path::new(&config.data.annotations);
    let Some(wanted) = config.synth.as_ref().filter(|_| !annotations.exists()) else { return Ok(()) };
    let folder = annotations.parent().unwrap_or(Path::new(""));
    let request = SynthRequest { synth: wanted.clone(), folder: folder.to_owned() };
    if request.annotations() != annotations || request.videos() != Path::new(&config.data.videos) {
        let message = format!(
            "`[synth]` makes `{}` and `{}`, but `data.annotations` and `data.videos` name others",
            request.annotations().display(),
            request.videos().display(),
        );
        return Err(Failure::new(message).hint("name those, or remove `[synth]`").never_restart());
    }
    let made = synth::make(&request, session.worker("synth")?, stop, &session.console)?;
    session.console.say(&format!("made {} in {}", synth::content(&made), folder.display()));
    Ok(())
}

/// The data set, with what was dropped or renamed told as warnings.
pub(super) fn dataset(config: &RunConfig, console: Console) -> Result<Dataset, Failure> {
    settings::require_paths(config)?;
    let dataset = dataset::load(&config.data).map_err(|error| Failure::from(error).never_restart())?;
    tell(&dataset.remarks, console);
    Ok(dataset)
}

/// How the training videos are dealt to lanes.
pub(super) fn lanes(config: &RunConfig, dataset: &Dataset) -> Result<Lanes, Failure> {
    Lanes::deal(Key::root(config.run.seed), config.train.lanes, &dataset.subset(Subset::Training))
        .map_err(|error| Failure::from(error).never_restart())
}
