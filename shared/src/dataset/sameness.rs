//! Finds videos that are one: two ids for one file, and files with the same content in training and in validation.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Video;
use super::finding::{Finding, Shared};

/// Bytes at each end of a file that are compared before the whole is.
const END: u64 = 64 * 1024;

/// Videos with the same id or file, and pairs with the same content across the subsets. Files that are not there are
/// told elsewhere, and empty ones are no videos.
pub(super) fn same_videos(videos: &[Video]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut by_file: BTreeMap<(u64, u64), &Video> = BTreeMap::new();
    let mut by_id: BTreeMap<&str, &Video> = BTreeMap::new();
    let mut by_size: BTreeMap<u64, [Vec<&Video>; 2]> = BTreeMap::new();
    for video in videos {
        // Only in both subsets: one subset has an id once.
        if by_id.insert(&video.id, video).is_some() {
            findings.push(Finding::leak(&video.id, &video.id, &video.path, Shared::Id));
            continue;
        }
        let Some(file) = fs::metadata(&video.path).ok().filter(fs::Metadata::is_file) else { continue };
        if let Some(other) = by_file.get(&(file.dev(), file.ino())) {
            findings.push(one_file(other, video));
            continue;
        }
        by_file.insert((file.dev(), file.ino()), video);
        by_size.entry(file.len()).or_default()[video.subset as usize].push(video);
    }
    by_size.remove(&0);
    for [training, validation] in by_size.into_values() {
        findings.extend(same_content(&training, &validation));
    }
    findings
}

fn one_file(first: &Video, second: &Video) -> Finding {
    if first.subset == second.subset {
        let path = first.path.clone();
        return Finding::OneFile { first: first.id.clone(), second: second.id.clone(), path };
    }
    Finding::leak(&first.id, &second.id, &second.path, Shared::File)
}

/// Files of one size: those with the same ends are read as a whole.
fn same_content(training: &[&Video], validation: &[&Video]) -> Vec<Finding> {
    if training.is_empty() || validation.is_empty() {
        return Vec::new();
    }
    // What cannot be read is told by whoever decodes it.
    let mut ends: HashMap<blake3::Hash, Vec<&Video>> = HashMap::new();
    for video in training {
        if let Ok(hash) = hash_of_ends(&video.path) {
            ends.entry(hash).or_default().push(video);
        }
    }
    let mut findings = Vec::new();
    for video in validation {
        let Some(alike) = hash_of_ends(&video.path).ok().and_then(|hash| ends.get(&hash)) else { continue };
        let Ok(whole) = hash_of_all(&video.path) else { continue };
        let same = alike.iter().find(|other| hash_of_all(&other.path).is_ok_and(|hash| hash == whole));
        findings.extend(same.map(|other| Finding::leak(&other.id, &video.id, &video.path, Shared::Content)));
    }
    findings
}

fn hash_of_ends(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    (&file).take(END).read_to_end(&mut bytes)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    file.take(END).read_to_end(&mut bytes)?;
    Ok(blake3::hash(&bytes))
}

fn hash_of_all(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}
