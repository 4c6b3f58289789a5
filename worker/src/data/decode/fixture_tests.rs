//! Every file of `tests/fixtures/decode` behaves as `fixtures.json` says, with and without `ffmpeg`.

use std::path::PathBuf;
use std::process::Command;

use longtake_shared::config::{DataConfig, DecoderChoice};
use longtake_shared::hint::Hint as _;
use longtake_shared::units::FrameIndex;
use serde_json::Value;

use super::ffmpeg::Programs;
use super::{Decoder, Fault, FrameStore, Opened, open};
use crate::data::video::{DecoderKind, FrameBlock, VideoError, VideoReader};

/// What the embedded decoder takes; all other files that can be decoded need ffmpeg.
const EMBEDDED: [&str; 11] = [
    "h264_4095_frames.mp4",
    "h264_baseline_15fps.mp4",
    "h264_faststart.mp4",
    "h264_fragmented.mp4",
    "h264_high_23_976fps.mp4",
    "h264_main_bframes_30fps.mp4",
    "h264_moov_at_end.mp4",
    "h264_odd_size.mp4",
    "h264_rotated_90.mp4",
    "h264_variable_rate.mp4",
    "h264_with_audio.mp4",
];

pub(super) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/decode").join(name)
}

fn expectations() -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(fixture("fixtures.json")).unwrap();
    let Value::Object(files) = serde_json::from_str(&text).unwrap() else { panic!("not an object") };
    files.into_iter().collect()
}

pub(super) fn ffmpeg_is_there(test: &str) -> bool {
    let there = Programs::find().is_some();
    if !there {
        println!("SKIPPED {test}: `ffmpeg` and `ffprobe` are not on PATH");
    }
    there
}

fn rate(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => {
            let (above, below) = text.split_once('/')?;
            Some(above.parse::<f64>().ok()? / below.parse::<f64>().ok()?)
        }
        None => value.as_f64(),
    }
}

/// The number that a frame of the coded size carries in its barcode; `None` if the guards are not there.
fn barcode(block: &FrameBlock, k: usize) -> Option<usize> {
    let cell = block.width / 16;
    let bright = |number: usize| {
        let (x, y) = (number * cell + cell / 2, cell / 2);
        block.frame(k)[(y * block.width + x) * 3 + 1] > 127
    };
    (bright(1) && !bright(2)).then(|| (3..15).fold(0, |value, cell| value << 1 | usize::from(bright(cell))))
}

/// Turns upright frames back as they were coded, for a video that is shown turned a quarter counter-clockwise.
fn turned_back(block: &FrameBlock) -> FrameBlock {
    let (height, width) = (block.width, block.height);
    let mut rgb = Vec::new();
    for k in 0..block.count {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let at = ((block.height - 1 - x) * block.width + y) * 3;
            rgb.extend_from_slice(&block.frame(k)[at..at + 3]);
        }
    }
    FrameBlock { height, width, rgb, ..block.clone() }
}

/// The barcodes of a video at a rate, at its own size.
fn barcodes(reader: &mut VideoReader, fps: f64, first: usize, count: usize) -> Vec<Option<usize>> {
    let info = reader.info();
    let mut block = reader.read(fps, FrameIndex(first as i64), count, info.height, info.width).unwrap();
    if block.height > block.width {
        block = turned_back(&block);
    }
    (0..block.count).map(|k| barcode(&block, k)).collect()
}

fn check_decodes(name: &str, expected: &Value, choice: DecoderChoice) {
    let mut reader =
        VideoReader::open(&fixture(name), choice, false).unwrap_or_else(|error| panic!("{error}"));
    let info = reader.info();
    let size = (expected["width"].as_u64().unwrap() as usize, expected["height"].as_u64().unwrap() as usize);
    let upright = if name == "h264_rotated_90.mp4" { (size.1, size.0) } else { size };
    assert_eq!((info.width, info.height), upright, "{name}");
    let (Some(frames), Some(fps)) = (expected["frames"].as_u64(), rate(&expected["fps"])) else {
        return;
    };
    assert_eq!(info.frames, frames, "{name}");
    let length = reader.sampled_length(fps);
    assert_eq!(length as u64, frames, "{name}");
    // The long file at its own rate: some parts. Its frames need no more to be sure of.
    let parts = if frames > 1000 { vec![(0, 40), (2500, 40), (4000, 95)] } else { vec![(0, length)] };
    for (first, count) in parts {
        let numbers: Vec<_> = (first..first + count).map(Some).collect();
        assert_eq!(barcodes(&mut reader, fps, first, count), numbers, "{name} from {first}");
    }
    for other in [15.0, 10.0, 7.5] {
        // Source k is shown from round(k * other / fps) on; halves round up.
        let shown = |k: usize| (k as f64 * other / fps + 0.5 + 1e-9).floor() as usize;
        let length = ((frames as f64 * other / fps) + 0.5 + 1e-9).floor() as usize;
        assert_eq!(reader.sampled_length(other), length, "{name} at {other}");
        let (first, count) = (length / 3, 25.min(length - length / 3));
        let expected: Vec<_> =
            (first..first + count).map(|at| (0..frames as usize).rev().find(|k| shown(*k) <= at)).collect();
        assert_eq!(barcodes(&mut reader, other, first, count), expected, "{name} at {other}");
    }
}

