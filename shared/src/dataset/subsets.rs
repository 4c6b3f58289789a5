//! Which subset of the annotations a name in the configuration means: releases of one data set spell them differently.

use super::{DatasetError, Subset};
use crate::config::{AnnotationFormat, DataConfig};

/// Spellings of one subset.
const ALIASES: [&[&str]; 3] = [&["training", "train"], &["validation", "val"], &["testing", "test"]];

/// The subset names to train and to validate on, as the annotations spell them, with remarks on what stands for what.
pub(super) fn resolve(
    config: &DataConfig,
    present: &[String],
) -> Result<([String; 2], Vec<String>), DatasetError> {
    let asked = [
        (Subset::Training, &config.train_subset, "data.train_subset"),
        (Subset::Validation, &config.validation_subset, "data.validation_subset"),
    ];
    let mut remarks = Vec::new();
    let mut found = Vec::new();
    for (role, wanted, key) in asked {
        let name = find(config.format, role, wanted, present).ok_or_else(|| DatasetError::NoSuchSubset {
            annotations: config.annotations.clone(),
            wanted: wanted.clone(),
            key,
            present: present.to_vec(),
        })?;
        if name != wanted {
            remarks.push(format!("the subset `{wanted}` is `{name}` in these annotations"));
        }
        found.push(name.clone());
    }
    if found[0] == found[1] && config.train_subset != config.validation_subset {
        return Err(DatasetError::SameSubset { subset: found.remove(0), present: present.to_vec() });
    }
    let validation = found.remove(1);
    Ok(([found.remove(0), validation], remarks))
}

fn find<'p>(
    format: AnnotationFormat,
    role: Subset,
    wanted: &str,
    present: &'p [String],
) -> Option<&'p String> {
    let spelled = |name: &str| present.iter().find(|other| other.eq_ignore_ascii_case(name));
    let group = ALIASES.iter().find(|group| group.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
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
