//! The whole detector: its configuration and weights as a case has them, and windows of frames to detections.

use std::sync::Arc;

use burn::tensor::Device;
use longtake_shared::config::{PastEnd, RunConfig};
use longtake_shared::random::Key;
use longtake_worker::infer::windows::WindowPlace;
use longtake_worker::model::detector::Detector;
use longtake_worker::model::heads::{HeadPass, Localizer, WindowBatch};
use longtake_worker::model::layers::Init;
use longtake_worker::model::norm::{LocalMoments, MomentsReducer};
use longtake_worker::model::pass::Pass;
use longtake_worker::tensors::NamedTensor;
use longtake_worker::tensors::named::load_named;
use serde::Deserialize;

use crate::backbone::{self, encoded};
use crate::head::neck_and_head_config;
use crate::infer::{check_candidates, suppressed};
use crate::support::{Case, Check, Runner, computed, values};

/// Modules that this file runs.
pub(crate) const RUNNERS: &[(&str, Runner)] =
    &[("InferEngine (model -> converter -> multiclass NMS)*", windows)];

/// The settings of a case that has a whole detector.
pub(crate) fn run_config(case: &Case) -> Result<RunConfig, String> {
    let mut config = RunConfig::default();
    config.data.window_frames = case.integer("frames")?;
    config.data.clip_frames = case.integer("chunk")?;
    config.model.backbone = backbone::config(case, "/model/backbone")?;
    config.model.backbone.frozen_stages = case.parsed("/model/backbone/frozen_stages")?;
    (config.model.neck, config.model.head) = neck_and_head_config(case, "/model")?;
    Ok(config)
}

/// The detector of a case with its weights, without a tape. All weights of the case are used but computed tables.
pub(crate) fn detector(case: &Case, config: &RunConfig, device: &Device) -> Result<Detector, String> {
    let weights = case.names("weights.").into_iter().map(|name| {
        let values = case.floats(name)?.to_vec();
        let key = name.trim_start_matches("weights.").to_owned();
        Ok(NamedTensor::f32(key, case.shape(name)?.to_vec(), values))
    });
    let weights: Vec<NamedTensor> = weights.collect::<Result<_, String>>()?;
    let module = Detector::new(config, case.integer("ncls")?, &Init::new(device, Key::root(0)));
    let (module, loaded) = load_named(module, &weights);
    let unused: Vec<&String> = loaded.unused.iter().filter(|name| !computed(name)).collect();
    if loaded.missing.is_empty() && unused.is_empty() {
        Ok(module)
    } else {
        Err(format!("missing weights {:?}, weights of no parameter {unused:?}", loaded.missing))
    }
}

#[derive(Deserialize)]
struct Window {
    tsize: usize,
    tshift: usize,
    fps: f32,
}

fn windows(case: &Case) -> Result<(), String> {
    let config = run_config(case)?;
    let device = Device::flex();
    let detector = detector(case, &config, &device)?;
    let sums: Arc<dyn MomentsReducer> = Arc::new(LocalMoments);
    let cx = HeadPass { pass: Pass::Evaluate, sums: &sums };
    let mut check = Check::new(case);
    let mut detections = Vec::new();
    let windows: Vec<Window> = case.parsed("/config/windows")?;
    for (index, Window { tsize, tshift, fps }) in windows.into_iter().enumerate() {
        let frames = case.tensor::<5>(&format!("input.window{index}.imgs"))?.inner();
        let features_bct = encoded(&detector.backbone, &frames, config.data.clip_frames, &device);
        let lengths = [config.geometry().rows(tsize)];
        let batch = WindowBatch { features_bct, lengths: &lengths, weights: &[1.0] };
        let Localizer::DaoTad(daotad) = &detector.detection;
        let output = daotad
            .forward(batch.features_bct.clone(), batch.weights, cx.pass, cx.sums)
            .map_err(|e| e.to_string())?;
        for (level, (logits, offsets)) in output.class_logits.iter().zip(&output.offsets).enumerate() {
            check.output(&format!("output.window{index}.cls.{level}"), &values(logits));
            check.output(&format!("output.window{index}.reg.{level}"), &values(offsets));
        }
        let place = WindowPlace { start: tshift, frames: tsize, fps, past_end: PastEnd::Clip };
        let found = detector.detection.detect(&batch, case.integer("nms_pre")?, cx);
        let found = found.map_err(|e| e.to_string())?;
        let prefix = format!("output.window{index}.");
        check_candidates(&mut check, &prefix, found[0].classes + 1, &found[0], place);
        detections.extend(place.detections(&found[0], case.float("score_thr")? as f32));
    }
    let kept = suppressed(case, &detections)?.detections;
    for class in 0..case.integer("ncls")? {
        let rows: Vec<f32> = kept
            .iter()
            .filter(|detection| detection.label == class)
            .flat_map(|detection| [detection.segment[0], detection.segment[1], detection.score])
            .collect();
        check.absolute(&format!("output.dets.{class}"), &rows, "dets_abs");
    }
    check.finish()
}
