//! The state a run continues from: the newest checkpoint, or the state that the members of the next generation hold.

use std::collections::BTreeMap;

use longtake_shared::ids::{LaneId, Rank, Step, WorkerId};
use longtake_shared::protocol::{Carried, Kept, LaneMove, SavedStage};

use super::commit::Committed;

/// The checkpoint a run resumes from, with its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    /// Committed by this coordinator.
    Newest(SavedStage, Step),
    /// The checkpoint the run was started from; none was committed since.
    AsStarted(SavedStage, Step),
    /// No checkpoint: the run starts anew.
    Start,
}

impl ResumePoint {
    /// The newest checkpoint.
    pub fn decide(started_from: Option<(SavedStage, Step)>, newest: Option<Committed>) -> Self {
        match (newest, started_from) {
            (Some(newest), _) => Self::Newest(newest.stage, newest.step),
            (None, Some((stage, step))) => Self::AsStarted(stage, step),
            (None, None) => Self::Start,
        }
    }

    /// Stage and step of the checkpoint, if any.
    pub fn moment(self) -> Option<(SavedStage, Step)> {
        match self {
            Self::Newest(stage, step) | Self::AsStarted(stage, step) => Some((stage, step)),
            Self::Start => None,
        }
    }

    /// Step of the checkpoint, if any.
    pub fn step(self) -> Option<Step> {
        self.moment().map(|(_, step)| step)
    }
}

/// How the members continue from the state they hold; none if they hold none, or only older state than the newest checkpoint.
///
/// The newest state is complete on at least one member: a member counts a step only after every gradient bucket has arrived.
pub fn carry(
    members: &[WorkerId],
    lanes: &[Vec<LaneId>],
    kept: &BTreeMap<WorkerId, Kept>,
    checkpoint: Option<(SavedStage, Step)>,
) -> Option<Carried> {
    let held: Vec<Option<&Kept>> = members.iter().map(|member| kept.get(member)).collect();
    let moment = |kept: &Kept| (kept.stage, kept.step);
    let newest = held.iter().flatten().map(|kept| moment(kept)).max()?;
    if checkpoint.is_some_and(|checkpoint| checkpoint > newest) {
        return None;
    }
    let has_newest = |rank: usize| held[rank].is_some_and(|kept| moment(kept) == newest);
    let ranks = || 0..members.len();
    let rank = |position: usize| Rank(position as u32);
    let holder = rank(ranks().find(|position| has_newest(*position))?);
    let behind = ranks().filter(|position| !has_newest(*position)).map(rank).collect();
    let holding = |position: usize, lane: LaneId, copy: bool| {
        held[position].is_some_and(|kept| if copy { &kept.copies } else { &kept.lanes }.contains(&lane))
    };
    let source = |owner: usize, lane: LaneId| {
        if holding(owner, lane, false) {
            return None;
        }
        let with = |copy| ranks().find(|position| holding(*position, lane, copy));
        let (from, copy) = with(false).map(|from| (from, false)).or(with(true).map(|from| (from, true)))?;
        Some(LaneMove { lane, from: rank(from), copy })
    };
    let mut moves: Vec<LaneMove> =
        ranks().flat_map(|owner| lanes[owner].iter().filter_map(move |lane| source(owner, *lane))).collect();
    moves.sort_by_key(|moved| moved.lane);
    let (stage, step) = newest;
    Some(Carried { stage, step, holder, behind, moves })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(index: u32) -> WorkerId {
        WorkerId(format!("w{index}"))
    }

    fn kept(step: u64, lanes: &[u32], copies: &[u32]) -> Kept {
        let lanes_of = |lanes: &[u32]| lanes.iter().copied().map(LaneId).collect();
        Kept { stage: SavedStage::Train, step: Step(step), lanes: lanes_of(lanes), copies: lanes_of(copies) }
    }

    fn lanes(lanes: &[&[u32]]) -> Vec<Vec<LaneId>> {
        lanes.iter().map(|of_rank| of_rank.iter().copied().map(LaneId).collect()).collect()
    }

    #[test]
    fn laggards_and_newcomers_take_from_the_lowest_that_is_newest() {
        let held = BTreeMap::from([(worker(0), kept(6, &[0], &[])), (worker(1), kept(7, &[1], &[]))]);
        let members = [worker(0), worker(1), worker(2)];
        let carried = carry(&members, &lanes(&[&[0], &[1], &[2]]), &held, None).unwrap();
        assert_eq!((carried.step, carried.holder), (Step(7), Rank(1)));
        assert_eq!(carried.behind, [Rank(0), Rank(2)]);
        assert_eq!(carried.moves, []);
    }

    #[test]
    fn a_lane_comes_from_its_owner_then_from_a_copy_then_from_the_checkpoint() {
        let held = BTreeMap::from([(worker(0), kept(7, &[0, 1], &[3])), (worker(1), kept(7, &[2], &[0]))]);
        let members = [worker(0), worker(1)];
        let carried = carry(&members, &lanes(&[&[0, 4], &[1, 2, 3]]), &held, None).unwrap();
        let moved = |lane, from, copy| LaneMove { lane: LaneId(lane), from: Rank(from), copy };
        assert_eq!(carried.moves, [moved(1, 0, false), moved(3, 0, true)]);
    }

    #[test]
    fn nothing_is_carried_where_nothing_is_held_or_the_checkpoint_is_newer() {
        let members = [worker(0)];
        let one = lanes(&[&[0]]);
        assert_eq!(carry(&members, &one, &BTreeMap::new(), None), None);
        let held = BTreeMap::from([(worker(0), kept(7, &[0], &[]))]);
        assert_eq!(carry(&members, &one, &held, Some((SavedStage::Train, Step(8)))), None);
        assert!(carry(&members, &one, &held, Some((SavedStage::Train, Step(7)))).is_some());
        assert!(carry(&members, &one, &held, Some((SavedStage::Pretrain, Step(700)))).is_some());
    }
}
