//! The orders that a coordinator gives to workers.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::worker_order::Body;

use super::malformed::address;
use super::{Identity, Malformed, SavedStage, wire};
use crate::ids::{LaneId, Rank, Step};

/// An order for one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerOrder {
    /// The generation and rank it belongs to.
    pub identity: Identity,
    /// Its content.
    pub order: Order,
    /// With [`Order::Form`]: what every member of the generation receives alike.
    pub inputs: Option<Arc<GenerationInputs>>,
}

/// The content of an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// A generation is formed: load its state, reach the peers, then report ready.
    Form(Formation),
    /// A coordinator has taken over, or has found the agent again, and the generation continues: repeat every message that
    /// no order has answered, and `Ready` in any case.
    Adopted,
    /// Every rank is ready: start to train.
    Train,
    /// The generation is over: leave its collectives at once.
    Abort {
        /// The cause, as a sentence.
        reason: String,
    },
    /// Requests that the ranks agree on at their next step boundary.
    SetFlags(Flags),
    /// A checkpoint is in the chain.
    Committed {
        /// The stage that was running.
        stage: SavedStage,
        /// Steps of that stage done.
        step: Step,
        /// Position in the chain.
        sequence: u64,
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
    /// The agent has received the worker's `Failed` message; the worker may end. Given by the agent.
    Noted,
}

/// The members of a new generation and the state they start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// Address of each rank's collective.
    pub peers: Vec<SocketAddr>,
    /// The lanes of each rank.
    pub lanes: Vec<Vec<LaneId>>,
    /// How the members continue from the state they hold; absent: all load the newest checkpoint, or start anew.
    pub carried: Option<Carried>,
}

/// What every member of a generation receives alike. The texts are parsed by the workers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationInputs {
    /// The run's folder, as the workers see it.
    pub run_folder: String,
    /// The validated settings with their sources: JSON of [`crate::config::Resolved`].
    pub settings_json: String,
    /// The manifest to resume from, as JSON; absent: there is no checkpoint.
    pub resume_json: Option<String>,
}

/// How the members of a generation continue from the state they hold.
///
/// The memory of a lane that its owner does not hold and that no move transfers is loaded from the newest checkpoint, or is
/// absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The stage of the state.
    pub stage: SavedStage,
    /// Committed steps of that stage on the most advanced member.
    pub step: Step,
    /// The lowest rank that holds this state.
    pub holder: Rank,
    /// Ranks that do not, and receive parameters, statistics, optimizer and counters from the holder.
    pub behind: Vec<Rank>,
    /// Lanes that change their owner, by lane.
    pub moves: Vec<LaneMove>,
}

/// A lane whose memory its new owner receives from another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneMove {
    /// The lane.
    pub lane: LaneId,
    /// The rank that sends its rows.
    pub from: Rank,
    /// The sender holds only a copy of write-backs: other rows are loaded from the newest checkpoint, or are absent.
    pub copy: bool,
}

/// Requests that the ranks agree on at their next step boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// Save and end.
    pub stop: bool,
    /// Save and continue.
    pub checkpoint: bool,
    /// Leave the generation with all state, so that waiting workers can join.
    pub reconfigure: bool,
}

impl From<WorkerOrder> for wire::WorkerOrder {
    fn from(order: WorkerOrder) -> Self {
        let WorkerOrder { identity, order, inputs } = order;
        let body = match order {
            Order::Form(formation) => Body::Form(form(formation, inputs.as_deref())),
            Order::Adopted => Body::Adopted(wire::Adopted {}),
            Order::Train => Body::Train(wire::Train {}),
            Order::Abort { reason } => Body::Abort(wire::Abort { reason }),
            Order::SetFlags(Flags { stop, checkpoint, reconfigure }) => {
                Body::SetFlags(wire::SetFlags { stop, checkpoint, reconfigure })
            }
            Order::Committed { stage, step, sequence } => {
                Body::Committed(wire::Committed { stage: stage.to_wire(), step: step.0, sequence })
            }
            Order::Validated { step, average_map, best } => {
                Body::Validated(wire::Validated { step: step.0, average_map, best })
            }
            Order::Shutdown => Body::Shutdown(wire::Shutdown {}),
            Order::Noted => Body::Noted(wire::Noted {}),
        };
        Self { identity: Some(identity.into()), body: Some(body) }
    }
}

impl TryFrom<wire::WorkerOrder> for WorkerOrder {
    type Error = Malformed;

