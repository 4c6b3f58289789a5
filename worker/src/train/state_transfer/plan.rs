//! Which collective calls bring every member of a generation to the same state: the same list on every rank, since it is a
//! function of what all of them were told.

use std::collections::BTreeMap;

use longtake_shared::ids::{LaneId, Rank};

use crate::control::{Carried, LaneMove};

/// One call of the collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// Parameters, statistics, optimizer and counters go from one rank to all.
    State {
        /// Who has them.
        holder: Rank,
    },
    /// The rows of some videos of a lane go to its new owner.
    Rows {
        /// The lane.
        lane: LaneId,
        /// Number of the group of videos.
        group: usize,
        /// Who has them.
        from: Rank,
        /// The lane's new owner.
        to: Rank,
    },
    /// Copies of a lane's write-backs go to its new owner.
    Copies {
        /// The lane.
        lane: LaneId,
        /// Who has them.
        from: Rank,
        /// The lane's new owner.
        to: Rank,
    },
}

/// The calls in their order. `lanes` are those of each rank, `groups` says in how many groups the videos of a lane go.
/// What an owner has itself is in no call, and neither is a lane that nobody owns.
pub fn handovers(
    lanes: &[Vec<LaneId>],
    carried: &Carried,
    groups: impl Fn(LaneId) -> usize,
) -> Vec<Handover> {
    let mut plan = Vec::new();
    if !carried.behind.is_empty() {
        plan.push(Handover::State { holder: carried.holder });
    }
    let owners: BTreeMap<LaneId, Rank> = (0u32..)
        .zip(lanes)
        .flat_map(|(rank, lanes)| lanes.iter().map(move |lane| (*lane, Rank(rank))))
        .collect();
    let moves: BTreeMap<LaneId, LaneMove> = carried.moves.iter().map(|moved| (moved.lane, *moved)).collect();
    for LaneMove { lane, from, copy } in moves.into_values() {
        let Some(to) = owners.get(&lane).copied().filter(|to| *to != from) else { continue };
        if copy {
            plan.push(Handover::Copies { lane, from, to });
        } else {
            plan.extend((0..groups(lane)).map(|group| Handover::Rows { lane, group, from, to }));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use longtake_shared::ids::Step;
    use longtake_shared::protocol::SavedStage;
    use proptest::prelude::*;

    use super::*;

    /// Lanes dealt to ranks, and moves of some of them from anywhere.
    fn generation() -> impl Strategy<Value = (Vec<Vec<LaneId>>, Carried)> {
        (
            1usize..6,
            proptest::collection::vec((any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>()), 0..12),
        )
            .prop_map(|(world, dealt)| {
                let mut lanes = vec![Vec::new(); world];
                let mut moves = Vec::new();
                for (number, (owner, from, moved, copy)) in (0u32..).zip(dealt) {
                    lanes[owner as usize % world].push(LaneId(number));
                    if moved {
                        moves.push(LaneMove { lane: LaneId(number), from: Rank(from % world as u32), copy });
                    }
                }
                let behind = (1..world as u32).map(Rank).collect();
                let carried =
                    Carried { stage: SavedStage::Train, step: Step(9), holder: Rank(0), behind, moves };
                (lanes, carried)
            })
    }

    proptest! {
        #[test]
        fn every_rank_makes_the_same_calls_and_every_moved_lane_arrives_once(
            (lanes, carried) in generation(),
            groups in 1usize..4,
        ) {
            let plan = handovers(&lanes, &carried, |_| groups);
            let mut reordered = carried.clone();
            reordered.moves.reverse();
            prop_assert_eq!(&plan, &handovers(&lanes, &reordered, |_| groups));

            let mut arrived: BTreeMap<LaneId, BTreeSet<usize>> = BTreeMap::new();
            for call in &plan {
                match *call {
                    Handover::State { holder } => prop_assert_eq!(holder, carried.holder),
                    Handover::Rows { lane, group, from, to } => {
                        prop_assert!(from != to && lanes[to.index()].contains(&lane));
                        prop_assert!(arrived.entry(lane).or_default().insert(group));
                    }
                    Handover::Copies { lane, from, to } => {
                        prop_assert!(from != to && lanes[to.index()].contains(&lane));
                        prop_assert!(arrived.entry(lane).or_default().insert(0));
                    }
                }
            }
            for LaneMove { lane, from, copy } in &carried.moves {
                let expected = match lanes[from.index()].contains(lane) {
                    true => 0,
                    false if *copy => 1,
                    false => groups,
                };
                prop_assert_eq!(arrived.get(lane).map_or(0, BTreeSet::len), expected);
            }
            let states = plan.iter().filter(|call| matches!(call, Handover::State { .. })).count();
            prop_assert_eq!(states, usize::from(!carried.behind.is_empty()));
        }
    }
}
