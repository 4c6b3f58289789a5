//! Checks a configuration against the rules, section by section, alone and together.

use super::rules::{BrokenRule, Range};
use super::{MemoryConfig, OptimConfig, RunConfig, SynthConfig, TEMPORAL_REDUCTION, Variant, Warmup};
use crate::objects::{LocationError, check_url as check_url_of_store};

/// Blocks of the published backbones lie in this many stages (spec 10).
const PUBLISHED_STAGES: usize = 4;

/// Smallest threshold of suppression, so that single precision does not round it to 0.
const SMALLEST_THRESHOLD: f64 = 1e-6;
/// `evaluation.max_detections` for no limit.
const ALL_DETECTIONS: i64 = -1;

type Outcome = Result<(), BrokenRule>;

impl RunConfig {
    /// Checks every rule, in the order of the sections.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), BrokenRule> {
        self.check_run()?;
        self.check_data()?;
        self.synth.as_ref().map_or(Ok(()), check_synth)?;
        self.check_backbone()?;
        self.check_neck_and_head()?;
        check_memory(&self.memory, self.data.clips())?;
        check_optim("optim", &self.optim)?;
        self.check_stages()?;
        self.check_evaluation()?;
        self.check_cluster()
    }

    fn check_run(&self) -> Outcome {
        let name = &self.run.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(allowed) {
            return Err(BrokenRule::BadRunName { name: name.clone() });
        }
        filled("run.folder", self.run.folder.is_empty())
    }

    fn check_data(&self) -> Outcome {
        let data = &self.data;
        let augment = &data.augment;
        filled("data.train_subset", data.train_subset.is_empty())?;
        filled("data.validation_subset", data.validation_subset.is_empty())?;
        ranges(&[
            ("data.fps", data.fps, Range::Positive),
            ("data.frame_height", data.frame_height as f64, Range::AtLeast(1.0)),
            ("data.frame_width", data.frame_width as f64, Range::AtLeast(1.0)),
            ("data.crop", data.crop as f64, Range::AtLeast(1.0)),
            ("data.clip_frames", data.clip_frames as f64, Range::AtLeast(2.0)),
            ("data.window_frames", data.window_frames as f64, Range::AtLeast(2.0)),
            ("data.min_overlap", data.min_overlap, Range::Fraction),
            ("data.max_damaged", data.max_damaged, Range::Fraction),
            ("data.augment.flip", augment.flip, Range::Fraction),
            ("data.augment.photometric", augment.photometric, Range::Fraction),
            ("data.augment.rotation", augment.rotation, Range::Fraction),
            ("data.augment.rotation_degrees", augment.rotation_degrees, Range::Between(0.0, 180.0)),
            ("data.augment.gain", augment.gain, Range::BelowOne),
            ("data.augment.channel_gain", augment.channel_gain, Range::BelowOne),
            ("data.augment.bias", augment.bias, Range::NotNegative),
            ("data.augment.channel_bias", augment.channel_bias, Range::NotNegative),
        ])?;
        each("data.std", &data.std, Range::Positive)?;
        each("data.mean", &data.mean, Range::Between(f64::MIN, f64::MAX))?;
        even("data.clip_frames", data.clip_frames)?;
        if !data.window_frames.is_multiple_of(data.clip_frames) {
            return Err(BrokenRule::WindowNotClips { window: data.window_frames, clip: data.clip_frames });
        }
        if data.crop > data.frame_width.min(data.frame_height) {
            return Err(BrokenRule::CropTooLarge {
                crop: data.crop,
                width: data.frame_width,
                height: data.frame_height,
            });
        }
        Ok(())
    }

    fn check_backbone(&self) -> Outcome {
        let backbone = &self.model.backbone;
        let stages = match backbone.variant {
            Variant::Tiny | Variant::Small | Variant::Base => PUBLISHED_STAGES,
            Variant::Custom => backbone.depths.len(),
        };
        ranges(&[
            ("model.backbone.embed_dim", backbone.embed_dim as f64, Range::AtLeast(1.0)),
            ("model.backbone.mlp_ratio", backbone.mlp_ratio, Range::Positive),
            ("model.backbone.drop_path", backbone.drop_path, Range::BelowOne),
            (
                "model.backbone.frozen_stages",
                backbone.frozen_stages as f64,
                Range::Between(-1.0, stages as f64),
            ),
        ])?;
        each("model.backbone.patch_size", &floats(&backbone.patch_size), Range::AtLeast(1.0))?;
        each("model.backbone.patch_size", &floats(&backbone.patch_size[..1]), Range::Exactly(2.0))?;
        each("model.backbone.window_size", &floats(&backbone.window_size), Range::AtLeast(1.0))?;
        if !matches!(backbone.variant, Variant::Custom) {
            return Ok(());
        }
        filled("model.backbone.depths", backbone.depths.is_empty())?;
        if backbone.depths.len() != backbone.num_heads.len() {
            return Err(BrokenRule::StagesDiffer {
                depths: backbone.depths.len(),
                heads: backbone.num_heads.len(),
            });
        }
        each("model.backbone.depths", &floats(&backbone.depths), Range::AtLeast(1.0))?;
        let mut width = backbone.embed_dim;
        for heads in &backbone.num_heads {
            divides("model.backbone.num_heads", *heads, width)?;
            width = width.saturating_mul(2);
        }
        Ok(())
    }

    fn check_neck_and_head(&self) -> Outcome {
        let (neck, head, loss) = (&self.model.neck, &self.model.head, &self.model.loss);
        ranges(&[
            ("model.neck.channels", neck.channels as f64, Range::AtLeast(1.0)),
            ("model.neck.tcm_drop_path", neck.tcm_drop_path, Range::BelowOne),
            ("model.neck.tdm_dropout", neck.tdm_dropout, Range::BelowOne),
            ("model.neck.fpn_channels", neck.fpn_channels as f64, Range::AtLeast(1.0)),
            ("model.head.scales_per_octave", head.scales_per_octave as f64, Range::AtLeast(1.0)),
            ("model.head.octave_base_scale", head.octave_base_scale, Range::Positive),
            ("model.loss.positive_iou", loss.positive_iou, Range::Share),
            ("model.loss.negative_iou", loss.negative_iou, Range::Fraction),
            ("model.loss.min_positive_iou", loss.min_positive_iou, Range::Fraction),
            ("model.loss.focal_alpha", loss.focal_alpha, Range::Fraction),
            ("model.loss.focal_gamma", loss.focal_gamma, Range::NotNegative),
        ])?;
        if neck.tcm_layers > 0 {
            divides("model.neck.tcm_heads", neck.tcm_heads, neck.channels)?;
        }
        divides("model.neck.tdm_heads", neck.tdm_heads, neck.channels)?;
        let even_band = |kernel: &&usize| **kernel > 0 && kernel.is_multiple_of(2);
        if let Some(kernel) = neck.tdm_kernels.iter().find(even_band) {
            return Err(BrokenRule::EvenKernel { kernel: *kernel });
        }
        let (levels, window) = (neck.tdm_kernels.len() + 1, self.data.window_frames);
        let finest_stride = self.geometry().stride * TEMPORAL_REDUCTION;
        let positions = window / finest_stride;
        if positions < levels {
            return Err(BrokenRule::TooManyLevels { levels, window, positions, finest_stride });
        }
        ordered(
            ("model.loss.negative_iou", loss.negative_iou),
            ("model.loss.positive_iou", loss.positive_iou),
        )?;
        ordered(
            ("model.loss.min_positive_iou", loss.min_positive_iou),
            ("model.loss.positive_iou", loss.positive_iou),
        )
    }

    fn check_stages(&self) -> Outcome {
        let (train, pretrain) = (&self.train, &self.pretrain);
        ranges(&[
            ("train.lanes", train.lanes as f64, Range::AtLeast(1.0)),
            ("train.epochs", train.epochs as f64, Range::NotNegative),
            ("train.max_non_finite", train.max_non_finite as f64, Range::AtLeast(1.0)),
            ("pretrain.batch", pretrain.batch as f64, Range::AtLeast(1.0)),
            ("pretrain.clip_frames", pretrain.clip_frames as f64, Range::AtLeast(2.0)),
            ("pretrain.background", pretrain.background, Range::Fraction),
        ])?;
        even("pretrain.clip_frames", pretrain.clip_frames)?;
        check_optim("pretrain.optim", &pretrain.optim)
    }

    fn check_evaluation(&self) -> Outcome {
        let evaluation = &self.evaluation;
        filled("evaluation.tiou", evaluation.tiou.is_empty())?;
        each("evaluation.tiou", &evaluation.tiou, Range::Share)?;
        ranges(&[
            ("evaluation.window_stride", evaluation.window_stride, Range::Share),
            ("evaluation.score_threshold", evaluation.score_threshold, Range::BelowOne),
            ("evaluation.top_k", evaluation.top_k as f64, Range::AtLeast(1.0)),
            ("evaluation.nms_threshold", evaluation.nms_threshold, Range::AtLeast(SMALLEST_THRESHOLD)),
            ("evaluation.soft_floor", evaluation.soft_floor, Range::BelowOne),
        ])?;
        if evaluation.max_detections == 0 || evaluation.max_detections < ALL_DETECTIONS {
            return Err(BrokenRule::NoDetections { value: evaluation.max_detections });
        }
        Ok(())
    }

    fn check_cluster(&self) -> Outcome {
        let (cluster, checkpoint) = (&self.cluster, &self.checkpoint);
        ranges(&[
            ("cluster.workers", cluster.workers as f64, Range::AtLeast(1.0)),
            ("cluster.lease", cluster.lease.0, Range::Positive),
            ("cluster.coordinator_grace", cluster.coordinator_grace.0, Range::NotNegative),
            ("cluster.gather_timeout", cluster.gather_timeout.0, Range::Positive),
            ("cluster.bucket", cluster.bucket.0 as f64, Range::AtLeast(4.0)),
            ("cluster.phase_deadline", cluster.phase_deadline.0, Range::Positive),
            ("cluster.stop_grace", cluster.stop_grace.0, Range::Positive),
            ("checkpoint.interval", checkpoint.interval.0, Range::NotNegative),
            ("memory.replicas", self.memory.replicas as f64, Range::Between(0.0, 1.0)),
            ("checkpoint.keep", checkpoint.keep as f64, Range::AtLeast(1.0)),
        ])?;
        if cluster.workers > self.train.lanes {
            return Err(BrokenRule::TooManyWorkers { workers: cluster.workers, lanes: self.train.lanes });
        }
        if cluster.min_workers > cluster.workers {
            return Err(BrokenRule::WrongOrder {
                low: "cluster.min_workers",
                low_value: cluster.min_workers as f64,
                high: "cluster.workers",
                high_value: cluster.workers as f64,
            });
        }
        if !is_address(&cluster.listen) {
            return Err(BrokenRule::BadAddress { address: cluster.listen.clone() });
        }
        check_url(&checkpoint.url)
    }
}

