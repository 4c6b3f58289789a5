//! Identifiers of a run, as distinct types.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// As an index into a slice.
            pub fn index(self) -> usize {
                usize::try_from(self.0).expect("ids count things that fit in memory")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number_id!(
    /// Position of a worker in a generation, from 0 to the world size minus one. Meaningless in another generation.
    Rank(u32), "rank "
);
number_id!(
    /// Number of a coordinator start of this run. Claimed by create-if-absent in the object store, so it is unique.
    Incarnation(u64), "i"
);
number_id!(
    /// Number of a membership of the run. It rises with each change, over all incarnations, and is never reused.
    Generation(u64), "g"
);
number_id!(
    /// Optimizer steps of a stage committed before this one; the first step is 0.
    Step(u64), "step "
);
number_id!(
    /// Passes over the training set before this one; the first epoch is 0.
    Epoch(u64), "epoch "
);
number_id!(
    /// One slot of the global batch, from 0 to the number of lanes minus one.
    LaneId(u32), "lane "
);
number_id!(
    /// Position of a video in [`crate::dataset::Dataset::videos`].
    VideoIndex(u32), "video #"
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Name of a run: letters, digits, `.`, `_` and `-`; it is also the name of the run's folder.
    RunId
);
text_id!(
    /// One start of one worker process: a restarted worker has a new id.
    WorkerId
);
text_id!(
    /// One start of one agent process: a restarted agent has a new id.
    AgentId
);
