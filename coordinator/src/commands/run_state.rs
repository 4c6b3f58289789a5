//! How a run stands that no coordinator answers for, from what it has left in its folder, and what to do about it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use longtake_shared::hint::Failure;

use super::run_folder::RunFolder;
use crate::operator::OperatorError;
use crate::server::address::AddressError;
use crate::terminal::phrases::shell;
use crate::updates::{Outcome, RunUpdate};

/// Bytes at the end of `metrics.jsonl` that hold its last line: a failure tells the last lines of a log.
const TAIL: u64 = 256 << 10;

/// Why the coordinator of a run could not be asked, in the words of the run.
pub(super) fn unanswered(run: &Path, error: OperatorError) -> Failure {
    let folder = RunFolder(run.to_owned());
    match error {
        OperatorError::Address(AddressError::NotRunning { .. }) => folder
            .require()
            .err()
            .unwrap_or_else(|| not_running(run, last_outcome(&folder.metrics()).as_ref())),
        OperatorError::NoAnswer { pid, address, .. } => {
            let message = format!(
                "the coordinator of the run in `{}` (process {pid}) does not answer at {address}",
                run.display()
            );
            Failure::new(message).hint(format!(
                "if that process is gone, go on with `longtake train --resume {0}` (`longtake coordinator --resume {0}` \
                 where agents wait for it)",
                shell(run)
            ))
        }
        other => other.into(),
    }
}

/// How a run that nobody works on came to its last end; nothing where it did not come to one in order.
fn not_running(run: &Path, outcome: Option<&Outcome>) -> Failure {
    let (folder, typed) = (run.display(), shell(run));
    let resume = format!("go on with `longtake train --resume {typed}`");
    match outcome {
        Some(Outcome::Done) => Failure::new(format!("the run in `{folder}` has ended: it is done")).hint(format!(
            "there is nothing to go on with; `{folder}/results.json` and `{folder}/best.safetensors` are what it found"
        )),
        Some(Outcome::Preempted { step }) => {
            Failure::new(format!("the run in `{folder}` is not running: it was stopped after {step}")).hint(resume)
        }
        Some(Outcome::Failed { cause, never_restart, .. }) => {
            let hint = if *never_restart { format!("mend that first, then {resume}") } else { resume };
            Failure::new(format!("the run in `{folder}` is not running: it has failed: {cause}")).hint(hint)
        }
        None => Failure::new(format!("the run in `{folder}` is not running, and did not end in order")).hint(resume),
    }
}

/// The outcome that the last line of `metrics.jsonl` tells.
fn last_outcome(metrics: &Path) -> Option<Outcome> {
    let mut file = File::open(metrics).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let last = tail.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty())?;
    match serde_json::from_slice(last) {
        Ok(RunUpdate::Finished { outcome }) => Some(outcome),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use longtake_shared::hint::ExitCode;
    use longtake_shared::ids::Step;

    use super::*;
    use crate::terminal::metrics_file::MetricsFile;

    fn said(failure: &Failure) -> String {
        format!("{}; {}", failure.message, failure.hint.as_deref().unwrap_or_default())
    }

    fn asked(run: &Path) -> Failure {
        let folder = run.to_owned();
        unanswered(run, OperatorError::Address(AddressError::NotRunning { folder }))
    }

    #[test]
    fn a_run_that_nobody_works_on_is_told_by_what_it_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("my run");
        let failure = asked(&run);
        assert!(failure.message.starts_with("there is no folder"), "{}", said(&failure));
        assert_eq!(failure.exit, ExitCode::NeverRestart);
        std::fs::create_dir(&run).unwrap();
        assert!(asked(&run).message.contains("is not the folder of a run"), "{}", said(&asked(&run)));

        std::fs::write(run.join("config.json"), "{}").unwrap();
        assert!(asked(&run).message.contains("did not end in order"), "{}", said(&asked(&run)));
        let mut metrics = MetricsFile::open(&run.join("metrics.jsonl")).unwrap();
        let mut ends = |outcome| {
            metrics.append(&RunUpdate::Finished { outcome }).unwrap();
            said(&asked(&run))
        };
        let stopped = ends(Outcome::Preempted { step: Step(7) });
        assert!(stopped.contains("stopped after step 7") && stopped.contains("--resume '/"), "{stopped}");
        let done = ends(Outcome::Done);
        assert!(done.contains("it is done") && !done.contains("--resume"), "{done}");
        metrics.append(&RunUpdate::Gathering { present: 0, needed: 1 }).unwrap();
        assert!(asked(&run).message.contains("did not end in order"), "it began again and was killed");
    }
}