fn check_url(url: &str) -> Outcome {
    let bad = |problem: String| Err(BrokenRule::BadUrl { url: url.to_owned(), problem });
    if url.is_empty() {
        return Ok(());
    }
    if url::Url::parse(url).is_err() {
        return bad("which is not a URL".to_owned());
    }
    match check_url_of_store(url) {
        Err(LocationError::NotAUrl { problem, .. }) => bad(format!("but {problem}")),
        _ => Ok(()),
    }
}

fn check_memory(memory: &MemoryConfig, clips: usize) -> Outcome {
    ranges(&[
        ("memory.sampling_rate", memory.sampling_rate, Range::Fraction),
        ("memory.chunk_clips", memory.chunk_clips as f64, Range::AtLeast(1.0)),
    ])?;
    if memory.sampling_rate > 0.0 && memory.sampled_clips(clips) == 0 {
        return Err(BrokenRule::NoClipSampled { rate: memory.sampling_rate, clips });
    }
    Ok(())
}

fn check_optim(section: &str, optim: &OptimConfig) -> Outcome {
    let schedule = &optim.schedule;
    let below = |key: &str| format!("{section}.{key}");
    for (key, value, range) in [
        ("learning_rate", optim.learning_rate, Range::NotNegative),
        ("weight_decay", optim.weight_decay, Range::NotNegative),
        ("momentum", optim.momentum, Range::BelowOne),
        ("betas", optim.betas[0], Range::BelowOne),
        ("betas", optim.betas[1], Range::BelowOne),
        ("epsilon", optim.epsilon, Range::Positive),
        ("backbone_multiplier", optim.backbone_multiplier, Range::NotNegative),
        ("clip_norm", optim.clip_norm, Range::NotNegative),
        ("schedule.floor", schedule.floor, Range::Fraction),
        ("schedule.warmup_start", schedule.warmup_start, Range::Fraction),
    ] {
        within(&below(key), value, range)?;
    }
    if schedule.warmup_steps > 0 && schedule.warmup_start == 0.0 && schedule.warmup != Warmup::Linear {
        return Err(BrokenRule::WarmupAtZero { key: below("schedule.warmup_start") });
    }
    Ok(())
}

