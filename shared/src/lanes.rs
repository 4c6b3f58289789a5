//! A fixed number of lanes deals videos, memory and random numbers, so that step s has the same samples for any world size.
//!
//! A lane owns its videos, an order over them in each epoch, their part of the long memory, and one slot of the global
//! batch. Nothing here is state: every answer is a function of the seed and of a position.

use rand::seq::SliceRandom as _;

use crate::ids::{Epoch, LaneId, Rank, Step, VideoIndex};
use crate::random::Key;
use crate::units::counted;

/// Which videos each lane owns, and in which order an epoch visits them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes {
    key: Key,
    owned: Vec<Vec<VideoIndex>>,
}

/// More lanes than videos: some lane would never have a sample.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`train.lanes` is {lanes}, but the training subset has only {}", counted(*videos, "video"))]
pub struct TooManyLanes {
    /// Lanes asked for.
    pub lanes: usize,
    /// Videos there are.
    pub videos: usize,
}

impl crate::hint::Hint for TooManyLanes {
    fn hint(&self) -> Option<String> {
        Some(format!("set `train.lanes` to at most {}", self.videos))
    }

    fn exit(&self) -> crate::hint::ExitCode {
        crate::hint::ExitCode::NeverRestart
    }
}

impl Lanes {
    /// Deals videos to lanes in a keyed order, so that lane lengths differ by at most one.
    ///
    /// # Errors
    /// More lanes than videos, or no lane at all.
    pub fn deal(root: Key, lanes: usize, videos: &[VideoIndex]) -> Result<Self, TooManyLanes> {
        if lanes == 0 || lanes > videos.len() {
            return Err(TooManyLanes { lanes, videos: videos.len() });
        }
        let key = root.child("lanes", 0);
        let mut order = videos.to_vec();
        order.shuffle(&mut key.rng());
        let mut owned = vec![Vec::new(); lanes];
        for (position, video) in order.into_iter().enumerate() {
            owned[position % lanes].push(video);
        }
        Ok(Self { key, owned })
    }

    /// How many lanes there are.
    pub fn count(&self) -> usize {
        self.owned.len()
    }

    /// The videos a lane owns, in the order they were dealt.
    pub fn videos(&self, lane: LaneId) -> &[VideoIndex] {
        &self.owned[lane.index()]
    }

    /// Steps of an epoch: as many as the longest lane has videos.
    pub fn steps_per_epoch(&self) -> u64 {
        self.owned.iter().map(Vec::len).max().unwrap_or(0) as u64
    }

    /// The epoch that a step belongs to, and its position there.
    pub fn position(&self, step: Step) -> (Epoch, u64) {
        let length = self.steps_per_epoch();
        (Epoch(step.0 / length), step.0 % length)
    }

    /// The video of a lane at a position of an epoch; nothing where the lane has run out (it is idle).
    pub fn video(&self, lane: LaneId, epoch: Epoch, position: u64) -> Option<VideoIndex> {
        let mut order = self.owned[lane.index()].clone();
        order.shuffle(&mut self.key.child("epoch", epoch.0).child("lane", u64::from(lane.0)).rng());
        order.get(usize::try_from(position).ok()?).copied()
    }
}

/// The lanes of a rank in a world of `world` ranks: contiguous, counts differing by at most one, lower ranks the larger.
///
/// This is the assignment of a run that starts; the coordinator moves as few lanes as possible when the world changes.
pub fn initial_assignment(lanes: usize, world: usize, rank: Rank) -> Vec<LaneId> {
    let (base, extra) = (lanes / world, lanes % world);
    let rank = rank.index();
    let first = rank * base + rank.min(extra);
    let count = base + usize::from(rank < extra);
    (first..first + count).map(|lane| LaneId(lane as u32)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn videos(count: u32) -> Vec<VideoIndex> {
        (0..count).map(VideoIndex).collect()
    }

    #[test]
    fn every_epoch_visits_every_video_once() {
        let lanes = Lanes::deal(Key::root(3), 4, &videos(11)).unwrap();
        assert_eq!(lanes.steps_per_epoch(), 3);
        for epoch in 0..3 {
            let seen: Vec<VideoIndex> = (0..3)
                .flat_map(|position| (0..4).map(move |lane| (lane, position)))
                .filter_map(|(lane, position)| lanes.video(LaneId(lane), Epoch(epoch), position))
                .collect();
            assert_eq!(seen.len(), 11);
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 11);
        }
    }

    #[test]
    fn the_order_changes_with_the_epoch_and_the_seed() {
        let order = |seed, epoch| {
            let lanes = Lanes::deal(Key::root(seed), 1, &videos(20)).unwrap();
            (0..20).map(|position| lanes.video(LaneId(0), Epoch(epoch), position)).collect::<Vec<_>>()
        };
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        assert_eq!(order(1, 5), order(1, 5));
    }

    #[test]
    fn more_lanes_than_videos_is_refused() {
        assert_eq!(Lanes::deal(Key::root(0), 5, &videos(4)), Err(TooManyLanes { lanes: 5, videos: 4 }));
    }

    #[test]
    fn assignments_cover_every_lane_once() {
        for (lanes, world) in [(4, 1), (4, 3), (7, 3), (16, 5)] {
            let all: Vec<LaneId> =
                (0..world).flat_map(|rank| initial_assignment(lanes, world, Rank(rank as u32))).collect();
            assert_eq!(all, (0..lanes as u32).map(LaneId).collect::<Vec<_>>());
        }
    }
}
