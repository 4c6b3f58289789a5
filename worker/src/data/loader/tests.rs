//! Samples from synthetic frames, whose values say which frame they are.

use longtake_shared::config::{AugmentConfig, DataConfig, MemoryConfig};
use longtake_shared::dataset::{Subset, Video};
use longtake_shared::units::Seconds;

use super::*;

const TOTAL: usize = 100;

/// Every value of frame f is f; the video `broken` cannot be opened, and the video `torn` not be read.
struct Numbers {
    broken: VideoIndex,
    torn: VideoIndex,
}

impl FrameSource for Numbers {
    fn length(&self, video: VideoIndex) -> Result<usize, SourceError> {
        if video == self.broken { Err("no such file".into()) } else { Ok(TOTAL) }
    }

    fn frames(&self, video: VideoIndex, first: FrameIndex, count: usize) -> Result<FrameBlock, SourceError> {
        if video == self.torn {
            return Err("the picture is damaged".into());
        }
        let start = first.0.clamp(0, TOTAL as i64);
        let end = (first.0 + count as i64).clamp(start, TOTAL as i64);
        let rgb = (start..end).flat_map(|frame| [frame as u8; 2 * 2 * 3]).collect();
        Ok(FrameBlock { first: FrameIndex(start), count: (end - start) as usize, height: 2, width: 2, rgb })
    }
}

fn data() -> DataConfig {
    DataConfig {
        frame_height: 2,
        frame_width: 2,
        crop: 2,
        window_frames: 64,
        clip_frames: 8,
        clip_shift: true,
        mean: [-1.0; 3],
        std: [1.0; 3],
        prefetch: 3,
        augment: AugmentConfig { photometric: 0.0, rotation: 0.0, ..AugmentConfig::default() },
        ..DataConfig::default()
    }
}

fn reader(broken: u32, torn: u32) -> Arc<SampleReader> {
    let videos = (0..6)
        .map(|index| Video {
            id: format!("v{index}"),
            subset: Subset::Training,
            path: "v.mp4".into(),
            duration: Seconds(10.0),
            actions: vec![],
        })
        .collect();
    let dataset = Dataset { classes: vec![], videos, remarks: vec![] };
    let lanes = Lanes::deal(Key::root(4), 4, &dataset.subset(Subset::Training)).unwrap();
    let memory = MemoryConfig { sampling_rate: 0.5, ..MemoryConfig::default() };
    let config = RunConfig { data: data(), memory, ..RunConfig::default() };
    let source = Numbers { broken: VideoIndex(broken), torn: VideoIndex(torn) };
    Arc::new(SampleReader::new(&config, Arc::new(dataset), lanes, Key::root(4), Arc::new(source)).unwrap())
}

fn all_lanes() -> Vec<LaneId> {
    (0..4).map(LaneId).collect()
}

/// The first value of each frame, less what normalisation adds: the frame's number, or -1 outside the video.
fn shown(clip: &[f32]) -> Vec<i64> {
    clip[..8 * 4].chunks_exact(4).map(|frame| frame[0] as i64 - 1).collect()
}

#[test]
fn each_clip_shows_the_frames_of_its_plan() {
    let reader = reader(99, 99);
    let mut steps = reader.read_ahead(all_lanes(), Step(0)..Step(20), 2).unwrap();
    let mut outside = 0;
    for expected in 0..20 {
        let step = steps.next().unwrap().unwrap();
        assert_eq!(step.step, Step(expected));
        for (lane, sample) in &step.samples {
            let LaneSample::Ready { plan, clips } = sample else { continue };
            assert_eq!((plan.lane, plan.step), (*lane, step.step));
            assert_eq!((clips.len(), plan.sampled.len()), (4, 4));
            for (clip, index) in clips.iter().zip(&plan.sampled) {
                let first = plan.first_frame(*index).0;
                let expected: Vec<i64> = (first..first + 8)
                    .map(|frame| if (0..TOTAL as i64).contains(&frame) { frame } else { -1 })
                    .collect();
                outside += expected.iter().filter(|frame| **frame < 0).count();
                assert_eq!(shown(clip), expected);
                assert_eq!(clip, &reader.clip(plan, *index).unwrap(), "a clip on demand is the same");
            }
        }
    }
    assert!(steps.next().unwrap().is_none());
    assert!(outside > 0, "some clips of this seed reach beyond the video");
}

#[test]
fn idle_lanes_and_unreadable_videos_have_no_weight_and_stop_nobody() {
    let reader = reader(1, 2);
    let mut seen = [0; 3];
    let mut messages = std::collections::BTreeSet::new();
    for step in 0..2 {
        let loaded = reader.step(Step(step), &all_lanes(), &Wanted::default());
        let unreadable = loaded.unreadable();
        for (_, sample) in loaded.samples {
            assert_eq!(sample.weight() > 0.0, matches!(sample, LaneSample::Ready { .. }));
            match sample {
                LaneSample::Idle => seen[0] += 1,
                LaneSample::Ready { .. } => seen[1] += 1,
                LaneSample::Unreadable { video, error } => {
                    assert!([1, 2].contains(&video.0), "{video}");
                    assert!(unreadable > 0);
                    seen[2] += 1;
                    messages.insert(format!("{error}: {}", std::error::Error::source(&error).unwrap()));
                }
            }
        }
    }
    assert_eq!(seen, [2, 4, 2], "six videos on four lanes, two of them unreadable, in two steps");
    assert_eq!(
        messages.into_iter().collect::<Vec<_>>(),
        ["video `v1` cannot be read: no such file", "video `v2` cannot be read: the picture is damaged"]
    );
}

#[test]
fn a_worker_sees_the_same_samples_with_fewer_lanes() {
    let reader = reader(99, 99);
    let all = reader.step(Step(0), &all_lanes(), &Wanted::default());
    let one = reader.step(Step(0), &[LaneId(2)], &Wanted::default());
    let (LaneSample::Ready { plan: a, clips: x }, LaneSample::Ready { plan: b, clips: y }) =
        (&all.samples[2].1, &one.samples[0].1)
    else {
        panic!("no lane idles in the first step");
    };
    assert_eq!((a, x), (b, y));
}

#[test]
fn trimmed_clips_and_centred_ones_are_rendered_by_the_same_rules() {
    let reader = reader(99, 99);
    let plan = TrimmedPlan {
        key: Key::root(1),
        video: VideoIndex(0),
        start: FrameIndex(95),
        frames: 8,
        label: 0,
        augment: AugmentDraw::centred(&data()),
    };
    let clip = reader.trimmed(&plan).unwrap();
    assert_eq!(shown(&clip), [95, 96, 97, 98, 99, -1, -1, -1]);
    assert_eq!(clip, reader.render(VideoIndex(0), FrameIndex(95), 8, &plan.augment).unwrap());
}
