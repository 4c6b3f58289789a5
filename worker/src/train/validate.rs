//! The detector is evaluated: each rank runs its share of the validation videos, the coordinator computes mAP.
//!
//! Takes: the model without a tape. Gives: detections, video by video, to the coordinator.

use longtake_shared::dataset::Subset;
use longtake_shared::ids::Step;
use longtake_shared::units::Seconds;

use super::TrainError;
use super::agree::Control;
use super::context::RunContext;
use super::report::Reporter;
use crate::collective::CollectiveError;
use crate::control::{Detection, Directive, Stage, StepPhase};
use crate::infer::video::VideoDetector;
use crate::model::detector::Detector;

/// Hands over the detections of this rank's share of the validation videos, and waits for the average mAP over all. Gives
/// none where a stop is wished before every rank is done: all ranks then leave off, and the run validates again when it
/// goes on.
///
/// # Errors
/// A video cannot be read, the generation was aborted, or the agent is gone.
pub fn validate(run: &RunContext, model: &Detector, step: Step) -> Result<Option<f64>, TrainError> {
    let assignment = &run.assignment;
    let videos = run.dataset.subset(Subset::Validation);
    let own = videos.iter().skip(assignment.rank.index()).step_by(assignment.world);
    let mut reporter = Reporter::new(run, Stage::Validate, own.len() as u64, 0);
    let detector = VideoDetector { model, config: &run.config, frames: &run.frames, device: &run.device };
    for &video in own {
        if run.session.flags().stop {
            break;
        }
        run.session.enter(step, StepPhase::Validate);
        let video = run.dataset.video(video);
        let detections: Vec<Detection> = detector
            .detect(&video.path)?
            .into_iter()
            .map(|found| Detection {
                label: found.label as u32,
                start: Seconds(f64::from(found.segment[0])),
                end: Seconds(f64::from(found.segment[1])),
                score: f64::from(found.score),
            })
            .collect();
        run.session.detections(assignment.generation, step, &video.id, &detections)?;
        reporter.unit();
    }
    run.session.enter(step, StepPhase::Reduce);
    let stop = Control { stop: f32::from(u8::from(run.session.flags().stop)), ..Control::default() };
    if stop.sum(&run.collective)?.stop > 0.0 {
        return Ok(None);
    }
    run.session.validation_done(assignment.generation, step)?;
    loop {
        match run.session.next_directive()? {
            Directive::Validated { step: validated, average_map, .. } if validated == step => {
                return Ok(Some(average_map));
            }
            Directive::Abort { generation, reason } if generation == assignment.generation => {
                return Err(CollectiveError::Aborted { reason }.into());
            }
            _ => {}
        }
    }
}