/// What is said of a file that must be refused, and what to do about it.
fn refusal(name: &str, choice: DecoderChoice, ffmpeg: bool) -> (&'static str, &'static str) {
    let by_ffmpeg = ffmpeg && choice != DecoderChoice::Embedded;
    let ffmpeg_refuses = ("cannot be read by `ffmpeg`: ", "try the file with `ffmpeg -v error -i FILE");
    match name {
        "audio_only.mp4" => ("has no video track", "remove the file from the annotations"),
        // Where ffmpeg is asked for, it is left to it to find this out.
        "truncated_half.mp4" if by_ffmpeg && choice == DecoderChoice::Ffmpeg => ffmpeg_refuses,
        "truncated_half.mp4" => {
            ("is cut short: its index (the box `moov`) is missing", "download or copy the file again")
        }
        "truncated_after_index.mp4" => ("is cut short: only its first ", "`data.allow_truncated = true`"),
        "empty.mp4" => ("is empty", "download or copy the file again"),
        "not_a_video.mp4" if by_ffmpeg => ffmpeg_refuses,
        "not_a_video.mp4" => {
            ("is not a video: its first bytes are of no ", "remove the file from the annotations")
        }
        other => panic!("{other} must be refused, but nothing says how"),
    }
}

fn check_refusal(name: &str, error: &VideoError, choice: DecoderChoice, ffmpeg: bool) {
    let (what, advice) = refusal(name, choice, ffmpeg);
    let (sentence, hint) = (error.to_string(), error.hint().unwrap());
    let expected = format!("video `{}` {what}", fixture(name).display());
    assert!(sentence.starts_with(&expected) && !sentence.contains('\n'), "{choice:?}: {sentence}");
    assert!(hint.contains(advice), "{choice:?}: {sentence}; {hint}");
}

/// Frames or a sentence with the file's name: a damaged file gives either.
fn check_damaged(name: &str, choice: DecoderChoice) {
    let named = format!("video `{}` ", fixture(name).display());
    let read = VideoReader::open(&fixture(name), choice, false).and_then(|mut reader| {
        let info = reader.info();
        assert!(info.width * info.height < 1 << 20, "{name}: {info:?}");
        reader.read(30.0, FrameIndex(0), usize::MAX, 24, 32)
    });
    match read {
        Ok(block) => assert_eq!(block.count, 300, "{name} by {choice:?}"),
        Err(error) => assert!(error.to_string().starts_with(&named), "{error}"),
    }
}

#[test]
fn the_embedded_decoder_reads_what_it_claims_to_and_refuses_the_rest_in_a_sentence() {
    for (name, expected) in expectations() {
        let opened = VideoReader::open(&fixture(&name), DecoderChoice::Embedded, false);
        match (expected["expect"].as_str().unwrap(), EMBEDDED.contains(&name.as_str())) {
            ("decode", true) => check_decodes(&name, &expected, DecoderChoice::Embedded),
            ("decode", false) => {
                let error = opened.err().unwrap();
                assert!(matches!(error.fault, Fault::Unsupported(_)), "{error}");
            }
            ("error", _) => {
                check_refusal(&name, &opened.err().unwrap(), DecoderChoice::Embedded, false);
            }
            ("no-crash", _) => check_damaged(&name, DecoderChoice::Embedded),
            (other, _) => panic!("{name}: unknown expectation {other}"),
        }
    }
}

