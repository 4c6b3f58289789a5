//! Files as users have them: the decoders read what ffmpeg reads, count as it counts, and say what is wrong.

use std::path::{Path, PathBuf};
use std::process::Command;

use longtake_shared::config::{DataConfig, DecoderChoice};
use longtake_shared::units::FrameIndex;
use tempfile::TempDir;

use super::Fault;
use super::fixture_tests::{ffmpeg_is_there, fixture};
use longtake_shared::role::Depth;

use crate::data::video::{FrameBlock, VideoReader, examine};

const BOTH: [DecoderChoice; 2] = [DecoderChoice::Auto, DecoderChoice::Ffmpeg];
const RATES: [f64; 4] = [15.0, 25.0, 30.0, 12.5];

fn real(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/real").join(name)
}

/// Runs ffmpeg on a file with options, and gives what it writes to standard output.
fn ffmpeg(before: &[&str], file: &Path, options: &[&str]) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(before).arg("-i").arg(file).args(options);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A file that ffmpeg makes of another.
fn made(folder: &TempDir, name: &str, from: &Path, options: &[&str]) -> PathBuf {
    let path = folder.path().join(name);
    ffmpeg(&[], from, &[options, &[path.to_str().unwrap()]].concat());
    path
}

/// How many frames ffmpeg's filter `fps` gives.
fn counted(file: &Path, fps: f64) -> usize {
    let filter = format!("fps={fps}");
    let report = ffmpeg(&[], file, &["-vf", &filter, "-f", "null", "-progress", "pipe:1", "-"]);
    let report = String::from_utf8(report).unwrap();
    report.lines().rev().find_map(|line| line.strip_prefix("frame=")).unwrap().trim().parse().unwrap()
}

fn counts(reader: &VideoReader) -> Vec<usize> {
    RATES.iter().map(|fps| reader.sampled_length(*fps)).collect()
}

