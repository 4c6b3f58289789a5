//! Videos, annotations, and how a window of frames is cut from them.

use serde::{Deserialize, Serialize};

use crate::units::ByteCount;

/// Videos, annotations, windows, augmentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Layout of the annotations.
    pub format: AnnotationFormat,
    /// Annotation file (ActivityNet layout), or folder of text files (THUMOS14 layout).
    pub annotations: String,
    /// Folder of the videos.
    pub videos: String,
    /// Subset to train on; the usual aliases are understood and printed.
    pub train_subset: String,
    /// Subset to validate on.
    pub validation_subset: String,
    /// File with one class name a line, in order; empty: the classes of the annotations, sorted.
    pub classes: String,
    /// Video ids left out, as a JSON array in a file; empty: none.
    pub blocked: String,
    /// What becomes of the two test videos of THUMOS14 with wrong or no labels.
    pub disputed_videos: DisputedVideos,
    /// Frames a second that a video is sampled at.
    pub fps: f64,
    /// Height that every frame is resized to, in pixels (aspect ratio is not kept).
    pub frame_height: usize,
    /// Width that every frame is resized to, in pixels.
    pub frame_width: usize,
    /// Side of the square that is cropped from a frame (at random in training, centred otherwise).
    pub crop: usize,
    /// Frames of a window; a multiple of `clip_frames`.
    pub window_frames: usize,
    /// Frames of a clip.
    pub clip_frames: usize,
    /// Whether windows start at even frames only, so that remembered rows and clips fall on the same frames.
    pub even_start: bool,
    /// Whether the division into clips moves each epoch: 0 to `clip_frames` - 1 frames are added in front, the rest behind.
    pub clip_shift: bool,
    /// An action is kept if at least this much of it, or of the window, lies in their overlap.
    pub min_overlap: f64,
    /// Mean of the R, G and B values (0 to 255) that is subtracted.
    pub mean: [f64; 3],
    /// What the R, G and B values are divided by.
    pub std: [f64; 3],
    /// Which decoder reads the videos.
    pub decoder: DecoderChoice,
    /// Whether the readable part of a truncated video may be used.
    pub allow_truncated: bool,
    /// Largest share of damaged videos, of those of a subset, that a run leaves out; with a larger one it does not begin, or ends.
    pub max_damaged: f64,
    /// Decoded and resized frames that a worker keeps in memory.
    pub frame_cache: ByteCount,
    /// Steps whose frames are decoded ahead.
    pub prefetch: usize,
    /// Random changes to the frames of a training window.
    pub augment: AugmentConfig,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            format: AnnotationFormat::ActivityNet,
            annotations: String::new(),
            videos: String::new(),
            train_subset: "training".into(),
            validation_subset: "validation".into(),
            classes: String::new(),
            blocked: String::new(),
            disputed_videos: DisputedVideos::Dropped,
            fps: 15.0,
            frame_height: 256,
            frame_width: 256,
            crop: 224,
            window_frames: 480,
            clip_frames: 32,
            even_start: false,
            clip_shift: false,
            min_overlap: 0.75,
            mean: [123.675, 116.28, 103.53],
            std: [58.395, 57.12, 57.375],
            decoder: DecoderChoice::Auto,
            allow_truncated: false,
            max_damaged: 0.01,
            frame_cache: ByteCount(512 << 20),
            prefetch: 2,
            augment: AugmentConfig::default(),
        }
    }
}

impl DataConfig {
    /// Clips of a window, as divided without a shift.
    pub fn clips(&self) -> usize {
        self.window_frames / self.clip_frames.max(1)
    }

    /// Whether a run may leave out `damaged` of the `videos` of a subset.
    pub fn tolerates(&self, damaged: usize, videos: usize) -> bool {
        // A quotient, since that of 29 and 100 is what `0.29` is read as; their product with the share may be rounded down.
        damaged == 0 || damaged as f64 / videos as f64 <= self.max_damaged
    }
}

/// Layout of the annotations (spec 70).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationFormat {
    /// One JSON file with a `database`.
    ActivityNet,
    /// A folder of `<Class>_val.txt` and `<Class>_test.txt`, or the JSON made of them.
    Thumos14,
}

/// What becomes of the two test videos of THUMOS14 with wrong or no labels (decision D18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DisputedVideos {
    /// They are left out, as in OpenTAD and ActionFormer.
    Dropped,
    /// They count, as in TALLFormer.
    Kept,
}

/// Which decoder reads the videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderChoice {
    /// The embedded one where it can, `ffmpeg` for everything else.
    Auto,
    /// The embedded one (progressive H.264 in MP4) or an error.
    Embedded,
    /// The program `ffmpeg` on PATH or an error.
    Ffmpeg,
}

/// Random changes to the frames of a training window: one draw a window, the same for all its frames (spec 40, section 8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Probability of the photometric distortion (brightness, contrast, saturation, hue, channel order).
    pub photometric: f64,
    /// Probability of a rotation.
    pub rotation: f64,
    /// Largest rotation, in degrees to either side.
    pub rotation_degrees: f64,
    /// After normalisation: values are multiplied by 1 ± this.
    pub gain: f64,
    /// The same for each channel on its own, added to the gain.
    pub channel_gain: f64,
    /// After normalisation: ± this is added.
    pub bias: f64,
    /// The same for each channel on its own.
    pub channel_bias: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            flip: 0.5,
            photometric: 0.5,
            rotation: 0.5,
            rotation_degrees: 45.0,
            gain: 0.0,
            channel_gain: 0.0,
            bias: 0.0,
            channel_bias: 0.0,
        }
    }
}
