//! Holes in files, found without decoding: a copy that was broken off, or a sparse file, reads as zeros where data never came.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Blocks that are looked at, evenly spread over the file: a hole of a sixty-fourth of it meets one of them.
const BLOCKS: u64 = 64;

/// Bytes of a block. Coded pictures have no run of zeros that is as long: start codes and escapes forbid it in H.264 and HEVC.
const BLOCK: u64 = 1024;

/// Whether any block is all zeros. Padding that a container may hold is that, too: the file is then worth a closer look, and no
/// more is known.
///
/// # Errors
/// The file cannot be read.
pub fn suspects(path: &Path) -> io::Result<bool> {
    let found = std::fs::metadata(path)?;
    // Opening a pipe would wait for its other end.
    if !found.is_file() {
        return Ok(false);
    }
    let (file, length) = (File::open(path)?, found.len());
    let Some(last) = length.checked_sub(BLOCK) else { return Ok(false) };
    let mut block = [0; BLOCK as usize];
    for index in 0..BLOCKS {
        file.read_exact_at(
            &mut block,
            (u128::from(last) * u128::from(index) / u128::from(BLOCKS - 1)) as u64,
        )?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_of_a_thirtieth_is_suspected_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video");
        for length in [40_000, 3_000_000] {
            let whole: Vec<u8> = (0..length).map(|at| (at % 251) as u8 + 1).collect();
            std::fs::write(&path, &whole).unwrap();
            assert!(!suspects(&path).unwrap(), "{length} bytes without a hole");
            let hole = length / 30 + 2 * BLOCK as usize;
            for first in (0..length - hole).step_by(length / 17) {
                let mut bytes = whole.clone();
                bytes[first..first + hole].fill(0);
                std::fs::write(&path, &bytes).unwrap();
                assert!(suspects(&path).unwrap(), "a hole of {hole} bytes at {first} of {length}");
            }
        }
    }

    #[test]
    fn files_of_less_than_a_block_are_left_to_the_decoder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video");
        std::fs::write(&path, [0; 1000]).unwrap();
        assert!(!suspects(&path).unwrap());
    }
}
