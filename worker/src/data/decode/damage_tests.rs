//! Damaged files end in an error or in frames: never a panic, never a hang, never memory beyond what their size explains.

use std::fs;
use std::time::{Duration, Instant};

use longtake_shared::config::DecoderChoice;
use longtake_shared::random::Key;
use longtake_shared::units::FrameIndex;
use rand::RngExt as _;

use super::fixture_tests::fixture;
use crate::data::video::VideoReader;

/// Files of a few pictures' size, of each kind of index.
const FILES: [&str; 5] = [
    "h264_faststart.mp4",
    "h264_moov_at_end.mp4",
    "h264_fragmented.mp4",
    "h264_baseline_15fps.mp4",
    "h264_odd_size.mp4",
];
const CASES: u64 = 300;
/// Far above what any of the small files takes, far below what a loop without end does.
const LONGEST: Duration = Duration::from_secs(20);

#[test]
fn three_hundred_damaged_files_neither_panic_nor_hang() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.mp4");
    let (mut refused, mut stopped, mut read) = (0, 0, 0);
    for case in 0..CASES {
        let mut rng = Key::root(5).child("case", case).rng();
        let mut bytes = fs::read(fixture(FILES[rng.random_range(0..FILES.len())])).unwrap();
        if rng.random_bool(0.3) {
            bytes.truncate(rng.random_range(0..bytes.len()));
        }
        // Half of the damage goes to the index, which is a small part of the file.
        let index = bytes.windows(4).position(|name| name == b"moov").unwrap_or(0);
        let end = (index + 3000).min(bytes.len());
        for _ in 0..rng.random_range(0..12) {
            let in_index = rng.random_bool(0.5) && index < end;
            let range = if in_index { index..end } else { 0..bytes.len() };
            if !range.is_empty() {
                let at = rng.random_range(range);
                bytes[at] = rng.random();
            }
        }
        fs::write(&path, &bytes).unwrap();
        let started = Instant::now();
        match VideoReader::open(&path, DecoderChoice::Embedded, true) {
            Err(_) => refused += 1,
            Ok(mut reader) => {
                let count = reader.sampled_length(5.0).min(400);
                match reader.read(5.0, FrameIndex(0), count, 16, 16) {
                    Ok(_) => read += 1,
                    Err(_) => stopped += 1,
                }
            }
        }
        assert!(started.elapsed() < LONGEST, "case {case} took {:?}", started.elapsed());
    }
    println!("{refused} refused, {stopped} stopped on the way, {read} read to the end");
    assert!(refused > 20 && stopped + read > 20, "the damage is of one kind only");
}
