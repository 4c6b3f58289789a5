//! Assignment of lanes to workers: counts differ by at most one, and as few lanes as possible change their owner.

use std::collections::BTreeMap;

use longtake_shared::ids::{LaneId, Rank, WorkerId};
use longtake_shared::lanes::initial_assignment;

/// The lanes of each member, by rank.
///
/// `before` holds the owners of the previous generation; it is empty for the first one, whose lanes are contiguous. Members that
/// own the most lanes keep the larger shares, which minimises the moves.
pub fn assign(
    lanes: usize,
    members: &[WorkerId],
    before: &BTreeMap<WorkerId, Vec<LaneId>>,
) -> Vec<Vec<LaneId>> {
    let world = members.len();
    if world == 0 {
        return Vec::new();
    }
    let mut owned: Vec<Vec<LaneId>> =
        members.iter().map(|member| before.get(member).cloned().unwrap_or_default()).collect();
    if owned.iter().all(Vec::is_empty) {
        return (0..world as u32).map(|rank| initial_assignment(lanes, world, Rank(rank))).collect();
    }
    let mut by_wealth: Vec<usize> = (0..world).collect();
    by_wealth.sort_by_key(|&rank| (std::cmp::Reverse(owned[rank].len()), rank));
    let mut homeless = homeless(lanes, &owned);
    let share = |position: usize| lanes / world + usize::from(position < lanes % world);
    for (position, &rank) in by_wealth.iter().enumerate() {
        let keep = owned[rank].len().min(share(position));
        homeless.extend(owned[rank].drain(keep..));
    }
    homeless.sort();
    let mut homeless = homeless.into_iter();
    for (position, &rank) in by_wealth.iter().enumerate() {
        let missing = share(position) - owned[rank].len();
        owned[rank].extend(homeless.by_ref().take(missing));
        owned[rank].sort();
    }
    owned
}

/// Lanes without an owner.
fn homeless(lanes: usize, owned: &[Vec<LaneId>]) -> Vec<LaneId> {
    let mut free = vec![true; lanes];
    for lane in owned.iter().flatten() {
        free[lane.index()] = false;
    }
    (0u32..).zip(free).filter(|(_, free)| *free).map(|(lane, _)| LaneId(lane)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<WorkerId> {
        (0..count).map(|index| WorkerId(format!("w{index}"))).collect()
    }

    fn owners(members: &[WorkerId], lanes: &[Vec<LaneId>]) -> BTreeMap<WorkerId, Vec<LaneId>> {
        members.iter().cloned().zip(lanes.iter().cloned()).collect()
    }

    fn moved(before: &BTreeMap<WorkerId, Vec<LaneId>>, members: &[WorkerId], after: &[Vec<LaneId>]) -> usize {
        members
            .iter()
            .zip(after)
            .flat_map(|(member, lanes)| lanes.iter().map(move |lane| (member, lane)))
            .filter(|(member, lane)| !before.get(*member).is_some_and(|owned| owned.contains(lane)))
            .count()
    }

    #[test]
    fn the_first_generation_is_dealt_contiguously() {
        let dealt = assign(5, &names(2), &BTreeMap::new());
        assert_eq!(dealt, [vec![LaneId(0), LaneId(1), LaneId(2)], vec![LaneId(3), LaneId(4)]]);
    }

    #[test]
    fn a_lost_worker_moves_only_its_lanes() {
        let four = names(4);
        let before = owners(&four, &assign(8, &four, &BTreeMap::new()));
        let left = [four[0].clone(), four[1].clone(), four[3].clone()];
        let after = assign(8, &left, &before);
        assert_eq!(moved(&before, &left, &after), 2);
        assert_eq!(after.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
    }

    proptest! {
        #[test]
        fn any_change_keeps_balance_and_moves_the_least(
            lanes in 1usize..40,
            first in 1usize..9,
            keep in proptest::collection::vec(any::<bool>(), 8),
            joining in 0usize..4,
        ) {
            let first = names(first.min(lanes));
            let before = owners(&first, &assign(lanes, &first, &BTreeMap::new()));
            let mut members: Vec<WorkerId> =
                first.iter().zip(keep).filter(|(_, keep)| *keep).map(|(name, _)| name.clone()).collect();
            members.extend((0..joining).map(|index| WorkerId(format!("new{index}"))));
            prop_assume!(!members.is_empty() && members.len() <= lanes);
            let survivors: Vec<&WorkerId> = members.iter().filter(|name| before.contains_key(*name)).collect();
            prop_assume!(!survivors.is_empty());

            let after = assign(lanes, &members, &before);
            let mut all: Vec<LaneId> = after.iter().flatten().copied().collect();
            all.sort();
            prop_assert_eq!(all, (0..lanes as u32).map(LaneId).collect::<Vec<_>>());
            let counts: Vec<usize> = after.iter().map(Vec::len).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);

            // The fewest moves: what no survivor owned, and what survivors hold beyond the best balanced shares.
            let mut held: Vec<usize> = members.iter().map(|name| before.get(name).map_or(0, Vec::len)).collect();
            held.sort_by_key(|count| std::cmp::Reverse(*count));
            let kept: usize = held.iter().enumerate()
                .map(|(position, count)| (*count).min(lanes / members.len() + usize::from(position < lanes % members.len())))
                .sum();
            prop_assert_eq!(moved(&before, &members, &after), lanes - kept);
        }
    }
}