    fn try_from(order: wire::WorkerOrder) -> Result<Self, Malformed> {
        let identity: Identity = order.identity.unwrap_or_default().into();
        let mut inputs = None;
        let order = match order.body.ok_or(Malformed::Missing("worker_order.body"))? {
            Body::Form(form) => {
                let (formation, given) = formation(&identity, form)?;
                inputs = Some(Arc::new(given));
                Order::Form(formation)
            }
            Body::Adopted(_) => Order::Adopted,
            Body::Train(_) => Order::Train,
            Body::Abort(abort) => Order::Abort { reason: abort.reason },
            Body::SetFlags(wire::SetFlags { stop, checkpoint, reconfigure }) => {
                Order::SetFlags(Flags { stop, checkpoint, reconfigure })
            }
            Body::Committed(committed) => Order::Committed {
                stage: SavedStage::from_wire(committed.stage)?,
                step: Step(committed.step),
                sequence: committed.sequence,
            },
            Body::Validated(wire::Validated { step, average_map, best }) => {
                Order::Validated { step: Step(step), average_map, best }
            }
            Body::Shutdown(_) => Order::Shutdown,
            Body::Noted(_) => Order::Noted,
        };
        Ok(Self { identity, order, inputs })
    }
}

fn form(formation: Formation, inputs: Option<&GenerationInputs>) -> wire::Form {
    let Formation { peers, lanes, carried } = formation;
    let lane_list =
        |lanes: Vec<LaneId>| wire::LaneList { lanes: lanes.into_iter().map(|lane| lane.0).collect() };
    wire::Form {
        peers: peers.iter().map(ToString::to_string).collect(),
        lanes: lanes.into_iter().map(lane_list).collect(),
        run_folder: inputs.map(|inputs| inputs.run_folder.clone()).unwrap_or_default(),
        config_json: inputs.map(|inputs| inputs.settings_json.clone()).unwrap_or_default(),
        resume_json: inputs.and_then(|inputs| inputs.resume_json.clone()),
        carried: carried.map(Into::into),
    }
}

fn formation(identity: &Identity, form: wire::Form) -> Result<(Formation, GenerationInputs), Malformed> {
    let peers = form.peers.iter().map(|peer| address("form.peers", peer)).collect::<Result<Vec<_>, _>>()?;
    let world = peers.len();
    if form.lanes.len() != world || identity.rank.index() >= world {
        return Err(Malformed::Field {
            field: "form.lanes",
            value: format!("{} lists for {world} ranks, received by {}", form.lanes.len(), identity.rank),
            expected: "one list per rank",
        });
    }
    let lanes = form.lanes.into_iter().map(|list| list.lanes.into_iter().map(LaneId).collect()).collect();
    let carried = form.carried.map(|carried| Carried::from_wire(&carried, world)).transpose()?;
    let inputs = GenerationInputs {
        run_folder: form.run_folder,
        settings_json: form.config_json,
        resume_json: form.resume_json,
    };
    Ok((Formation { peers, lanes, carried }, inputs))
}

impl From<Carried> for wire::Carried {
    fn from(carried: Carried) -> Self {
        let moves = carried.moves.into_iter().map(|LaneMove { lane, from, copy }| wire::LaneMove {
            lane: lane.0,
            from: from.0,
            copy,
        });
        Self {
            stage: carried.stage.to_wire(),
            step: carried.step.0,
            holder: carried.holder.0,
            behind: carried.behind.into_iter().map(|rank| rank.0).collect(),
            moves: moves.collect(),
        }
    }
}

impl Carried {
    fn from_wire(carried: &wire::Carried, world: usize) -> Result<Self, Malformed> {
        let rank = |rank: u32| {
            if (rank as usize) < world {
                return Ok(Rank(rank));
            }
            Err(Malformed::Field {
                field: "form.carried",
                value: Rank(rank).to_string(),
                expected: "a rank of the generation",
            })
        };
        let moves = carried.moves.iter().map(|moved| {
            Ok(LaneMove { lane: LaneId(moved.lane), from: rank(moved.from)?, copy: moved.copy })
        });
        Ok(Self {
            stage: SavedStage::from_wire(carried.stage)?,
            step: Step(carried.step),
            holder: rank(carried.holder)?,
            behind: carried.behind.iter().map(|behind| rank(*behind)).collect::<Result<_, _>>()?,
            moves: moves.collect::<Result<_, _>>()?,
        })
    }
}
