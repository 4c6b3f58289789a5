//! The detector is evaluated: each rank runs its share of the validation videos, the coordinator computes mAP.
//!
//! Takes: the model without a tape. Gives: detections, video by video, to the coordinator.

use longtake_shared::dataset::Subset;
use longtake_shared::ids::Step;
use longtake_shared::units::{Seconds, TimeSegment};

use super::TrainError;
use super::agree::{Control, Wish};
use super::context::RunContext;
use super::report::Reporter;
use crate::control::{Detection, Directive, Stage, StepPhase};
use crate::infer::video::VideoDetector;
use crate::model::detector::Detector;

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
/// A video cannot be read, the generation was aborted, or the agent is gone.
pub fn validate(run: &RunContext, model: &Detector, step: Step) -> Result<Validated, TrainError> {
    let assignment = &run.assignment;
    let videos = run.dataset.subset(Subset::Validation);
    let own = videos.iter().skip(assignment.rank.index()).step_by(assignment.world);
    let mut reporter = Reporter::new(run, Stage::Validate, own.len() as u64, 0);
    // Chunks take the same time in every video; a whole video may be a hundred times as long as the one before.
    let next_chunk = || {
        run.session.enter(step, StepPhase::Validate);
        run.collective.check()
    };
    let detector = VideoDetector {
        model,
        config: &run.config,
        frames: &run.frames,
        device: &run.device,
        goes_on: Some(&next_chunk),
    };
    for &video in own {
        if Control::wishing(run.session.flags()).wish() != Wish::GoOn {
            break;
        }
        run.session.enter(step, StepPhase::Validate);
        let video = run.dataset.video(video);
        let detections: Vec<Detection> = detector
            .detect(&video.path)?
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
        run.session.detections(assignment.generation, step, &video.id, detections)?;
        reporter.unit();
    }
    let agreed = Control::wishing(run.session.flags()).sum(&run.collective)?;
    if agreed.wish() != Wish::GoOn {
        return Ok(Validated::LeftOff(agreed.wish()));
    }
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