fn check_synth(synth: &SynthConfig) -> Outcome {
    ranges(&[
        ("synth.training_videos", synth.training_videos as f64, Range::AtLeast(1.0)),
        ("synth.validation_videos", synth.validation_videos as f64, Range::AtLeast(1.0)),
        ("synth.min_duration", synth.min_duration.0, Range::AtLeast(1.0)),
        ("synth.fps", synth.fps, Range::Positive),
        ("synth.width", synth.width as f64, Range::AtLeast(16.0)),
        ("synth.height", synth.height as f64, Range::AtLeast(16.0)),
        ("synth.classes", synth.classes as f64, Range::AtLeast(1.0)),
    ])?;
    even("synth.width", synth.width)?;
    even("synth.height", synth.height)?;
    ordered(("synth.min_duration", synth.min_duration.0), ("synth.max_duration", synth.max_duration.0))
}

fn within(key: &str, value: f64, range: Range) -> Outcome {
    if range.holds(value) {
        return Ok(());
    }
    Err(BrokenRule::OutOfRange { key: key.to_owned(), value, range })
}

fn ranges(checks: &[(&str, f64, Range)]) -> Outcome {
    checks.iter().try_for_each(|(key, value, range)| within(key, *value, *range))
}

fn each(key: &str, values: &[f64], range: Range) -> Outcome {
    values.iter().try_for_each(|value| within(key, *value, range))
}

fn filled(key: &'static str, empty: bool) -> Outcome {
    if empty { Err(BrokenRule::Empty { key }) } else { Ok(()) }
}

fn even(key: &'static str, value: usize) -> Outcome {
    if value.is_multiple_of(2) { Ok(()) } else { Err(BrokenRule::Odd { key, value }) }
}

fn divides(key: &'static str, heads: usize, width: usize) -> Outcome {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    Err(BrokenRule::HeadsDontDivide { key, heads, width })
}

fn ordered(low: (&'static str, f64), high: (&'static str, f64)) -> Outcome {
    if low.1 <= high.1 {
        return Ok(());
    }
    Err(BrokenRule::WrongOrder { low: low.0, low_value: low.1, high: high.0, high_value: high.1 })
}

/// `host:port`; the host is looked up when it is listened on, not here.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn floats(values: &[usize]) -> Vec<f64> {
    values.iter().map(|value| *value as f64).collect()
}
