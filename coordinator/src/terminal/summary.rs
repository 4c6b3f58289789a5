//! What a run leaves behind, and how to go on from there.

use std::path::PathBuf;

use longtake_shared::units::Seconds;
use serde::Serialize;

use super::phrases::{length, shell};

/// Everything a user may want to open after a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The run's folder.
    pub run: PathBuf,
    /// The last validation's report, as JSON.
    pub results: Option<PathBuf>,
    /// Every update of the run.
    pub metrics: PathBuf,
    /// One log a process.
    pub logs: Vec<PathBuf>,
    /// The weights of the best validation.
    pub best_weights: Option<PathBuf>,
    /// The checkpoints.
    pub checkpoints: Option<PathBuf>,
    /// Detections and ground truth of some validation videos.
    pub timeline: Option<PathBuf>,
    /// How long the command took.
    pub elapsed: Seconds,
}

impl Summary {
    /// One line a thing, aligned.
    pub fn text(&self) -> String {
        let mut rows: Vec<(&str, String)> = Vec::new();
        let mut row = |name, path: Option<&PathBuf>| {
            rows.extend(path.map(|path| (name, path.display().to_string())));
        };
        row("results", self.results.as_ref());
        row("timeline", self.timeline.as_ref());
        row("best weights", self.best_weights.as_ref());
        row("checkpoints", self.checkpoints.as_ref());
        row("metrics", Some(&self.metrics));
        for (index, log) in self.logs.iter().enumerate() {
            row(if index == 0 { "logs" } else { "" }, Some(log));
        }
        rows.push(("took", length(self.elapsed)));
        let lines: Vec<String> = rows.iter().map(|(name, value)| format!("  {name:<14}{value}")).collect();
        let next = self.best_weights.as_ref().map_or(String::new(), |weights| {
            format!("\n\nFind actions in your own video: longtake detect {} VIDEO", shell(weights))
        });
        format!("{}{next}", lines.join("\n"))
    }
}
