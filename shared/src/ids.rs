//! Names of things in a run, as types that cannot be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
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
    /// Position of a worker in a generation, from 0 to the world size less one. Means nothing in another generation.
    Rank(u32), "rank "
);
number_id!(
    /// How often a coordinator of this run has started. Won by create-if-absent in the object store, so no two share one.
    Incarnation(u64), "i"
);
number_id!(
    /// Membership of the run between two changes; rises with each, over all incarnations, and is never reused.
    Generation(u64), "g"
);
number_id!(
    /// Optimizer steps of a stage that have been committed before this one: the first step is 0.
    Step(u64), "step "
);
number_id!(
    /// Passes over the training set before this one: the first epoch is 0.
    Epoch(u64), "epoch "
);
number_id!(
    /// One slot of the global batch, from 0 to the number of lanes less one.
    LaneId(u32), "lane "
);
number_id!(
    /// Position of a video in [`crate::dataset::Dataset::videos`].
    VideoIndex(u32), "video #"
);

/// The name of a run: letters, digits, `.`, `_` and `-`; it is also the name of the run's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One start of one worker process: a worker that is started again is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
