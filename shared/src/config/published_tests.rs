//! The shipped THUMOS14 configuration has the published numbers, each with where it is published.

use std::path::Path;

use super::load;

/// Setting, value, source: a section of the project's specifications, which follow TALLFormer's paper and its published
/// `configs/trainval/thumos/1.0.0-vswin_b_256x256-12GB.py`.
const PUBLISHED: [(&str, &str, &str); 59] = [
    // Data.
    ("run.seed", "10", "spec 40.9"),
    ("data.fps", "15.0", "spec 40.8"),
    ("data.frame_height", "256", "frames on disk are 256x256; spec 40.8"),
    ("data.frame_width", "256", "frames on disk are 256x256; spec 40.8"),
    ("data.crop", "224", "spec 40.8, step 3"),
    ("data.window_frames", "480", "32 s at 15 frames a second; spec 40.1"),
    ("data.clip_frames", "32", "spec 20.4"),
    ("data.min_overlap", "0.75", "spec 40.8, step 1"),
    ("data.mean", "[123.675, 116.28, 103.53]", "spec 40.8, step 7"),
    ("data.std", "[58.395, 57.12, 57.375]", "spec 40.8, step 7"),
    ("data.train_subset", "\"val\"", "THUMOS14 is trained on its validation set; spec 70.1"),
    ("data.validation_subset", "\"test\"", "and judged on its test set; spec 70.1"),
    ("data.augment.photometric", "0.5", "spec 40.8, step 4"),
    ("data.augment.rotation", "0.5", "spec 40.8, step 5"),
    ("data.augment.rotation_degrees", "45.0", "spec 40.8, step 5"),
    ("data.augment.flip", "0.5", "spec 40.8, step 6"),
    // Backbone: Video Swin-B.
    ("model.backbone.variant", "\"base\"", "spec 10"),
    ("model.backbone.drop_path", "0.2", "spec 20.3"),
    ("model.backbone.frozen_stages", "2", "spec 10.6"),
    // Neck: reduction, TCM, TDM, FPN.
    ("model.neck.channels", "512", "the reduction's channels; spec 40.1"),
    ("model.neck.tcm_layers", "3", "three layers; spec 30.2"),
    ("model.neck.tcm_heads", "16", "spec 30.2"),
    ("model.neck.tcm_drop_path", "0.1", "spec 30.2"),
    ("model.neck.tdm_heads", "8", "spec 40.2"),
    ("model.neck.tdm_dropout", "0.1", "spec 40.2"),
    ("model.neck.tdm_kernels", "[7, 7, 5, 5]", "spec 40.2"),
    ("model.neck.fpn_channels", "256", "spec 40.3"),
    // Head and losses: DaoTAD's.
    ("model.head.convs", "4", "spec 40.4"),
    ("model.head.scales_per_octave", "5", "spec 40.5"),
    ("model.head.octave_base_scale", "2.0", "spec 40.5"),
    ("model.loss.positive_iou", "0.6", "spec 40.7"),
    ("model.loss.negative_iou", "0.4", "spec 40.7"),
    ("model.loss.min_positive_iou", "0.0", "spec 40.7"),
    ("model.loss.focal_alpha", "0.25", "spec 40.7"),
    ("model.loss.focal_gamma", "2.0", "spec 40.7"),
    // Long memory.
    ("memory.sampling_rate", "0.15", "the setting of 12 GB; spec 20.4 and 20.8"),
    ("memory.sampler", "\"random\"", "spec 20.4, step 1"),
    ("memory.dtype", "\"f32\"", "the published bank holds 32-bit rows; spec 20.2"),
    ("memory.init", "\"extract\"", "spec 20.3"),
    ("memory.init_in_train_mode", "true", "the published bank is filled in training mode; spec 20.3"),
    // Optimisation.
    ("optim.kind", "\"sgd\"", "spec 40.9"),
    ("optim.learning_rate", "0.01", "spec 40.9"),
    ("optim.momentum", "0.9", "spec 40.9"),
    ("optim.weight_decay", "0.0001", "spec 40.9"),
    ("optim.backbone_multiplier", "0.4", "spec 40.9"),
    ("optim.clip_norm", "0.0", "gradients are not clipped; spec 40.9"),
    ("optim.schedule.period", "100", "spec 40.9"),
    ("optim.schedule.floor", "0.01", "spec 40.9"),
    ("optim.schedule.warmup_steps", "500", "spec 40.9"),
    ("optim.schedule.warmup_start", "0.1", "spec 40.9"),
    ("train.lanes", "16", "4 GPUs of 4 windows; spec 40.9"),
    ("train.epochs", "1000", "spec 40.9"),
    // Inference and judgement.
    ("evaluation.tiou", "[0.3, 0.4, 0.5, 0.6, 0.7]", "the mean of .3:.1:.7; spec 40.11"),
    ("evaluation.window_stride", "0.75", "windows of 480 every 360 frames; spec 40.10, step 1"),
    ("evaluation.score_threshold", "0.005", "spec 40.10, step 4"),
    ("evaluation.nms", "\"nmw\"", "spec 60.2"),
    ("evaluation.nms_threshold", "0.5", "spec 40.10, step 4"),
    ("evaluation.past_end", "\"clip\"", "candidates are clipped to the window; spec 40.10, step 3"),
    ("evaluation.max_detections", "1200", "spec 40.10, step 4"),
];

#[test]
fn the_thumos14_configuration_has_the_published_numbers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/thumos14_video_swin_b_daotad.toml");
    let rows = load(&path, std::iter::empty(), &[]).unwrap().rows();
    for (key, published, source) in PUBLISHED {
        let row = rows.iter().find(|(name, ..)| name == key).unwrap_or_else(|| panic!("no setting `{key}`"));
        assert_eq!(row.1, published, "`{key}`: {source}");
        assert!(row.2.contains("thumos14_video_swin_b_daotad.toml:"), "`{key}` is left to the {}", row.2);
    }
}
