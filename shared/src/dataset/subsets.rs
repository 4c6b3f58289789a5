//! Which subset of the annotations a name in the configuration means: releases of one data set spell them differently.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::{DatasetError, NamedBy, Subset};
use crate::config::{AnnotationFormat, DataConfig};

/// Spellings of one subset.
const ALIASES: [&[&str]; 3] = [&["training", "train"], &["validation", "val"], &["testing", "test"]];

/// The settings that name subsets: of training and of validation.
pub(super) const SETTINGS: [&str; 2] = ["data.train_subset", "data.validation_subset"];

/// The subset names to train and to validate on, as the annotations spell them, with remarks on what stands for what.
pub(super) fn resolve(
    config: &DataConfig,
    present: &[String],
) -> Result<([String; 2], Vec<Finding>), DatasetError> {
    let asked = [
        (Subset::Training, &config.train_subset, SETTINGS[0]),
        (Subset::Validation, &config.validation_subset, SETTINGS[1]),
    ];
    let mut remarks = Vec::new();
    let mut found = Vec::new();
    for (role, wanted, key) in asked {
        let name = find(config.format, role, wanted, present).ok_or_else(|| DatasetError::NoSuchSubset {
            annotations: config.annotations.clone(),
            wanted: wanted.clone(),
            named_by: NamedBy::Setting(key),
            present: present.to_vec(),
        })?;
        if name != wanted {
            remarks.push(Finding::Respelled { wanted: wanted.clone(), name: name.clone() });
        }
        found.push(name.clone());
    }
    if found[0] == found[1] && config.train_subset != config.validation_subset {
        return Err(DatasetError::SameSubset { subset: found.remove(0), present: present.to_vec() });
    }
    if found[0] == found[1] {
        remarks.push(Finding::SameVideos { subset: found[0].clone() });
    }
    let validation = found.remove(1);
    Ok(([found.remove(0), validation], remarks))
}

/// The subset that THUMOS14's text files call what is asked for.
pub(super) fn find_validation<'p>(wanted: &str, present: &'p [String]) -> Option<&'p String> {
    find(AnnotationFormat::Thumos14, Subset::Validation, wanted, present)
}

/// What becomes of the videos, given by subset and id, whose subset is none of the chosen: other spellings of a chosen
/// one, no subset at all, and subsets that nobody asked for. A test subset is commonly left out, and not told.
pub(super) fn left_out<'v>(
    chosen: &[&str],
    videos: impl Iterator<Item = (&'v str, &'v str)>,
) -> Vec<Finding> {
    let mut by_subset: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (subset, id) in videos {
        by_subset.entry(subset).or_default().push(id.to_owned());
    }
    let used = |name: &str| by_subset.get(name).map_or(0, Vec::len);
    let others = by_subset.iter().filter(|(name, _)| !chosen.contains(name));
    others
        .filter_map(|(name, videos)| {
            let videos = videos.clone();
            let same = chosen.iter().find(|chosen| meaning(chosen) == meaning(name));
            if name.trim().is_empty() {
                Some(Finding::WithoutSubset { videos })
            } else if let Some(taken) = same {
                let (used, taken, left) = (used(taken), (*taken).to_owned(), (*name).to_owned());
                Some(Finding::MixedSubset { taken, used, left, videos })
            } else if ALIASES.iter().any(|group| group[0] == meaning(name)) {
                None
            } else {
                Some(Finding::OtherSubset { subset: (*name).to_owned(), videos })
            }
        })
        .collect()
}

/// A subset's name without case, blanks around it and the choice between spellings.
fn meaning(name: &str) -> String {
    let plain = name.trim().to_lowercase();
    let group = ALIASES.iter().find(|group| group.contains(&plain.as_str()));
    group.map_or(plain, |group| group[0].to_owned())
}

fn find<'p>(
    format: AnnotationFormat,
    role: Subset,
    wanted: &str,
    present: &'p [String],
) -> Option<&'p String> {
    let spelled = |name: &str| present.iter().find(|other| other.trim().eq_ignore_ascii_case(name.trim()));
    let group =
        ALIASES.iter().find(|group| group.iter().any(|name| name.eq_ignore_ascii_case(wanted.trim())));
    if let Some(exact) = present.iter().find(|name| *name == wanted) {
        return Some(exact);
    }
    if format == AnnotationFormat::Thumos14 && group.is_some() {
        return of_thumos14(role, &|group: &[&str]| group.iter().find_map(|name| spelled(name)));
    }
    spelled(wanted).or_else(|| group?.iter().find_map(|name| spelled(name)))
}

/// THUMOS14 trains on what its authors call validation. Some releases kept that word, others say training; where there
/// is a test subset it is the one to evaluate on, else the one called validation is.
fn of_thumos14<'p>(role: Subset, any_of: &dyn Fn(&[&str]) -> Option<&'p String>) -> Option<&'p String> {
    let [training, validation, test] = ALIASES.map(any_of);
    match role {
        Subset::Training if test.is_some() => validation.or(training),
        Subset::Training => training,
        Subset::Validation => test.or(validation),
    }
}
