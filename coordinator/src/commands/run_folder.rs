//! What lies where in a run's folder.

use std::fs;
use std::path::{Path, PathBuf};

use longtake_shared::config::Resolved;
use longtake_shared::hint::{ExitCode, Failure};
use longtake_shared::units::Seconds;

use crate::terminal::summary::Summary;

/// The folder of one run.
#[derive(Debug, Clone)]
pub(super) struct RunFolder(pub(super) PathBuf);

impl RunFolder {
    /// The weights of the best validation.
    pub(super) fn best_weights(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// Where the settings are stored that the run was started with.
    pub(super) fn stored_settings_file(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// Refuses a path that names no folder of a run.
    pub(super) fn require(&self) -> Result<(), Failure> {
        let (path, hint) =
            (self.0.display(), "give the folder that `longtake train` made, such as `runs/quickstart`");
        let message = if self.stored_settings_file().exists() {
            return Ok(());
        } else if self.0.is_dir() {
            format!("`{path}` is not the folder of a run: it holds no `config.json`")
        } else if self.0.exists() {
            format!("`{path}` is not the folder of a run, but a file")
        } else {
            let here = std::env::current_dir().unwrap_or_default();
            let seen_from =
                if self.0.is_relative() { format!(" in `{}`", here.display()) } else { String::new() };
            format!("there is no folder `{path}`{seen_from}")
        };
        Err(Failure::new(message).hint(hint).never_restart())
    }

    /// Those settings.
    pub(super) fn stored_settings(&self) -> Result<Resolved, Failure> {
        self.require()?;
        let path = self.stored_settings_file();
        let text = fs::read_to_string(&path).map_err(|error| Failure {
            exit: ExitCode::of_named_file(&error),
            ..Failure::new(format!("`{}` cannot be read: {error}", path.display()))
        })?;
        Ok(Resolved::from_json(&text)?)
    }

    /// Detections of the last validation, in the ActivityNet layout.
    pub(super) fn results(&self) -> PathBuf {
        self.0.join("results.json")
    }

    /// Every update of the run.
    pub(super) fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// Detections beside the ground truth.
    pub(super) fn timeline(&self) -> PathBuf {
        self.0.join("timeline.svg")
    }

    /// One log a process, sorted by name.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("logs"));
        let mut logs: Vec<PathBuf> =
            entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.sort();
        logs
    }

    /// What there is to see after `elapsed`.
    pub(super) fn summary(&self, elapsed: Seconds) -> Summary {
        let there = |path: PathBuf| Some(path).filter(|path| path.exists());
        Summary {
            run: self.0.clone(),
            results: there(self.results()),
            metrics: self.metrics(),
            logs: self.logs(),
            best_weights: there(self.best_weights()),
            checkpoints: there(self.0.join("checkpoints")),
            timeline: there(self.timeline()),
            elapsed,
        }
    }
}

/// A path that may name a run's folder or a file of weights: the weights.
pub(super) fn weights_of(path: &Path) -> PathBuf {
    if path.is_dir() { RunFolder(path.to_owned()).best_weights() } else { path.to_owned() }
}
