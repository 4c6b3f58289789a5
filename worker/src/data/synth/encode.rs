//! A script becomes an H.264 stream, by OpenH264 with one thread and a fixed quantiser: the same bytes each time.

use longtake_shared::config::SynthConfig;
use openh264::OpenH264API;
use openh264::encoder::{
    Complexity, Encoder, EncoderConfig, FrameRate, IntraFramePeriod, Profile, RateControlMode, VuiConfig,
};
use openh264::formats::YUVSlices;

use super::draw::Painter;
use super::script::Script;

/// An H.264 stream as an MP4 file stores it.
pub(super) struct Stream {
    pub(super) sps: Vec<u8>,
    pub(super) pps: Vec<u8>,
    /// NAL units of all pictures, each behind its length in four bytes.
    pub(super) data: Vec<u8>,
    /// Per picture: its bytes in `data`, and whether decoding can start there.
    pub(super) pictures: Vec<(u32, bool)>,
}

/// Seconds between pictures that decoding can start at.
const KEY_INTERVAL: f64 = 2.0;
/// Types of NAL units (ITU-T H.264, table 7-1).
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Draws and encodes all frames; the error is OpenH264's.
pub(super) fn encode(config: &SynthConfig, script: &Script) -> Result<Stream, String> {
    let settings = EncoderConfig::new()
        .profile(Profile::Baseline)
        .complexity(Complexity::Low)
        .rate_control_mode(RateControlMode::Off)
        .max_frame_rate(FrameRate::from_hz(config.fps as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames((KEY_INTERVAL * config.fps).ceil() as u32))
        .skip_frames(false)
        .scene_change_detect(false)
        .adaptive_quantization(false)
        .background_detection(false)
        .num_threads(1)
        .vui(VuiConfig::bt601());
    let failed = |error: openh264::Error| error.to_string();
    let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), settings).map_err(failed)?;
    let mut painter = Painter::new(script, config.width, config.height);
    let mut stream = Stream { sps: Vec::new(), pps: Vec::new(), data: Vec::new(), pictures: Vec::new() };
    for number in 0..script.frames {
        let canvas = painter.frame(number);
        let planes = (canvas.luma.as_slice(), canvas.blue.as_slice(), canvas.red.as_slice());
        let strides = (canvas.width, canvas.width / 2, canvas.width / 2);
        let picture = YUVSlices::new(planes, (canvas.width, canvas.height), strides);
        let bits = encoder.encode(&picture).map_err(failed)?;
        let before = stream.data.len();
        let mut key = false;
        for layer in (0..bits.num_layers()).filter_map(|at| bits.layer(at)) {
            for nal in (0..layer.nal_count()).filter_map(|at| layer.nal_unit(at)) {
                key |= stream.add(nal);
            }
        }
        let size = stream.data.len() - before;
        if size == 0 {
            return Err(format!("OpenH264 gives nothing for frame {number}"));
        }
        stream.pictures.push((u32::try_from(size).map_err(|error| error.to_string())?, key));
    }
    Ok(stream)
}

impl Stream {
    /// Takes one NAL unit with its start code; true for an IDR slice.
    fn add(&mut self, nal: &[u8]) -> bool {
        let zeros = nal.iter().take_while(|byte| **byte == 0).count();
        let nal = nal.get(zeros + 1..).unwrap_or_default();
        match nal.first().map(|header| header & 0x1f) {
            Some(SPS) => self.sps = nal.to_vec(),
            Some(PPS) => self.pps = nal.to_vec(),
            Some(kind) => {
                self.data.extend_from_slice(&(nal.len() as u32).to_be_bytes());
                self.data.extend_from_slice(nal);
                return kind == IDR_SLICE;
            }
            None => {}
        }
        false
    }
}
