//! The messages between operator, coordinator, agent and worker as domain types. [`crate::protocol::wire`] is their form on the wire.
//!
//! A worker exchanges messages only with its agent, an agent only with its workers and the coordinator. Every message
//! between coordinator and worker carries its (run, incarnation, generation, rank), and a receiver drops a message that is
//! older than its own state. `docs/PROTOCOL.md` lists the messages and their order.
//!
//! Each type stands beside its conversions to and from the wire. A conversion from the wire is the only place that rejects a
//! message, with [`crate::protocol::Malformed`].

mod agent;
mod identity;
mod malformed;
mod order;
mod stage;
#[cfg(test)]
mod tests;
mod worker;

/// The flight recorder of a worker: its latest activity, in a file that survives the process.
pub mod flight;

/// The phases of a training step.
pub mod stamp;

/// The generated message types.
pub mod wire;

pub use agent::{
    AgentCommand, AgentHello, AgentMessage, AgentOrder, AgentReport, Doing, ExitCause, HeldWorker, Terms,
    WorkerEnd,
};
pub use identity::Identity;
pub use malformed::Malformed;
pub use order::{Carried, Flags, Formation, GenerationInputs, LaneMove, Order, WorkerOrder};
pub use stage::{SavedStage, Stage};
pub use worker::{
    Detection, Ending, FailureScope, Kept, Progress, SavedParts, VideoDetections, WorkerHello, WorkerMessage,
    WorkerReport,
};

/// Version of `proto/longtake.proto`; it rises with each incompatible change.
pub const PROTOCOL_VERSION: u32 = 3;

/// Size limit of one message in bytes. The largest messages carry a manifest, a few megabytes of JSON in a large run.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Flow-control window of one link in bytes: the sender waits when this much is in flight.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Flow-control window of a connection in bytes; a connection carries one link. h2 closes a connection when the overhead of
/// unread small frames (256 bytes minus the payload, each) exceeds half of this window. The window is therefore so large
/// that a link full of the smallest messages stays below that limit: a slow reader slows its sender down and never loses
/// the connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Size of the smallest frame in bytes: the five-byte gRPC header and an identity.
const SMALLEST_FRAME_BYTES: u32 = 9;

const _: () = assert!(STREAM_WINDOW_BYTES / SMALLEST_FRAME_BYTES * 256 < CONNECTION_WINDOW_BYTES / 2);

/// Name of the environment variable in which a worker receives the process id of its agent.
pub const AGENT_PID_VARIABLE: &str = "LONGTAKE_AGENT_PID";