#[test]
fn auto_decodes_every_file_that_can_be_decoded() {
    let with_ffmpeg = ffmpeg_is_there("auto_decodes_every_file_that_can_be_decoded (files of ffmpeg)");
    for (name, expected) in expectations() {
        let opened = VideoReader::open(&fixture(&name), DecoderChoice::Auto, false);
        let embedded = EMBEDDED.contains(&name.as_str());
        match expected["expect"].as_str().unwrap() {
            "decode" if embedded => assert_eq!(opened.unwrap().info().decoder, DecoderKind::Embedded),
            "decode" if with_ffmpeg => {
                let info = opened.unwrap().info();
                assert_eq!(info.decoder, DecoderKind::Ffmpeg, "{name}");
                println!("{name}: {}", info.reason);
                check_decodes(&name, &expected, DecoderChoice::Auto);
            }
            "decode" => assert!(matches!(opened.err().unwrap().fault, Fault::NoFfmpeg(_)), "{name}"),
            "error" => check_refusal(&name, &opened.err().unwrap(), DecoderChoice::Auto, with_ffmpeg),
            _ => check_damaged(&name, DecoderChoice::Auto),
        }
    }
}

#[test]
fn ffmpeg_reads_the_same_frames_as_the_embedded_decoder() {
    if !ffmpeg_is_there("ffmpeg_reads_the_same_frames_as_the_embedded_decoder") {
        return;
    }
    for (name, expected) in expectations() {
        match expected["expect"].as_str().unwrap() {
            "decode" => check_decodes(&name, &expected, DecoderChoice::Ffmpeg),
            "error" => {
                let error = VideoReader::open(&fixture(&name), DecoderChoice::Ffmpeg, false).err().unwrap();
                check_refusal(&name, &error, DecoderChoice::Ffmpeg, true);
            }
            _ => check_damaged(&name, DecoderChoice::Ffmpeg),
        }
    }
    for name in EMBEDDED {
        let read = |choice| {
            let mut reader = VideoReader::open(&fixture(name), choice, false).unwrap();
            let length = reader.sampled_length(15.0);
            (length, reader.read(15.0, FrameIndex(length as i64 / 2), 40, 56, 56).unwrap())
        };
        let ((length, ours), (other_length, theirs)) =
            (read(DecoderChoice::Embedded), read(DecoderChoice::Ffmpeg));
        assert_eq!((length, ours.count), (other_length, theirs.count), "{name}");
        let differences = ours.rgb.iter().zip(&theirs.rgb).map(|(a, b)| u64::from(a.abs_diff(*b)));
        let mean = differences.sum::<u64>() as f64 / ours.rgb.len() as f64;
        println!("{name}: {mean:.5} off on average");
        // Everything behind the decoders is our own code. OpenH264 itself is exact for I and P pictures, and off by a
        // few levels in some pixels of B pictures, rarely in a whole block.
        let exact = name.contains("baseline") || name.contains("rotated");
        assert!(if exact { mean == 0.0 } else { mean < 0.01 }, "{name}: off by {mean} on average");
    }
}

