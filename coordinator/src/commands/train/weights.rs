//! The weights that a run begins with: what they fit, told before a worker starts.

use std::fmt::Write as _;

use longtake_shared::config::RunConfig;
use longtake_shared::hint::Failure;
use longtake_shared::role::WeightsReport;

use crate::terminal::console::Console;
use crate::worker_role::WorkerRole;

/// Names of a list that are told; the workers' logs have all of them.
const NAMES: usize = 3;

/// Refuses weights that do not fit the backbone, and tells what becomes of those that do.
pub(super) fn check(config: &RunConfig, worker: WorkerRole, console: Console) -> Result<(), Failure> {
    let file = &config.model.backbone.weights;
    if !file.is_empty() {
        let report = (worker.starting_weights)(config).map_err(Failure::never_restart)?;
        console.say(&table(file, &report));
    }
    Ok(())
}

fn table(file: &str, report: &WeightsReport) -> String {
    let mut text = format!("the backbone begins with `{file}` (all names are in the logs of the workers)");
    for (what, names) in [
        ("used", &report.used),
        ("not in the file, begin at random", &report.missing),
        ("in the file, not used", &report.unused),
    ] {
        let shown: Vec<String> = names.iter().take(NAMES).map(|name| format!("`{name}`")).collect();
        let more = if names.len() > NAMES { ", ..." } else { "" };
        let _ = write!(text, "\n  {:>5} {what:<32}  {}{more}", names.len(), shown.join(", "));
    }
    // Lists without names end in blanks.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_with_the_first_names() {
        let names = |count: usize| (0..count).map(|number| format!("layer.{number}")).collect();
        let report = WeightsReport { used: names(120), missing: names(1), unused: Vec::new() };
        assert_eq!(
            table("w.safetensors", &report),
            "the backbone begins with `w.safetensors` (all names are in the logs of the workers)\n\
             \x20   120 used                              `layer.0`, `layer.1`, `layer.2`, ...\n\
             \x20     1 not in the file, begin at random  `layer.0`\n\
             \x20     0 in the file, not used"
        );
    }
}
