//! A header that claims absurd pictures makes no absurd allocation.
//!
//! A binary of its own, with a single test: its allocator counts the bytes that the whole process holds.

mod counting;

use std::path::Path;

use longtake_shared::config::DecoderChoice;
use longtake_shared::units::FrameIndex;
use longtake_worker::data::video::VideoReader;

/// The file, read at once by OpenH264, has 320x240 pixels: some copies of a picture, and frames of 24x32 to give. The
/// 32767x32767 that its track header claims would be 1.6 GB.
const MOST: usize = 16 << 20;

#[test]
fn a_track_header_of_a_gigapixel_costs_no_more_than_its_pictures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/decode");
    for (file, choice) in [
        ("absurd_size_in_header.mp4", DecoderChoice::Embedded),
        ("absurd_size_in_header.mp4", DecoderChoice::Ffmpeg),
        ("bit_errors.mp4", DecoderChoice::Embedded),
    ] {
        let (most, frames) = counting::peak_of(|| {
            let mut reader = VideoReader::open(&folder.join(file), choice, false)?;
            reader.read(30.0, FrameIndex(0), usize::MAX, 24, 32).map(|block| block.count)
        });
        println!("{file} by {choice:?}: {most} bytes, {frames:?}");
        assert!(most < MOST, "{most} bytes for `{file}` by {choice:?}");
        if (file, choice) == ("absurd_size_in_header.mp4", DecoderChoice::Embedded) {
            assert_eq!(frames.expect("its pictures are whole"), 300);
        }
    }
}
