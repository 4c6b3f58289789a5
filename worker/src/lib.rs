//! Longtake's worker, in the order the data flows: video -> clips -> features -> detections -> one number -> gradients
//! -> summed gradients -> updated weights -> a checkpoint that outlives the process.

/// Tensors between a device, the host and files.
pub mod tensors;

/// Video files become clips of frames.
pub mod data;

/// Clips become features, features become detections. Reads no file and knows no rank.
pub mod model;

/// Detections and labels become one number.
pub mod loss;

/// One number becomes new weights: the only place where model, loss, collective and optimizer meet.
pub mod train;

/// Gradients become summed gradients.
pub mod collective;

/// Summed gradients become updated weights.
pub mod optim;

/// State becomes bytes, and bytes become state.
pub mod checkpoint;

/// Features become detections in seconds.
pub mod infer;

/// Talks to the agent; never touches a tensor.
pub mod control;

/// Which threads exist, who owns them, how they end.
pub mod runtime;

/// How fast the parts of a step are on this machine.
pub mod bench;

/// What the command line may ask of this library.
pub mod role;
