//! How EPIC-Kitchens' evaluator and its copies mistake one class for another (spec 60, section 7, decision D22).

use std::collections::BTreeSet;

use super::GroundTruth;

/// What each label of detections counts as there; nothing where that is what it is, or where classes have no numbers.
///
/// The classes that have ground truth are renumbered without gaps, and a label outside them keeps its number: class 4
/// that no video shows counts as the class that has become number 4.
pub fn collided(truth: &GroundTruth, labels: &[String]) -> Option<Vec<String>> {
    let number = |name: &str| truth.numbers.get(name).copied().or_else(|| name.parse().ok());
    let shown: BTreeSet<&str> =
        truth.actions.iter().map(|action| truth.classes[action.label as usize].as_str()).collect();
    let mut dense: Vec<(u32, &str)> =
        shown.iter().map(|name| Some((number(name)?, *name))).collect::<Option<_>>()?;
    dense.sort_unstable();
    let counts_as = |label: &String| {
        let mistaken = || dense.get(number(label)? as usize).map(|(_, name)| (*name).to_owned());
        if shown.contains(label.as_str()) { None } else { mistaken() }.unwrap_or_else(|| label.clone())
    };
    let counted: Vec<String> = labels.iter().map(counts_as).collect();
    (counted != labels).then_some(counted)
}
