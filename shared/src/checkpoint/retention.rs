//! Which checkpoints are kept: the newest ones and the best one.

use std::collections::BTreeSet;

use super::Sequence;

/// How many checkpoints are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Newest ones that are kept, beside the best one; at least one is kept whatever this says.
    pub newest: usize,
}

/// A checkpoint of the chain, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its commit.
    pub sequence: Sequence,
    /// Whether its validation was the best when it was saved.
    pub best: bool,
    /// Whether its manifest can be read: one that cannot does not count among the newest.
    pub whole: bool,
}

/// Which checkpoints are kept, given all of the chain.
pub fn keep(candidates: &[Candidate], retention: Retention) -> BTreeSet<Sequence> {
    let mut newest_first: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.whole).collect();
    newest_first.sort_by_key(|candidate| std::cmp::Reverse(candidate.sequence));
    let newest = newest_first.iter().take(retention.newest.max(1));
    let best = newest_first.iter().find(|candidate| candidate.best);
    newest.chain(best).map(|candidate| candidate.sequence).collect()
}