fn small(reader: &mut VideoReader, first: usize, count: usize) -> FrameBlock {
    reader.read(15.0, FrameIndex(first as i64), count, 24, 32).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens a file, compares its length with ffmpeg's at four rates, and windows of it with what reading it whole gives.
fn check(path: &Path, choice: DecoderChoice) -> (VideoReader, FrameBlock) {
    let mut reader = VideoReader::open(path, choice, false).unwrap_or_else(|error| panic!("{error}"));
    let expected: Vec<usize> = RATES.iter().map(|fps| counted(path, *fps)).collect();
    assert_eq!(counts(&reader), expected, "{} by {choice:?}", path.display());
    let whole = small(&mut reader, 0, usize::MAX);
    assert_eq!(whole.count, expected[0]);
    for window in [0.0, 0.3, 0.5, 0.8, 1.0].map(|part| ((whole.count - 8) as f64 * part) as usize) {
        let block = small(&mut reader, window, 8);
        for k in 0..8 {
            assert!(
                block.frame(k) == whole.frame(window + k),
                "{} by {choice:?}: frame {} differs behind a seek",
                path.display(),
                window + k
            );
        }
    }
    (reader, whole)
}

fn off(one: &[u8], other: &[u8]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / one.len() as f64
}

#[test]
fn containers_that_only_ffmpeg_reads_give_its_frames_also_behind_a_seek() {
    if !ffmpeg_is_there("containers_that_only_ffmpeg_reads_give_its_frames_also_behind_a_seek") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let base = real("base.mp4");
    let copy =
        |name: &str, options: &[&str]| made(&folder, name, &base, &[&["-c", "copy"], options].concat());
    let coded = |name: &str, options: &[&str]| made(&folder, name, &base, options);
    let mpeg2 = ["-c:v", "mpeg2video", "-bf", "2", "-q:v", "4", "-r", "25"];
    let files = [
        copy("transport.ts", &[]),
        copy("blu_ray.m2ts", &["-mpegts_m2ts_mode", "1"]),
        copy("wraps.ts", &["-output_ts_offset", "95433"]),
        copy("flash.flv", &[]),
        copy("bare.h264", &["-bsf:v", "h264_mp4toannexb"]),
        coded("program.mpg", &mpeg2),
        coded("program.vob", &mpeg2),
        coded("b_pictures.avi", &["-c:v", "mpeg4", "-bf", "2", "-q:v", "4"]),
        coded("windows.wmv", &["-c:v", "wmv2", "-q:v", "4"]),
        real("intra_refresh.mkv"),
        real("xvid_bframes.avi"),
        real("starts_before_zero.mkv"),
    ];
    let (_, expected) = check(&base, DecoderChoice::Embedded);
    for file in files {
        let (_, frames) = check(&file, DecoderChoice::Auto);
        let name = file.file_name().unwrap().to_str().unwrap();
        // Where the first pictures are left out, the rest come that much earlier; a bare stream has its own rate.
        let skipped = match name {
            "starts_before_zero.mkv" => 75,
            "bare.h264" => continue,
            _ => 0,
        };
        let count = frames.count.min(expected.count - skipped);
        let bytes = |block: &FrameBlock, first: usize| {
            (first..first + count - 8).step_by(20).flat_map(|k| block.frame(k).to_vec()).collect::<Vec<_>>()
        };
        let off = off(&bytes(&frames, 0), &bytes(&expected, skipped));
        println!("{name}: {off:.2} off on average");
        assert!(off < 3.0, "{name}: {off} off on average");
    }
}

#[test]
fn a_recording_may_begin_anywhere_and_its_clock_may_leap() {
    if !ffmpeg_is_there("a_recording_may_begin_anywhere_and_its_clock_may_leap") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = made(&folder, "whole.ts", &fixture("h264_4095_frames.mp4"), &["-c", "copy", "-t", "50"]);
    let bytes = std::fs::read(&whole).unwrap();
    let late = folder.path().join("late.ts");
    std::fs::write(&late, &bytes[188 * 80..]).unwrap();
    check(&late, DecoderChoice::Auto);
    let twice = folder.path().join("twice.ts");
    std::fs::write(&twice, [&*bytes, &*bytes].concat()).unwrap();
    check(&twice, DecoderChoice::Auto);
}

#[test]
fn both_decoders_count_time_from_the_first_picture() {
    if !ffmpeg_is_there("both_decoders_count_time_from_the_first_picture") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("h264_with_audio.mp4");
    let delayed = |name: &str, offset: &str, map: &[&str], options: &[&str]| {
        let path = folder.path().join(name);
        let source = source.to_str().unwrap();
        let inputs = [&["-i", source], map, &["-c", "copy"], options, &[path.to_str().unwrap()]].concat();
        ffmpeg(&["-itsoffset", offset], Path::new(source), &inputs);
        path
    };
    let (late_video, late_sound) = (["-map", "0:v", "-map", "1:a"], ["-map", "1:v", "-map", "0:a"]);
    let fragments = ["-movflags", "frag_keyframe+empty_moov"];
    let files = [
        real("empty_edit.mp4"),
        real("late_fragment.mp4"),
        delayed("late_video.mp4", "1.03", &late_video, &[]),
        delayed("late_sound.mp4", "1.03", &late_sound, &[]),
        delayed("late_video_fragments.mp4", "1.03", &late_video, &fragments),
        delayed("late_video.mov", "0.51", &late_video, &[]),
        delayed("no_edit_list.mp4", "0", &late_video, &["-use_editlist", "0"]),
        delayed("negative.mp4", "0", &late_video, &["-movflags", "negative_cts_offsets"]),
        delayed("cut_to_part.mp4", "0", &late_video, &["-ss", "2.345", "-t", "4.1"]),
        made(
            &folder,
            "delayed_index.mp4",
            &source,
            &["-ss", "2.3", "-an", "-c", "copy", "-movflags", "frag_keyframe+delay_moov"],
        ),
    ];
    for file in files {
        let (_, ours) = check(&file, DecoderChoice::Embedded);
        let (_, theirs) = check(&file, DecoderChoice::Ffmpeg);
        let off = off(&ours.rgb, &theirs.rgb);
        assert!(off < 0.05, "{}: {off} off on average", file.display());
    }
}

/// A file whose track, or whole movie, is turned by a matrix of the four signs (a, b, c, d).
fn with_matrix(folder: &TempDir, name: &str, header: &[u8; 4], [a, b, c, d]: [i32; 4]) -> PathBuf {
    let mut bytes = std::fs::read(fixture("h264_odd_size.mp4")).unwrap();
    let at = bytes.windows(4).position(|window| window == header).unwrap();
    let matrix = at + 4 + if header == b"tkhd" { 40 } else { 36 };
    for (place, value) in [(0, a), (1, b), (3, c), (4, d)] {
        bytes[matrix + 4 * place..][..4].copy_from_slice(&(value << 16).to_be_bytes());
    }
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn all_eight_orientations_are_ffmpegs_in_both_decoders() {
    if !ffmpeg_is_there("all_eight_orientations_are_ffmpegs_in_both_decoders") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let matrices = [
        [1, 0, 0, 1],
        [0, 1, -1, 0],
        [-1, 0, 0, -1],
        [0, -1, 1, 0],
        [-1, 0, 0, 1],
        [1, 0, 0, -1],
        [0, 1, 1, 0],
        [0, -1, -1, 0],
    ];
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for matrix in matrices {
        for header in [b"tkhd", b"mvhd"] {
            let path = with_matrix(&folder, "turned.mp4", header, matrix);
            let shown =
                ffmpeg(&[], &path, &["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
            for choice in [DecoderChoice::Embedded, DecoderChoice::Ffmpeg] {
                let mut reader = VideoReader::open(&path, choice, false).unwrap();
                let info = reader.info();
                let frame = reader.read(25.0, FrameIndex(0), 1, info.height, info.width).unwrap();
                // ffmpeg interpolates chroma otherwise; a wrong orientation is off by tens.
                let off = off(&frame.rgb, &shown);
                assert!(off < 4.0, "{matrix:?} in {header:?} by {choice:?}: {off} off on average");
                if choice == DecoderChoice::Embedded && header == b"tkhd" {
                    seen.push(frame.rgb);
                }
            }
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 8);
}

#[test]
fn pictures_that_say_themselves_how_they_are_turned_are_left_to_ffmpeg() {
    if !ffmpeg_is_there("pictures_that_say_themselves_how_they_are_turned_are_left_to_ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let filter = "h264_metadata=display_orientation=insert:rotate=90:flip=horizontal";
    let path = made(&folder, "sei.mp4", &fixture("h264_odd_size.mp4"), &["-c", "copy", "-bsf:v", filter]);
    let shown = ffmpeg(&[], &path, &["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
    let mut reader = VideoReader::open(&path, DecoderChoice::Auto, false).unwrap();
    let info = reader.info();
    assert!(info.reason.contains("how they are turned"), "{}", info.reason);
    assert_eq!((info.width, info.height), (182, 322));
    let frame = reader.read(25.0, FrameIndex(0), 1, info.height, info.width).unwrap();
    assert!(off(&frame.rgb, &shown) < 4.0);
}

#[test]
fn a_change_of_size_on_the_way_is_left_to_ffmpeg() {
    if !ffmpeg_is_there("a_change_of_size_on_the_way_is_left_to_ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    let line = |name: &str| format!("file '{}'\n", fixture(name).canonicalize().unwrap().display());
    std::fs::write(&list, line("h264_faststart.mp4") + &line("h264_odd_size.mp4")).unwrap();
    let joined = folder.path().join("joined.mp4");
    ffmpeg(&["-f", "concat", "-safe", "0"], &list, &["-c", "copy", joined.to_str().unwrap()]);
    let mut reader = VideoReader::open(&joined, DecoderChoice::Auto, false).unwrap();
    let info = reader.info();
    assert!(info.reason.contains("changes at 4.00 s"), "{}", info.reason);
    assert_eq!((info.frames, info.width, info.height), (190, 192, 128));
    assert_eq!(small(&mut reader, 0, usize::MAX).count, reader.sampled_length(15.0));
    let error = VideoReader::open(&joined, DecoderChoice::Embedded, false).err().unwrap();
    assert!(matches!(error.fault, Fault::Unsupported(_)), "{error}");
}

#[test]
fn a_file_cut_short_is_told_in_every_container_and_its_whole_frames_can_be_read() {
    if !ffmpeg_is_there("a_file_cut_short_is_told_in_every_container_and_its_whole_frames_can_be_read") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let base = real("base.mp4");
    let mpeg2 = ["-c:v", "mpeg2video", "-bf", "2", "-q:v", "4", "-r", "25"].as_slice();
    let wholes: [(&str, &[&str]); 7] = [
        ("a.mkv", &["-c", "copy"]),
        ("a.flv", &["-c", "copy"]),
        ("a.ts", &["-c", "copy"]),
        ("a.m2ts", &["-c", "copy", "-mpegts_m2ts_mode", "1"]),
        ("a.mpg", mpeg2),
        ("a.wmv", &["-c:v", "wmv2", "-q:v", "4"]),
        ("a.avi", &["-c:v", "mpeg4", "-bf", "2", "-q:v", "4"]),
    ];
    let mut files = vec![real("cut.flv"), real("cut.avi")];
    for (name, options) in wholes {
        let whole = made(&folder, name, &base, options);
        VideoReader::open(&whole, DecoderChoice::Auto, false).unwrap_or_else(|error| panic!("{error}"));
        let mut bytes = std::fs::read(&whole).unwrap();
        bytes.truncate(bytes.len() * 6 / 10 / 188 * 188 + 50);
        let cut = folder.path().join(format!("cut_{name}"));
        std::fs::write(&cut, bytes).unwrap();
        files.push(cut);
    }
    for file in files {
        for choice in BOTH {
            let Err(error) = VideoReader::open(&file, choice, false) else {
                panic!("{} is taken for whole", file.display())
            };
            assert!(matches!(error.fault, Fault::Truncated { .. }), "{error}");
        }
        let mut reader = VideoReader::open(&file, DecoderChoice::Auto, true).unwrap();
        let count = reader.sampled_length(15.0);
        println!("{}: {count}", file.display());
        assert!((180..235).contains(&count), "{}: {count}", file.display());
        assert_eq!(small(&mut reader, 0, usize::MAX).count, count);
    }
    let readable = |name| VideoReader::open(&real(name), DecoderChoice::Auto, true).unwrap().info().frames;
    assert_eq!((readable("cut.flv"), readable("cut.avi")), (200, 202));
}

#[test]
fn an_encrypted_file_is_called_so_by_either_decoder() {
    for choice in [DecoderChoice::Auto, DecoderChoice::Embedded, DecoderChoice::Ffmpeg] {
        let error = VideoReader::open(&real("locked.mp4"), choice, false).err().unwrap();
        assert!(matches!(&error.fault, Fault::Encrypted(scheme) if scheme == "cenc"), "{error}");
    }
}

fn examined(path: &Path, decoder: DecoderChoice, depth: Depth) -> Result<(), String> {
    let data = DataConfig { decoder, ..DataConfig::default() };
    examine(path, &data, depth).map(|_| ()).map_err(|error| error.fault.to_string())
}

#[test]
fn damage_is_told_with_its_time_and_what_lies_beside_it_is_read() {
    let hole = real("hole.mp4");
    let mut choices = vec![DecoderChoice::Embedded];
    if ffmpeg_is_there("damage_is_told_with_its_time_and_what_lies_beside_it_is_read (ffmpeg)") {
        choices.push(DecoderChoice::Ffmpeg);
    }
    for choice in choices {
        for depth in [Depth::Ends, Depth::Whole] {
            let told = examined(&hole, choice, depth).unwrap_err();
            // The data end at 11.87 s; the decoder of ffmpeg reads some pictures ahead.
            let time =
                ["11.7", "11.8", "12.0"].iter().any(|time| told.contains(&format!("the picture at {time}")));
            assert!(told.starts_with("is damaged: ") && time, "{choice:?}, {depth:?}: {told}");
            assert!(!told.contains("Native"), "{told}");
            assert_eq!(examined(&real("base.mp4"), choice, depth), Ok(()));
        }
        let mut reader = VideoReader::open(&hole, choice, false).unwrap();
        assert!(reader.read(15.0, FrameIndex(150), 30, 24, 32).is_err());
        assert_eq!((small(&mut reader, 20, 8).count, small(&mut reader, 300, 8).count), (8, 8));
    }
}

#[test]
fn flipped_bits_are_found_in_files_that_ffmpeg_reads() {
    if !ffmpeg_is_there("flipped_bits_are_found_in_files_that_ffmpeg_reads") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mkv", "a.ts", "a.flv"] {
        let path = made(&folder, name, &real("base.mp4"), &["-c", "copy"]);
        assert_eq!(examined(&path, DecoderChoice::Auto, Depth::Whole), Ok(()), "{name}");
        let mut bytes = std::fs::read(&path).unwrap();
        let (from, to) = (bytes.len() * 45 / 100, bytes.len() * 55 / 100);
        (from..to).step_by(101).for_each(|at| bytes[at] ^= 0x11);
        std::fs::write(&path, bytes).unwrap();
        let told = examined(&path, DecoderChoice::Auto, Depth::Whole).unwrap_err();
        assert!(told.starts_with("is damaged: the picture at 1"), "{name}: {told}");
    }
}
