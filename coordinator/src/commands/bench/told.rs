//! What a run of the benchmark has told in its metrics.jsonl, read as it grows.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use longtake_shared::ids::Step;

use crate::updates::{Incident, Progress, RunUpdate, Stage};

/// In the numbers of a step; what only says how far a stage is lacks it.
const OF_A_STEP: &str = "positives";

/// Everything that was told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line that was not whole at the last look.
    rest: Vec<u8>,
    /// Steps of the training, in the order in which they were told.
    pub(super) steps: Vec<Step>,
    /// What ended generations; nothing for one that all agreed to leave.
    pub(super) recoveries: Vec<Recovery>,
}

/// A generation that ended before its time.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Why.
    pub(super) incident: Option<Incident>,
    /// Steps that had been told before.
    pub(super) steps_before: usize,
}

/// What became of steps that were taken one after the other.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    /// From the first to the last one.
    pub(super) steps: u64,
    /// Numbers between them that were never told.
    pub(super) lost: u64,
    /// Numbers that were told before.
    pub(super) repeated: u64,
}

impl Told {
    /// Reads the file from its beginning, once there is one.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// Takes in what has been told since the last look.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => self.file.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        file.read_to_end(&mut self.rest)?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.take(serde_json::from_slice(line)?);
        }
        Ok(())
    }

    fn take(&mut self, update: RunUpdate) {
        match update {
            RunUpdate::Progress(Progress { stage: Stage::Train, done, numbers, .. })
                if numbers.contains_key(OF_A_STEP) =>
            {
                self.steps.push(Step(done));
            }
            RunUpdate::Recovered { incident, .. } => {
                self.recoveries.push(Recovery { incident, steps_before: self.steps.len() });
            }
            _ => {}
        }
    }

    /// Whether the newest of more than so many recoveries was followed by a step.
    pub(super) fn has_stepped_since(&self, recoveries: usize) -> bool {
        let newest = self.recoveries.last().filter(|_| self.recoveries.len() > recoveries);
        newest.is_some_and(|newest| self.steps.len() > newest.steps_before)
    }
}

impl Fate {
    /// Of steps in the order in which they were told.
    pub(super) fn of(steps: &[Step]) -> Self {
        let numbers: std::collections::BTreeSet<Step> = steps.iter().copied().collect();
        let (Some(Step(first)), Some(Step(last))) = (numbers.first(), numbers.last()) else {
            return Self::default();
        };
        let (taken, told) = (last - first + 1, numbers.len() as u64);
        Self { steps: taken, lost: taken - told, repeated: steps.len() as u64 - told }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use longtake_shared::ids::{Epoch, Generation};
    use longtake_shared::units::Seconds;

    use super::*;

    fn line(update: &RunUpdate) -> Vec<u8> {
        let mut line = serde_json::to_value(update).unwrap();
        line["at"] = 1.0.into();
        format!("{line}\n").into_bytes()
    }

    fn step(done: u64) -> RunUpdate {
        RunUpdate::Progress(Progress {
            stage: Stage::Train,
            done,
            total: 9,
            epoch: Epoch(0),
            loss: None,
            numbers: [(OF_A_STEP.to_owned(), 2.0)].into(),
            elapsed: Seconds(1.0),
        })
    }

    #[test]
    fn steps_and_recoveries_are_read_as_the_file_grows_and_half_a_line_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut told = Told::of(&path);
        told.look().unwrap();
        let mut file = File::create(&path).unwrap();
        let recovered =
            RunUpdate::Recovered { incident: None, generation: Generation(2), world: 1, goes_on_at: Step(1) };
        let (third, half) = (line(&step(3)), 11);
        file.write_all(&[line(&step(2)), line(&recovered), third[..half].to_vec()].concat()).unwrap();
        told.look().unwrap();
        assert_eq!((told.steps.as_slice(), told.recoveries.len()), (&[Step(2)][..], 1));
        assert!(!told.has_stepped_since(0));
        file.write_all(&third[half..]).unwrap();
        told.look().unwrap();
        assert_eq!(told.steps, [Step(2), Step(3)]);
        assert!(told.has_stepped_since(0) && !told.has_stepped_since(1));
    }

    #[test]
    fn a_step_that_is_missing_and_one_that_is_told_twice_are_counted() {
        let fate = |steps: &[u64]| Fate::of(&steps.iter().copied().map(Step).collect::<Vec<_>>());
        assert_eq!(fate(&[4, 5, 6]), Fate { steps: 3, lost: 0, repeated: 0 });
        assert_eq!(fate(&[4, 7, 6, 6]), Fate { steps: 4, lost: 1, repeated: 1 });
        assert_eq!(fate(&[]), Fate::default());
        assert_eq!(fate(&[4, 5, 6, 5, 6, 7]), Fate { steps: 4, lost: 0, repeated: 2 });
    }
}
