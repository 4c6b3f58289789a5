//! Finds labels that look like one class: they differ in case, blanks, hyphens or underscores.

use std::collections::BTreeMap;

use super::finding::Finding;
use crate::text::composed;

/// Labels, each with the first video that shows it, or nothing where none does -> those that look alike.
pub(super) fn near(labels: &BTreeMap<&str, &str>) -> Vec<Finding> {
    let mut alike: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for (label, video) in labels {
        let (labels, videos) = alike.entry(core(label)).or_default();
        labels.push((*label).to_owned());
        videos.push((*video).to_owned());
    }
    let groups = alike.into_values().filter(|(labels, _)| labels.len() > 1);
    groups.map(|(labels, videos)| Finding::NearLabels { labels, videos }).collect()
}

/// What of a label a reader sees at a glance.
fn core(label: &str) -> String {
    composed(label)
        .chars()
        .filter(|character| !character.is_whitespace() && !"-_\u{2010}\u{2011}\u{2013}".contains(*character))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(labels: &[&str]) -> Vec<String> {
        let labels = labels.iter().map(|label| (*label, "v")).collect();
        let groups = near(&labels).into_iter().map(|finding| match finding {
            Finding::NearLabels { labels, .. } => labels.join("|"),
            other => other.to_string(),
        });
        groups.collect()
    }

    #[test]
    fn spellings_of_one_class_are_grouped() {
        assert_eq!(
            groups(&["pour", "Pour", "pour ", "pour_tea", "pour tea", "stir"]),
            ["Pour|pour|pour ", "pour tea|pour_tea"]
        );
        assert_eq!(groups(&["High-Jump", "HighJump", "cafe\u{301}", "caf\u{e9}"]).len(), 2);
    }

    #[test]
    fn other_classes_are_not() {
        assert!(groups(&["pour", "pours", "pour 1", "pour 2", "C", "C++"]).is_empty());
    }
}
