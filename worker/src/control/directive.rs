//! The orders for the training thread, in the form in which it takes them.

use std::net::SocketAddr;
use std::path::PathBuf;

use longtake_shared::ids::{Generation, Incarnation, LaneId, Rank, RunId, Step};
use longtake_shared::protocol::{Carried, Formation, GenerationInputs, Identity, Malformed};

/// An order for the training thread.
#[derive(Debug, Clone, PartialEq)]
pub enum Directive {
    /// A generation is formed: load its state, reach the peers, then report ready.
    Form(Box<Assignment>),
    /// Every rank is ready: start to train.
    Train {
        /// The generation.
        generation: Generation,
    },
    /// The generation is over; its collectives are aborted.
    Abort {
        /// The generation.
        generation: Generation,
        /// The cause, as a sentence.
        reason: String,
    },
    /// The report of a validation is complete.
    Validated {
        /// Steps trained before the validation.
        step: Step,
        /// Mean AP over classes, then over tIoU thresholds.
        average_map: f64,
        /// Whether no earlier validation was better.
        best: bool,
    },
    /// End the process.
    Shutdown,
}

/// A worker's part in a generation, and everything it needs to take part.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The run.
    pub run: RunId,
    /// The coordinator start that formed the generation.
    pub incarnation: Incarnation,
    /// The generation.
    pub generation: Generation,
    /// Rank of this worker.
    pub rank: Rank,
    /// Number of ranks.
    pub world: usize,
    /// Address of each rank's collective.
    pub peers: Vec<SocketAddr>,
    /// The lanes of each rank.
    pub lanes: Vec<Vec<LaneId>>,
    /// The run's folder.
    pub run_folder: PathBuf,
    /// The validated settings with their sources: JSON of [`longtake_shared::config::Resolved`].
    pub settings_json: String,
    /// The manifest of the newest checkpoint, if there is one.
    pub resume: Option<serde_json::Value>,
    /// How the members continue from the state they hold; absent: all load `resume`, or start anew.
    pub carried: Option<Carried>,
}

impl Assignment {
    /// The assignment of the rank of `identity`.
    ///
    /// # Errors
    /// The manifest is not JSON.
    pub(super) fn new(
        identity: &Identity,
        formation: Formation,
        inputs: &GenerationInputs,
    ) -> Result<Self, Malformed> {
        let Formation { peers, lanes, carried } = formation;
        let resume =
            inputs.resume_json.as_deref().map(serde_json::from_str).transpose().map_err(|error| {
                Malformed::Field {
                    field: "form.resume_json",
                    value: error.to_string(),
                    expected: "a manifest",
                }
            })?;
        Ok(Self {
            run: identity.run.clone(),
            incarnation: identity.incarnation,
            generation: identity.generation,
            rank: identity.rank,
            world: peers.len(),
            peers,
            lanes,
            run_folder: PathBuf::from(&inputs.run_folder),
            settings_json: inputs.settings_json.clone(),
            resume,
            carried,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_has_the_rank_of_its_order_and_a_manifest_that_is_json() {
        let identity = Identity { generation: Generation(2), rank: Rank(1), ..Identity::default() };
        let peers = vec!["127.0.0.1:4000".parse().unwrap(), "127.0.0.1:4001".parse().unwrap()];
        let formation = Formation { peers, lanes: vec![vec![LaneId(0)], vec![LaneId(1)]], carried: None };
        let inputs = |resume: &str| GenerationInputs {
            run_folder: "runs/run".into(),
            settings_json: "{}".into(),
            resume_json: Some(resume.into()),
        };
        let assignment = Assignment::new(&identity, formation.clone(), &inputs("{\"step\":3}")).unwrap();
        assert_eq!((assignment.generation, assignment.rank, assignment.world), (Generation(2), Rank(1), 2));
        assert_eq!(assignment.resume, Some(serde_json::json!({"step": 3})));
        let refused = Assignment::new(&identity, formation, &inputs("{")).unwrap_err();
        assert!(matches!(refused, Malformed::Field { field: "form.resume_json", .. }));
    }
}
