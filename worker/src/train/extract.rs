//! The memory is filled before the first step: every training video passes through the starting backbone (spec 20, section 3).
//!
//! Takes: the videos of this worker's lanes. Gives: their rows. Next: [`crate::model::memory`].

use longtake_shared::dataset::Subset;
use longtake_shared::ids::{Step, VideoIndex};
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;

use super::TrainError;
use super::agree::{Control, Wish};
use super::context::RunContext;
use super::lane_memory::LaneMemory;
use super::pretrain::stack;
use super::report::Reporter;
use super::tape::host;
use crate::control::{Stage, StepPhase};
use crate::data::augment::AugmentDraw;
use crate::model::backbone::VideoSwin;
use crate::model::pass::Pass;

/// Fills what is absent of the memory of this worker's lanes. Gives what all ranks have agreed on at its end: each leaves off
/// early where a stop or another generation is wished, and what is filled stays.
///
/// # Errors
/// More videos are damaged than the settings tolerate, memory cannot be written, or the generation was aborted.
pub fn fill(run: &RunContext, backbone: &VideoSwin, memory: &mut LaneMemory) -> Result<Wish, TrainError> {
    let (mut work, mut filled) = (Vec::new(), 0);
    for &lane in run.own_lanes() {
        for &video in run.lanes.videos(lane) {
            if memory.store.lacks_rows(lane, video)? {
                work.push((lane, video));
            } else {
                filled += 1;
            }
        }
    }
    let videos = run.dataset.subset(Subset::Training).len() as u64;
    let mut reporter = Reporter::new(run, Stage::Memory, videos, filled);
    let mut wishes = Control::default();
    for (lane, video) in work {
        wishes = Control::wishing(run.session.flags());
        if wishes.wish() != Wish::GoOn {
            break;
        }
        match features_of_video(run, backbone, video) {
            Ok(rows) => memory.store.write(lane, video, Step(0), 0, &rows)?,
            // Its rows stay absent; the samples that need them find out whether their frames can be read.
            Err(TrainError::Load(error)) => run.note_unreadable(video, error)?,
            Err(error) => return Err(error),
        }
        reporter.unit();
    }
    run.session.rest();
    wishes.damaged_videos = run.damage.unshared() as f32;
    let agreed = wishes.sum(&run.collective)?;
    run.share_damage(agreed.damaged_videos)?;
    Ok(agreed.wish())
}

/// Features of a whole video, `[rows, C]`, clip by clip; the last clip is filled up with zeros and trimmed.
fn features_of_video(
    run: &RunContext,
    backbone: &VideoSwin,
    video: VideoIndex,
) -> Result<Vec<f32>, TrainError> {
    let config = &run.config;
    let (length, clip_frames) = (run.length(video)?, config.data.clip_frames);
    let key = run.root.child("memory", u64::from(video.0));
    let centred = AugmentDraw::centred(&config.data);
    let shape = [3, clip_frames, config.data.crop, config.data.crop];
    let mut rows = Vec::new();
    let clips: Vec<usize> = (0..length.div_ceil(clip_frames)).collect();
    for chunk in clips.chunks(config.memory.chunk_clips.max(1)) {
        run.collective.check()?;
        run.session.enter(Step(0), StepPhase::Look);
        let mut pixels = Vec::new();
        for &clip in chunk {
            let first = FrameIndex((clip * clip_frames) as i64);
            pixels.push(run.reader.render(video, first, clip_frames, &centred)?);
        }
        let keys: Vec<Key> = chunk.iter().map(|&clip| key.child("clip", clip as u64)).collect();
        let pass =
            if config.memory.init_in_train_mode { Pass::Train { keys: &keys } } else { Pass::Evaluate };
        let input = stack(pixels.iter().map(Vec::as_slice), shape, &run.device);
        let features_nfc = backbone.features(input, pass).swap_dims(1, 2);
        rows.extend(host(features_nfc));
    }
    rows.truncate(length.div_ceil(2) * config.model.backbone.channels());
    Ok(rows)
}
