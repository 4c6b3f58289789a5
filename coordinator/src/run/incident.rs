//! What ended a generation: the first cause in causal order, not the first that was heard of.

use std::fmt;

use longtake_shared::ids::Rank;
use longtake_shared::units::Seconds;
use serde::{Deserialize, Serialize};

use super::event::Doing;

/// How near to the cause a report is. A death makes collectives fail and never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nearness {
    /// Something that a loss elsewhere may have caused.
    Consequence,
    /// A loss.
    Cause,
}

/// What ended a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// How near to the cause this is.
    pub nearness: Nearness,
    /// What happened, as a sentence.
    pub cause: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whose it was, where it was a worker's.
    pub rank: Option<Rank>,
    /// What that worker did last.
    pub doing: Option<Doing>,
    /// The last lines of its log.
    pub log: Vec<String>,
}

impl Incident {
    /// Something that is no single worker's.
    pub fn new(nearness: Nearness, cause: String) -> Self {
        Self { nearness, cause, hint: None, rank: None, doing: None, log: Vec::new() }
    }

    /// Takes the place of what was known where it is nearer to the cause; what came first stands otherwise.
    #[must_use]
    pub fn or_nearer(self, other: Self) -> Self {
        if other.nearness > self.nearness { other } else { self }
    }
}

/// As a sentence: what happened, and what the worker did then.
impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if let Some(Doing { step, phase, since: Seconds(seconds) }) = self.doing {
            write!(f, ", in {} of {step} for {seconds:.1} s", phase.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_explains_a_failed_collective_and_the_first_death_stands() {
        let incident = |nearness, cause: &str| Incident::new(nearness, cause.into());
        let told = incident(Nearness::Consequence, "the ring broke")
            .or_nearer(incident(Nearness::Cause, "worker 1 died"))
            .or_nearer(incident(Nearness::Cause, "worker 2 died"))
            .or_nearer(incident(Nearness::Consequence, "another ring broke"));
        assert_eq!(told.cause, "worker 1 died");
    }
}
