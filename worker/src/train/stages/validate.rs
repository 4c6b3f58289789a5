//! The detector is evaluated: each rank runs its share of the validation videos, the coordinator computes mAP.
//!
//! Takes: the model without a tape. Gives: detections, video by video, to the coordinator.

use longtake_shared::dataset::{Subset, Video};
use longtake_shared::ids::{Rank, Step};
use longtake_shared::units::{Seconds, TimeSegment};

use crate::control::{Detection, Directive, Stage, StepPhase};
use crate::infer::video::{DetectError, VideoDetector};
use crate::model::detector::Detector;
use crate::train::TrainError;
use crate::train::run::context::RunContext;
use crate::train::run::damage::{self, Cause, WITHOUT_DETECTIONS};
use crate::train::run::report::Reporter;
use crate::train::step::gradient_sync::{Control, Wish};

/// What became of a validation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Validated {
    /// The average mAP over all videos.
    Done(f64),
    /// All ranks left off, because a stop or another generation is wished: the run validates again when it goes on.
    LeftOff(Wish),
}

/// Hands over the detections of this rank's share of the validation videos, and waits for the average mAP over all.
///
/// # Errors
/// More videos are damaged than the settings tolerate, the generation was aborted, or the agent is gone.
pub fn validate(run: &RunContext, model: &Detector, step: Step) -> Result<Validated, TrainError> {
    let assignment = &run.assignment;
    let videos = run.place.dataset.subset(Subset::Validation);
    let own = videos.iter().skip(assignment.rank.index()).step_by(assignment.world);
    let mut reporter = Reporter::new(run, Stage::Validate, videos.len() as u64, 0);
    // Chunks take the same time in every video; a whole video may be a hundred times as long as the one before.
    let next_chunk = || {
        run.session.enter(step, StepPhase::Validate);
        Ok(run.collective.check()?)
    };
    let detector = VideoDetector {
        model,
        config: &run.place.config,
        frames: &run.place.frames,
        device: &run.place.device,
        goes_on: Some(&next_chunk),
    };
    for &video in own {
        if Control::wishing(run.session.flags()).wish() != Wish::GoOn {
            break;
        }
        run.session.enter(step, StepPhase::Validate);
        let Video { id, path, .. } = run.place.dataset.video(video);
        let kept = match detector.detect(path) {
            Ok(kept) => kept,
            Err(DetectError::Video(error)) => {
                run.note_damage(video, Cause::of_video(&error), &error.to_string(), WITHOUT_DETECTIONS)?;
                reporter.unit();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if kept.cut > 0 {
            tracing::info!(video = %id, cut = kept.cut, "more detections than `evaluation.max_detections`");
        }
        let detections: Vec<Detection> = kept
            .detections
            .into_iter()
            .map(|found| Detection {
                label: found.label as u32,
                segment: TimeSegment {
                    start: Seconds(f64::from(found.segment[0])),
                    end: Seconds(f64::from(found.segment[1])),
                },
                score: f64::from(found.score),
            })
            .collect();
        run.session.detections(assignment.generation, step, id, detections)?;
        reporter.unit();
    }
    let found = Control {
        damaged_videos: run.place.damage.unshared() as f32,
        ..Control::wishing(run.session.flags())
    };
    let agreed = found.sum(&run.collective)?;
    run.share_damage(agreed.damaged_videos)?;
    if agreed.wish() != Wish::GoOn {
        return Ok(Validated::LeftOff(agreed.wish()));
    }
    tell_of_damage(run)?;
    run.session.validation_done(assignment.generation, step)?;
    run.session.pause();
    loop {
        if let Directive::Validated { step: validated, average_map, .. } =
            run.session.next_within(assignment.generation)?
            && validated == step
        {
            return Ok(Validated::Done(average_map));
        }
    }
}

/// One rank says for all which videos the report of this validation has no detections of.
fn tell_of_damage(run: &RunContext) -> Result<(), TrainError> {
    let damaged = run.place.damage.of_subset(&run.place.dataset, Subset::Validation);
    if run.assignment.rank != Rank(0) || damaged.is_empty() {
        return Ok(());
    }
    let (count, all) = (damaged.len(), run.place.dataset.subset(Subset::Validation).len());
    let names = damage::names(&run.place.dataset, damaged.keys());
    let text =
        format!("{count} of {all} validation videos have no detections, since they cannot be read: {names}");
    Ok(run.session.warning(run.assignment.generation, text)?)
}