/// The barcodes that ffmpeg's own `fps` filter shows.
fn barcodes_by_filter(name: &str, fps: f64, width: usize, height: usize) -> Vec<Option<usize>> {
    let filter = format!("fps={fps}");
    let path = fixture(name);
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(&path)
        .args(["-vf", &filter, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
        .output()
        .unwrap();
    let count = output.stdout.len() / (width * height * 3);
    let block = FrameBlock { first: FrameIndex(0), count, height, width, rgb: output.stdout };
    (0..count).map(|k| barcode(&block, k)).collect()
}

#[test]
fn sampling_is_that_of_ffmpegs_fps_filter() {
    if !ffmpeg_is_there("sampling_is_that_of_ffmpegs_fps_filter") {
        return;
    }
    for name in [
        "h264_main_bframes_30fps.mp4",
        "h264_high_23_976fps.mp4",
        "h264_variable_rate.mp4",
        "h264_fragmented.mp4",
    ] {
        let mut reader = VideoReader::open(&fixture(name), DecoderChoice::Embedded, false).unwrap();
        let info = reader.info();
        for fps in [30.0, 15.0, 10.0, 7.5] {
            let length = reader.sampled_length(fps);
            assert_eq!(
                barcodes(&mut reader, fps, 0, length),
                barcodes_by_filter(name, fps, info.width, info.height),
                "{name} at {fps}"
            );
        }
    }
}

#[test]
fn frames_are_as_upright_and_as_coloured_as_ffmpegs() {
    if !ffmpeg_is_there("frames_are_as_upright_and_as_coloured_as_ffmpegs") {
        return;
    }
    for name in ["h264_rotated_90.mp4", "h264_high_23_976fps.mp4"] {
        let mut reader = VideoReader::open(&fixture(name), DecoderChoice::Embedded, false).unwrap();
        let info = reader.info();
        let ours = reader.read(15.0, FrameIndex(0), 5, info.height, info.width).unwrap();
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(fixture(name))
            .args(["-vf", "fps=15", "-frames:v", "5", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
            .output()
            .unwrap();
        assert_eq!(output.stdout.len(), ours.rgb.len(), "{name}");
        let differences = output.stdout.iter().zip(&ours.rgb).map(|(a, b)| f64::from(a.abs_diff(*b)));
        // ffmpeg interpolates chroma otherwise; a wrong turn, matrix or range is off by tens.
        let mean = differences.sum::<f64>() / ours.rgb.len() as f64;
        assert!(mean < 3.0, "{name}: off by {mean} on average");
    }
}

#[test]
fn a_cut_file_gives_its_readable_frames_only_where_that_is_allowed() {
    let path = fixture("truncated_after_index.mp4");
    let error = VideoReader::open(&path, DecoderChoice::Auto, false).err().unwrap();
    let Fault::Truncated { readable } = error.fault else { panic!("{error}") };
    let mut reader = VideoReader::open(&path, DecoderChoice::Auto, true).unwrap();
    assert_eq!(reader.info().frames, readable);
    let numbers = barcodes(&mut reader, 25.0, 0, usize::MAX);
    assert!(numbers.len() > 30 && numbers.len() < 100);
    assert!(numbers.iter().enumerate().all(|(k, number)| *number == Some(k)), "{numbers:?}");
}

#[test]
fn a_seek_decodes_from_the_last_picture_that_decoding_can_start_at() {
    let Opened { stream, mut decoder, .. } =
        open(&fixture("h264_4095_frames.mp4"), DecoderChoice::Embedded, false).unwrap();
    let mut decoded_for = |wanted: &[usize]| {
        let Decoder::Embedded(inner) = &decoder else { panic!("the file is for the embedded decoder") };
        let before = inner.decoded;
        let mut seen = Vec::new();
        decoder.visit(&stream, wanted, &mut |position, _| seen.push(position)).unwrap();
        seen.sort_unstable();
        assert_eq!(seen, wanted);
        let Decoder::Embedded(inner) = &decoder else { panic!("a decoder stays what it is") };
        inner.decoded - before
    };
    // The file has one at every 250th picture, the last at 4000.
    assert_eq!(decoded_for(&[4000]), 1);
    // Reading on seeks nothing: pictures that no other refers to may be left out, or come some places later.
    let on = decoded_for(&[4001, 4002, 4003, 4004]);
    assert!((4..=8).contains(&on), "{on} pictures for the next 4");
    let back = decoded_for(&[2900]);
    assert!((2..=160).contains(&back), "{back} pictures from 2750 to 2900");
}

#[test]
fn ranges_are_clipped_to_the_video() {
    let mut reader =
        VideoReader::open(&fixture("h264_faststart.mp4"), DecoderChoice::Embedded, false).unwrap();
    let block = reader.read(25.0, FrameIndex(-7), 10, 8, 12).unwrap();
    assert_eq!((block.first, block.count, block.rgb.len()), (FrameIndex(0), 3, 3 * 8 * 12 * 3));
    let block = reader.read(25.0, FrameIndex(95), 10, 8, 12).unwrap();
    assert_eq!((block.first, block.count), (FrameIndex(95), 5));
    assert_eq!(reader.read(25.0, FrameIndex(200), 10, 8, 12).unwrap().count, 0);
    for (fps, height) in [(0.0, 8), (f64::NAN, 8), (25.0, 0), (25.0, 1 << 20)] {
        assert!(matches!(
            reader.read(fps, FrameIndex(0), 1, height, 8).unwrap_err().fault,
            Fault::Request(_)
        ));
    }
}

#[test]
fn the_store_gives_the_readers_frames_within_its_limit() {
    let path = fixture("h264_baseline_15fps.mp4");
    let segment = 64 * 24 * 32 * 3;
    let mut config = DataConfig { frame_height: 24, frame_width: 32, ..DataConfig::default() };
    config.frame_cache.0 = 2 * segment;
    let store = FrameStore::new(&config);
    let mut reader = VideoReader::open(&path, DecoderChoice::Embedded, false).unwrap();
    assert_eq!(store.length(&path).unwrap(), 150);
    for (first, count) in [(0, 150), (60, 10), (-5, 20), (130, 40), (3, 1), (149, 1), (150, 5)] {
        let expected = reader.read(15.0, FrameIndex(first), count, 24, 32).unwrap();
        assert!(store.frames(&path, FrameIndex(first), count).unwrap() == expected, "{first}");
        assert!(store.usage().bytes.0 <= 2 * segment);
    }
    let before = store.usage();
    store.frames(&path, FrameIndex(0), 30).unwrap();
    let after = store.usage();
    store.frames(&path, FrameIndex(2), 30).unwrap();
    assert_eq!(store.usage().misses, after.misses);
    assert!(after.hits + after.misses > before.hits + before.misses);
}
