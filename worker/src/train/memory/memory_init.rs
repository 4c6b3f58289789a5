//! The memory is filled before the first step: every training video passes through the starting backbone (spec 20, section 3).
//!
//! Takes: the videos of this worker's lanes. Gives: their rows. Next: [`crate::model::memory`].

use longtake_shared::dataset::Subset;
use longtake_shared::ids::{Step, VideoIndex};
use longtake_shared::units::FrameIndex;

use crate::control::{Stage, StepPhase};
use crate::data::augment::AugmentDraw;
use crate::model::backbone::Backbone;
use crate::model::backbone::encoder::{ClipEncoder, Encoding};
use crate::tensors::host;
use crate::train::TrainError;
use crate::train::memory::lane_memory::LaneMemory;
use crate::train::run::context::RunContext;
use crate::train::run::report::Reporter;
use crate::train::step::gradient_sync::{Control, Wish};

/// Fills what is absent of the memory of this worker's lanes. Gives what all ranks have agreed on at its end: each leaves off
/// early where a stop or another generation is wished, and what is filled stays.
///
/// # Errors
/// More videos are damaged than the settings tolerate, memory cannot be written, or the generation was aborted.
pub fn fill(run: &RunContext, backbone: &Backbone, memory: &mut LaneMemory) -> Result<Wish, TrainError> {
    let (mut work, mut filled) = (Vec::new(), 0);
    for &lane in run.own_lanes() {
        for &video in run.place.lanes.videos(lane) {
            if memory.store.lacks_rows(lane, video)? {
                work.push((lane, video));
            } else {
                filled += 1;
            }
        }
    }
    let videos = run.place.dataset.subset(Subset::Training).len() as u64;
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
    wishes.damaged_videos = run.place.damage.unshared() as f32;
    let agreed = wishes.sum(&run.collective)?;
    run.share_damage(agreed.damaged_videos)?;
    Ok(agreed.wish())
}

/// Features of a whole video, `[rows, C]`, clip by clip; the last clip is filled up with zeros and trimmed.
fn features_of_video(
    run: &RunContext,
    backbone: &Backbone,
    video: VideoIndex,
) -> Result<Vec<f32>, TrainError> {
    let config = &run.place.config;
    let (length, clip_frames) = (run.length(video)?, config.data.clip_frames);
    let key = run.place.root.child("memory", u64::from(video.0));
    let centred = AugmentDraw::centred(&config.data);
    let clip = |clip: usize| {
        let first = FrameIndex((clip * clip_frames) as i64);
        let pixels = run.place.reader.render(video, first, clip_frames, &centred)?;
        Ok::<_, TrainError>((pixels, key.child("clip", clip as u64)))
    };
    let next_chunk = || {
        run.collective.check()?;
        run.session.enter(Step(0), StepPhase::Look);
        Ok(())
    };
    let encoding = if config.memory.init_in_train_mode { Encoding::Train } else { Encoding::Evaluate };
    let encoder = ClipEncoder::new(&config.data, config.memory.chunk_clips, &run.place.device);
    let clips = length.div_ceil(clip_frames);
    let features_1ct = encoder.sequence(backbone, clips, encoding, clip, next_chunk)?;
    let mut rows = host(features_1ct.swap_dims(1, 2));
    let geometry = config.geometry();
    rows.truncate(geometry.rows(length) * geometry.channels);
    Ok(rows)
}
