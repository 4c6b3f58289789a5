//! The incident that ended a generation: the first cause in causal order, not in order of arrival.

use std::fmt;

use longtake_shared::ids::Rank;
use longtake_shared::protocol::Doing;
use longtake_shared::units::Seconds;
use serde::{Deserialize, Serialize};

/// Causal order of incidents: the death of a worker makes collectives fail, never the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nearness {
    /// A failure that the loss of another worker may have caused.
    Consequence,
    /// The loss of a worker.
    Cause,
}

/// The incident that ended a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its place in the causal order.
    pub nearness: Nearness,
    /// The event, as a sentence.
    pub cause: String,
    /// Advice for the user.
    pub hint: Option<String>,
    /// Rank of the worker, if it concerns one.
    pub rank: Option<Rank>,
    /// The last activity of that worker.
    pub doing: Option<Doing>,
    /// The last lines of that worker's log.
    pub log: Vec<String>,
}

impl Incident {
    /// An incident without a worker.
    pub fn new(nearness: Nearness, cause: String) -> Self {
        Self { nearness, cause, hint: None, rank: None, doing: None, log: Vec::new() }
    }

    /// The nearer of two incidents to the cause; the first one if both are equally near.
    #[must_use]
    pub fn or_nearer(self, other: Self) -> Self {
        if other.nearness > self.nearness { other } else { self }
    }
}

/// A sentence with the event and the last activity of the worker.
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
